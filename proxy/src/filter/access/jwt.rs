//! Provider `JWT`: callers bring a token that an issuer signed (RFC 7519, RFC 6750 section 2).
//!
//! What a token was verified to is remembered until it ends, under the hash of its policy, which holds the keys: another
//! policy or other keys know nothing of it.

use std::{borrow::Cow, hash::BuildHasher, sync::Arc, time::Duration};

use foldhash::quality::FixedState;
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use jwt::{
    ClaimPath, Claims, KeySet, MAX_TOKEN_BYTES, Reason, Remembered, RequiredClaim, Requirements, TokenId, Verifier,
};
use snapshot::{
    Hash,
    check::{Unfit, access, reason},
    proto,
};

use super::credentials::{Presented, Source};
use crate::{lookup::Lookup, message::RequestHead};

/// Bytes of what is remembered of tokens, of all policies together.
const REMEMBERED_BYTES: usize = 16 << 20;
/// Bytes of what is remembered of a token, besides its fields, and of a field, besides its value.
const TOKEN_BYTES: usize = 64;
const FIELD_BYTES: usize = 128;
/// Longest value of a field for the backend, in bytes: beyond it, it is left out.
const MAX_FIELD_BYTES: usize = 4 << 10;
/// The scheme of tokens in `Authorization`.
const SCHEME: &[u8] = b"Bearer";

/// What is remembered of tokens.
pub(super) struct Tokens(Remembered<Accepted>);

/// What is used of a token that was verified: fields for the backend.
#[derive(Debug, Default)]
pub(super) struct Accepted(Box<[(HeaderName, HeaderValue)]>);

/// Tokens of one issuer.
pub(super) struct Jwt {
    from: Box<[Source]>,
    forward: bool,
    told: Box<[Source]>,
    verifier: Verifier,
    keys: KeySet,
    fields: Box<[(ClaimPath, HeaderName)]>,
    tokens: Arc<Tokens>,
    fingerprint: Box<[u8]>,
    /// Hash of the namespace, whose tokens give way to each other first.
    namespace: u64,
}

impl Default for Tokens {
    fn default() -> Self {
        Self(Remembered::new(REMEMBERED_BYTES))
    }
}

impl Jwt {
    /// Compiles it. `policy`: the hash of the policy that it is a part of; `number`: its place there.
    pub(super) fn compile(
        jwt: &proto::JwtProvider,
        ((policy, namespace), number): ((Hash, &str), usize),
        tokens: &Arc<Tokens>,
    ) -> Result<Self, Unfit> {
        let from = Source::compile_all("jwt.from", &jwt.from)?;
        let mut told = vec![];
        let (keys, _) = access::jwt_keys(jwt).map_err(|e| Unfit::new("jwt.jwks.inline", reason::INVALID_JWKS, e))?;
        let path = |field: &dyn Fn() -> String, claim: &str| {
            ClaimPath::parse(claim).map_err(|e| Unfit::new(field(), reason::INVALID_ACCESS, e.to_string()))
        };
        let mut fields = vec![];
        for (i, to) in jwt.claim_headers.iter().enumerate() {
            let claim = path(&|| format!("jwt.claimToHeaders[{i}].claim"), &to.claim)?;
            let header = HeaderName::from_bytes(to.header.as_bytes()).map_err(|e| {
                Unfit::new(
                    format!("jwt.claimToHeaders[{i}].header"),
                    reason::INVALID_HEADER,
                    format!("{:?}: {e}", to.header),
                )
            })?;
            // Whatever a client says there, it does not say it for the issuer.
            told.push(Source::Header(header.clone()));
            fields.push((claim, header));
        }
        let mut claims = vec![];
        for (i, required) in jwt.required_claims.iter().enumerate() {
            let path = path(&|| format!("jwt.requiredClaims[{i}].claim"), &required.claim)?;
            claims.push(RequiredClaim { path, values: required.values.clone() });
        }
        let asked = Requirements {
            issuer: jwt.issuer.clone(),
            audiences: jwt.audiences.clone(),
            typ: Some(jwt.r#type.clone()).filter(|typ| !typ.is_empty()),
            claims,
            scopes: jwt.scopes.clone(),
            leeway_seconds: jwt.leeway_seconds.into(),
        };
        let read: Vec<_> = fields.iter().map(|(claim, _)| claim.top()).collect();
        let verifier = Verifier::new(asked, read.iter().map(AsRef::as_ref));
        let fingerprint = [policy.as_bytes(), &number.to_le_bytes()[..]].concat().into();
        Ok(Self {
            from,
            forward: jwt.forward,
            told: told.into(),
            verifier,
            keys,
            fingerprint,
            fields: fields.into(),
            tokens: Arc::clone(tokens),
            namespace: FixedState::default().hash_one(namespace),
        })
    }

    /// Places that may hold a token.
    pub(super) fn places(&self) -> &[Source] {
        &self.from
    }

    /// Fields that tell backends what a token says.
    pub(super) fn told(&self) -> &[Source] {
        &self.told
    }

    /// Whether backends get the token.
    pub(super) fn forwards(&self) -> bool {
        self.forward
    }

    /// The token that a request brings, in the first place that has one.
    pub(super) fn presented<'a>(&self, head: &'a RequestHead, lookup: &Lookup<'a>) -> Presented<Cow<'a, [u8]>> {
        let mut places = self.from.iter().map(|source| match source.presented(head, lookup, self.forward) {
            Presented::One(value) if source.is_header(&AUTHORIZATION) => bearer(value),
            found => found,
        });
        Presented::first(&mut places, self.forward)
    }

    /// What a token was verified to. `now`: time since 1970.
    pub(super) fn verify(&self, token: &[u8], now: Duration) -> Result<Arc<Accepted>, Reason> {
        // Longer ones are no tokens, and not worth hashing.
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Reason::TooLong);
        }
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let id = TokenId::new(&self.fingerprint, token);
        if let Some(known) = self.tokens.0.get(id, now_ms) {
            return Ok(known);
        }
        let verified = self.verifier.verify(token, &self.keys, now_ms)?;
        let accepted = Arc::new(self.accepted(&verified.claims));
        let value = (Arc::clone(&accepted), accepted.bytes());
        self.tokens.0.insert(id, self.namespace, value, verified.until_ms, now_ms);
        Ok(accepted)
    }

    fn accepted(&self, claims: &Claims) -> Accepted {
        let field = |(claim, name): &(ClaimPath, HeaderName)| {
            let value = claims.field(claim).filter(|value| value.len() <= MAX_FIELD_BYTES)?;
            Some((name.clone(), HeaderValue::try_from(value).ok()?))
        };
        Accepted(self.fields.iter().filter_map(field).collect())
    }
}

impl Accepted {
    /// Tells the backend, which gets nothing of these names from the client.
    pub(super) fn tell(&self, head: &mut RequestHead) {
        for (name, value) in &self.0 {
            head.fields.insert(name.clone(), value.clone());
        }
    }

    fn bytes(&self) -> usize {
        let field = |(_, value): &(HeaderName, HeaderValue)| FIELD_BYTES + value.len();
        TOKEN_BYTES + self.0.iter().map(field).sum::<usize>()
    }
}

/// The token behind `Bearer` (RFC 6750 section 2.1); another scheme is another provider's.
fn bearer(value: Cow<'_, [u8]>) -> Presented<Cow<'_, [u8]>> {
    let token = |value: &[u8]| {
        let (scheme, token) = value.split_at_checked(SCHEME.len())?;
        let is_bearer = scheme.eq_ignore_ascii_case(SCHEME) && token.first().is_none_or(|byte| *byte == b' ');
        is_bearer.then(|| token.trim_ascii_start().len())
    };
    match (token(&value), value) {
        (None, _) => Presented::Nothing,
        (Some(length), Cow::Borrowed(value)) => Presented::One(Cow::Borrowed(&value[value.len() - length..])),
        (Some(length), Cow::Owned(mut value)) => Presented::One(value.split_off(value.len() - length).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_behind_bearer_alone() {
        let one = |token: &'static str| Presented::One(Cow::from(token.as_bytes()));
        for (value, expect) in [
            ("Bearer a.b.c", one("a.b.c")),
            ("bEARER   a.b.c", one("a.b.c")),
            ("Bearer a b", one("a b")),
            ("Bearer", one("")),
            ("Bearer ", one("")),
            ("Bearera.b.c", Presented::Nothing),
            ("Bearer\ta.b.c", Presented::Nothing),
            ("Basic a.b.c", Presented::Nothing),
            ("a.b.c", Presented::Nothing),
            ("", Presented::Nothing),
        ] {
            assert_eq!(bearer(value.as_bytes().into()), expect, "{value:?}");
            assert_eq!(bearer(value.as_bytes().to_vec().into()), expect, "{value:?}");
        }
    }
}
