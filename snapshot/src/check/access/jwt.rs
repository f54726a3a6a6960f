//! What makes a provider of tokens executable.

use jwt::{ClaimPath, KeySet, MAX_LEEWAY_SECONDS, Origin, Unusable, UnusableKey};

use super::parts::{bounded, sources};
use crate::{
    check::{Fit, Unfit, http_token, modifiable, reason, within},
    proto::JwtProvider,
};

/// Longest set of keys of a policy, in bytes.
pub const MAX_JWKS_BYTES: usize = 64 << 10;
/// Most entries of each of a provider's lists: each may be looked for in a token.
const MAX_ENTRIES: usize = 16;
/// Longest issuer, audience, claim or scope, in bytes.
const MAX_TEXT_BYTES: usize = 1024;

pub(super) fn provider(p: &JwtProvider) -> Fit {
    text("issuer", &p.issuer)?;
    texts("audiences", &p.audiences)?;
    texts("scopes", &p.scopes)?;
    if let Some(i) = p.scopes.iter().position(|scope| !scope.bytes().all(is_of_scope)) {
        let message = "a scope has no spaces, quotes and backslashes (RFC 6749 section 3.3)";
        return Err(Unfit::new(format!("scopes[{i}]"), reason::INVALID_ACCESS, message));
    }
    if p.leeway_seconds > MAX_LEEWAY_SECONDS as u32 {
        let message = format!("clocks differ by {MAX_LEEWAY_SECONDS}s at most: set them right");
        return Err(Unfit::new("leeway", reason::INVALID_LIMIT, message));
    }
    bounded("requiredClaims", p.required_claims.len(), MAX_ENTRIES)?;
    for (i, required) in p.required_claims.iter().enumerate() {
        let at = format!("requiredClaims[{i}]");
        claim(&format!("{at}.claim"), &required.claim)?;
        within(&at, texts("values", &required.values))?;
    }
    if p.from.is_empty() {
        return Err(Unfit::new("from", reason::INVALID_ACCESS, "names no place to look for a token"));
    }
    sources(&p.from)?;
    bounded("claimToHeaders", p.claim_headers.len(), MAX_ENTRIES)?;
    for (i, to) in p.claim_headers.iter().enumerate() {
        claim(&format!("claimToHeaders[{i}].claim"), &to.claim)?;
        let fit = http_token(&to.header).and_then(|()| modifiable(&to.header, &[]));
        fit.map_err(|e| Unfit::new(format!("claimToHeaders[{i}].header"), reason::INVALID_HEADER, e))?;
    }
    keys(p).map(drop).map_err(|e| Unfit::new("jwks.inline", reason::INVALID_JWKS, e))
}

/// The keys of a provider, and those that are left out; `Err`: why it has none.
pub fn keys(p: &JwtProvider) -> Result<(KeySet, Vec<UnusableKey>), String> {
    if p.jwks.len() > MAX_JWKS_BYTES {
        return Err(format!("has {} bytes, at most {MAX_JWKS_BYTES} are allowed: take keys out", p.jwks.len()));
    }
    let (keys, unusable) = KeySet::parse(&p.jwks, Origin::Public).map_err(|e| e.to_string())?;
    // It has been given away to whoever reads the object.
    if let Some(private) = unusable.iter().find(|key| matches!(key.cause, Unusable::Private | Unusable::Symmetric)) {
        return Err(private.to_string());
    }
    Ok((keys, unusable))
}

fn is_of_scope(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')
}

fn claim(field: &str, path: &str) -> Fit {
    text(field, path)?;
    ClaimPath::parse(path).map(drop).map_err(|e| Unfit::new(field, reason::INVALID_ACCESS, e.to_string()))
}

fn texts(list: &str, texts: &[String]) -> Fit {
    bounded(list, texts.len(), MAX_ENTRIES)?;
    texts.iter().enumerate().try_for_each(|(i, one)| text(&format!("{list}[{i}]"), one))
}

fn text(field: &str, text: &str) -> Fit {
    match text.len() {
        1..=MAX_TEXT_BYTES => Ok(()),
        length => {
            let message = format!("has {length} bytes: give 1 to {MAX_TEXT_BYTES}");
            Err(Unfit::new(field, reason::INVALID_ACCESS, message))
        }
    }
}

#[cfg(test)]
mod tests;
