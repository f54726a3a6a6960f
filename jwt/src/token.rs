//! Tokens as they come: the compact serialisation of a JWS (RFC 7515 section 7.1), and what its header says.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

use crate::{Algorithm, Reason, json};

/// Longest token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Most members of a header: reading one takes time, and whoever likes can write some.
const MAX_HEADER_MEMBERS: usize = 64;
/// Members of a header that are read.
const READ: [&str; 6] = ["alg", "kid", "typ", "crit", "b64", "zip"];

/// A token whose signature nobody has looked at.
#[derive(Debug)]
pub(crate) struct Token<'a> {
    pub(crate) header: Header,
    /// The signing input: header and claims, as they came.
    pub(crate) signed: &'a [u8],
    /// Claims, still encoded.
    claims: &'a [u8],
    pub(crate) signature: Vec<u8>,
}

/// A header's content, of which nothing counts before a key has confirmed it. Fields that name or bring keys (`jwk`, `jku`,
/// `x5u`, `x5c`) are not read.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    pub(crate) typ: Option<String>,
}

impl<'a> Token<'a> {
    pub(crate) fn parse(token: &'a [u8]) -> Result<Self, Reason> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Reason::TooLong);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Reason::Malformed);
        };
        Ok(Self {
            header: Header::parse(&decode(header)?)?,
            signed: &token[..header.len() + 1 + claims.len()],
            claims,
            signature: decode(signature)?,
        })
    }

    /// The claims, as the object that they are. `known`: names that are read.
    pub(crate) fn claims(&self, known: &[&str]) -> Result<Map<String, Value>, Reason> {
        json::object(&decode(self.claims)?, known, usize::MAX)
    }
}

impl Header {
    fn parse(text: &[u8]) -> Result<Self, Reason> {
        let mut header = json::object(text, &READ, MAX_HEADER_MEMBERS)?;
        // No extension is supported. Whoever does support `b64` or `zip` reads other claims than are read here.
        if header.contains_key("crit")
            || header.contains_key("zip")
            || !matches!(header.get("b64"), None | Some(Value::Bool(true)))
        {
            return Err(Reason::UnsupportedHeader);
        }
        let mut text = |name: &str| match header.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Reason::Malformed),
        };
        let (algorithm, key_id, typ) = (text("alg")?.ok_or(Reason::Malformed)?, text("kid")?, text("typ")?);
        let algorithm = Algorithm::from_name(&algorithm).ok_or(Reason::UnsupportedAlgorithm)?;
        Ok(Self { algorithm, key_id, typ })
    }
}

/// Decodes base64url as RFC 7515 section 2 has it: without padding, spaces, and bits that stand for nothing.
pub(crate) fn decode(text: &[u8]) -> Result<Vec<u8>, Reason> {
    BASE64URL_NOPAD.decode(text).map_err(|_| Reason::Malformed)
}
