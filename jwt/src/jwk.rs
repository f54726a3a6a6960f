//! The keys of an issuer: a JSON Web Key Set (RFC 7517 section 5), each key of which has one algorithm, whatever tokens say
//! (RFC 8725 section 3.1).
//!
//! - A key's `alg` counts. Without one it is what the curve says, and RS256 for RSA, which is what issuers mean that do not
//!   say it (OpenID Connect's default). A symmetric key has to say it.
//! - A key that can't be used is left out, and told: a set may have keys for other purposes. One with private members was
//!   given away, and is not trusted.

use std::{collections::HashMap, fmt};

use aws_lc_rs::{hmac, signature::ParsedPublicKey};
use serde_json::{Map, Value};

use crate::{
    Algorithm, Reason,
    algorithm::Maths,
    json,
    token::{Header, decode},
};

/// Longest set of keys, in bytes of JSON.
pub const MAX_JWKS_BYTES: usize = 1 << 20;
/// Most keys of a set.
pub const MAX_KEYS: usize = 100;
/// Most keys of one `kid` and algorithm, and most that are tried when a token has no `kid`: each may cost a token the time
/// of a signature.
const MAX_TRIES: usize = 4;
/// Longest `kid`, in bytes.
const MAX_KEY_ID_BYTES: usize = 1024;
/// Bits of an RSA key: shorter ones are broken (RFC 7518 section 3.3), longer ones cost clients little and the proxy much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// Bytes of a symmetric key, at most.
const MAX_SECRET_BYTES: usize = 1024;
/// Members that only a private key has (RFC 7518 sections 6.2.2 and 6.3.2).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// The keys of an issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// The origin of a set, which says what it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A place that others can read: symmetric keys are not trusted.
    Public,
    /// A secret.
    Secret,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    material: Material,
}

enum Material {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

/// Why a set can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// The set is longer than [`MAX_JWKS_BYTES`].
    #[error("it has more than {MAX_JWKS_BYTES} bytes")]
    TooLong,
    /// The set is no JSON object with a list `keys` of objects.
    #[error(
        "it is no JSON Web Key Set: an object with a list `keys` of objects, none of them with two members of one name"
    )]
    Malformed,
    /// The set has more keys than [`MAX_KEYS`].
    #[error("it has more than {MAX_KEYS} keys")]
    TooManyKeys,
    /// No key of the set can be used.
    #[error("it has no key that can be used{}", list(.0))]
    NoUsableKey(Vec<UnusableKey>),
}

/// A key that is left out of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableKey {
    /// Position in the list.
    pub index: usize,
    /// The cause.
    pub cause: Unusable,
}

/// Why a key is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// `kty` or `crv` is none that is supported.
    #[error("its type or curve is not supported")]
    UnknownType,
    /// `alg` is none that is supported, or none of that type of key.
    #[error("its alg is not supported for that type of key")]
    WrongAlgorithm,
    /// A symmetric key has no `alg`.
    #[error("a symmetric key must have alg: HS256, HS384 or HS512")]
    NoAlgorithm,
    /// `use` or `key_ops` say that it is for something else.
    #[error("it is not for signatures")]
    OtherUse,
    /// It has members of a private key.
    #[error(
        "it has private members, so that whoever can read it can sign: make a new key, and publish its public part alone"
    )]
    Private,
    /// It is symmetric, and stands where others can read it.
    #[error("it is symmetric, so that whoever can read it can sign: put it into a Secret")]
    Symmetric,
    /// It has too few bits, or too many.
    #[error(
        "it is too short or too long: RSA has 2048 to 4096 bits, a symmetric key at least those of its hash and at most 1024 \
         bytes"
    )]
    WrongLength,
    /// Its values are none of a key: malformed, or no point of the curve.
    #[error("its values are not those of a key")]
    InvalidKey,
    /// Too many keys have this `kid` and algorithm.
    #[error("{MAX_TRIES} keys before it have the same kid and algorithm")]
    Duplicate,
}

fn list(keys: &[UnusableKey]) -> String {
    keys.iter().take(3).map(|key| format!("; {key}")).collect()
}

impl fmt::Display for UnusableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys[{}]: {}", self.index, self.cause)
    }
}

/// Nothing of the key itself.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.id, self.algorithm)
    }
}

impl KeySet {
    /// The keys of a set that can be used, and those that can't.
    pub fn parse(text: &[u8], origin: Origin) -> Result<(Self, Vec<UnusableKey>), KeySetError> {
        if text.len() > MAX_JWKS_BYTES {
            return Err(KeySetError::TooLong);
        }
        let mut set = json::object(text, &[], usize::MAX).map_err(|_| KeySetError::Malformed)?;
        let Some(Value::Array(list)) = set.remove("keys") else { return Err(KeySetError::Malformed) };
        if list.len() > MAX_KEYS {
            return Err(KeySetError::TooManyKeys);
        }
        let (mut keys, mut unusable, mut alike) = (vec![], vec![], HashMap::new());
        for (index, key) in list.iter().enumerate() {
            let jwk = key.as_object().ok_or(KeySetError::Malformed)?;
            let counted = |key: Key| {
                let count = alike.entry((key.id.clone(), key.algorithm)).or_insert(0);
                *count += 1;
                if *count > MAX_TRIES { Err(Unusable::Duplicate) } else { Ok(key) }
            };
            match Key::parse(jwk, origin).and_then(counted) {
                Ok(key) => keys.push(key),
                Err(cause) => unusable.push(UnusableKey { index, cause }),
            }
        }
        if keys.is_empty() { Err(KeySetError::NoUsableKey(unusable)) } else { Ok((Self { keys }, unusable)) }
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Verifies a signature by the key that the header names. A key without `kid` answers to every name.
    pub(crate) fn verify(&self, header: &Header, signed: &[u8], signature: &[u8]) -> Result<(), Reason> {
        let named = |key: &&Key| match (&header.key_id, &key.id) {
            (Some(named), Some(id)) => named == id,
            _ => true,
        };
        let mut of_name = self.keys.iter().filter(named).peekable();
        if of_name.peek().is_none() {
            return Err(Reason::UnknownKey);
        }
        let candidates: Vec<_> = of_name.filter(|key| key.algorithm == header.algorithm).collect();
        if candidates.is_empty() {
            return Err(Reason::WrongAlgorithm);
        }
        if header.key_id.is_none() && candidates.len() > MAX_TRIES {
            return Err(Reason::KeyIdMissing);
        }
        if candidates.iter().any(|key| key.material.verifies(signed, signature)) {
            Ok(())
        } else {
            Err(Reason::WrongSignature)
        }
    }
}

impl Material {
    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Public(key) => key.verify_sig(signed, signature).is_ok(),
            Self::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
        }
    }
}

impl Key {
    fn parse(jwk: &Map<String, Value>, origin: Origin) -> Result<Self, Unusable> {
        let text = |name: &str| match jwk.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(Unusable::InvalidKey),
        };
        if PRIVATE.iter().any(|name| jwk.contains_key(*name)) {
            return Err(Unusable::Private);
        }
        let is_to_verify = match jwk.get("key_ops") {
            None => true,
            Some(operations) => operations.as_array().is_some_and(|list| list.iter().any(|of| of == "verify")),
        };
        if !is_to_verify || text("use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(Unusable::OtherUse);
        }
        let id = text("kid")?.map(str::to_owned);
        if id.as_ref().is_some_and(|id| id.len() > MAX_KEY_ID_BYTES) {
            return Err(Unusable::InvalidKey);
        }
        let said = text("alg")?;
        let said = said.map(|name| Algorithm::from_name(name).ok_or(Unusable::WrongAlgorithm)).transpose()?;
        let bytes = |name| {
            let encoded = text(name)?.ok_or(Unusable::InvalidKey)?;
            decode(encoded.as_bytes()).map_err(|_| Unusable::InvalidKey)
        };
        let key_type = text("kty")?;
        let (algorithm, encoded) = match (key_type, text("crv")?) {
            (Some("RSA"), _) => (said.unwrap_or(Algorithm::Rs256), rsa(&bytes("n")?, &bytes("e")?)?),
            (Some("EC"), Some(curve)) => {
                let (algorithm, length) = curve_of(curve).ok_or(Unusable::UnknownType)?;
                (algorithm, point(&bytes("x")?, &bytes("y")?, length)?)
            }
            (Some("OKP"), Some("Ed25519")) => (Algorithm::EdDsa, bytes("x")?),
            (Some("oct"), _) if origin == Origin::Public => return Err(Unusable::Symmetric),
            (Some("oct"), _) => (said.ok_or(Unusable::NoAlgorithm)?, bytes("k")?),
            _ => return Err(Unusable::UnknownType),
        };
        // A key of a curve is for nothing else, an RSA key for RSA, a symmetric one for HMAC.
        if said.is_some_and(|said| said != algorithm) || key_type != Some(algorithm.key_type()) {
            return Err(Unusable::WrongAlgorithm);
        }
        let material = match algorithm.maths() {
            Maths::Hmac(hash) => {
                let length = hash.digest_algorithm().output_len()..=MAX_SECRET_BYTES;
                if !length.contains(&encoded.len()) {
                    return Err(Unusable::WrongLength);
                }
                Material::Secret(Box::new(hmac::Key::new(hash, &encoded)))
            }
            Maths::Signature(maths) => {
                Material::Public(ParsedPublicKey::new(maths, encoded).map_err(|_| Unusable::InvalidKey)?)
            }
        };
        Ok(Self { id, algorithm, material })
    }
}

/// The algorithm of a curve (RFC 7518 section 3.4), and the bytes of its coordinates.
fn curve_of(name: &str) -> Option<(Algorithm, usize)> {
    Some(match name {
        "P-256" => (Algorithm::Es256, 32),
        "P-384" => (Algorithm::Es384, 48),
        "P-521" => (Algorithm::Es512, 66),
        _ => return None,
    })
}

/// A point as SEC 1 section 2.3.3 has it, uncompressed.
fn point(x: &[u8], y: &[u8], length: usize) -> Result<Vec<u8>, Unusable> {
    if x.len() != length || y.len() != length {
        return Err(Unusable::InvalidKey);
    }
    Ok([&[4], x, y].concat())
}

/// An `RSAPublicKey` (RFC 8017 appendix A.1.1).
fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Vec<u8>, Unusable> {
    // Some issuers put a zero in front (RFC 7518 section 6.3.1.1 warns of it).
    let [modulus, exponent] = [modulus, exponent].map(|bytes| {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        &bytes[zeros..]
    });
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(Unusable::WrongLength);
    }
    // By an exponent of 1 everything is its own signature; a long one takes long.
    let is_odd = |bytes: &[u8]| bytes.last().is_some_and(|byte| byte % 2 == 1);
    if !is_odd(modulus) || !is_odd(exponent) || exponent == [1] || exponent.len() > 4 {
        return Err(Unusable::InvalidKey);
    }
    Ok(der(0x30, &[integer(modulus), integer(exponent)].concat()))
}

/// A positive INTEGER of DER.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let is_high = bytes.first().is_some_and(|byte| *byte >= 0x80);
    let sign: &[u8] = if is_high { &[0] } else { &[] };
    der(2, &[sign, bytes].concat())
}

/// A value of DER, of less than 64 KiB.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let [high, low] = [(length >> 8) as u8, length as u8];
    let head: &[u8] = match length {
        0..0x80 => &[tag, low],
        0x80..0x100 => &[tag, 0x81, low],
        _ => &[tag, 0x82, high, low],
    };
    [head, content].concat()
}
