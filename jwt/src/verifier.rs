//! What is asked of a token, once its signature is right.

use crate::{Claims, KeySet, MAX_LEEWAY_SECONDS, Reason, RequiredClaim, claims, token::Token};

/// Types that a token for access may have where none is asked for (RFC 9068, RFC 7519 section 5.1, SPIFFE's JWT-SVID), or none
/// at all. A token that says it is something else, such as one that announces a logout, is none (RFC 8725 section 3.11).
const USUAL_TYPES: [&str; 3] = ["JWT", "at+jwt", "JOSE"];

/// What is asked of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// Issuer, as `iss` has it.
    pub issuer: String,
    /// Audiences, of which `aud` must name one; empty: the token must name none.
    pub audiences: Vec<String>,
    /// Type, as the header's `typ` must have it, without regard to case and to `application/` before it.
    pub typ: Option<String>,
    /// Claims that it must have.
    pub claims: Vec<RequiredClaim>,
    /// Scopes, all of which it must have.
    pub scopes: Vec<String>,
    /// Tolerance for clocks that differ, in seconds, up to [`MAX_LEEWAY_SECONDS`].
    pub leeway_seconds: u64,
}

/// A judge of the tokens of one issuer.
#[derive(Debug)]
pub struct Verifier {
    asked: Requirements,
    leeway_ms: i64,
    /// Names of claims that are read.
    known: Vec<String>,
}

/// A token that was verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The claims.
    pub claims: Claims,
    /// End of the time for which the token passes, the tolerance included, in milliseconds since 1970.
    pub until_ms: u64,
}

impl Verifier {
    /// A verifier that asks this. `read`: claims that are used besides, so that no other spelling of them passes.
    pub fn new<'a>(asked: Requirements, read: impl Iterator<Item = &'a str>) -> Self {
        let required = asked.claims.iter().map(|claim| claim.path.top().into_owned());
        let fixed = claims::READ.into_iter().chain(read).map(str::to_owned);
        // Folded names are compared: one that has capitals itself has no other spelling to be told from.
        let known = fixed.chain(required).filter(|name| !name.chars().any(char::is_uppercase)).collect();
        let leeway_ms = asked.leeway_seconds.min(MAX_LEEWAY_SECONDS) as i64 * 1000;
        Self { asked, leeway_ms, known }
    }

    /// Verifies a token. `now_ms`: milliseconds since 1970.
    pub fn verify(&self, token: &[u8], keys: &KeySet, now_ms: u64) -> Result<Verified, Reason> {
        let token = Token::parse(token)?;
        if !self.is_of_type(token.header.typ.as_deref()) {
            return Err(Reason::WrongType);
        }
        keys.verify(&token.header, token.signed, &token.signature)?;
        let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
        let claims = Claims(token.claims(&known)?);
        let until_ms = self.check(&claims, i64::try_from(now_ms).unwrap_or(i64::MAX))?;
        Ok(Verified { claims, until_ms })
    }

    fn check(&self, claims: &Claims, now_ms: i64) -> Result<u64, Reason> {
        if claims.issuer() != Some(&self.asked.issuer) {
            return Err(Reason::WrongIssuer);
        }
        if !claims.is_for(&self.asked.audiences)? {
            return Err(Reason::WrongAudience);
        }
        // A token without an end could not be taken back.
        let until_ms = claims.time("exp")?.ok_or(Reason::MissingClaim)? + self.leeway_ms;
        if now_ms >= until_ms {
            return Err(Reason::Expired);
        }
        for name in ["nbf", "iat"] {
            if claims.time(name)?.is_some_and(|from| now_ms.saturating_add(self.leeway_ms) < from) {
                return Err(Reason::NotYetValid);
            }
        }
        if !self.asked.claims.iter().all(|required| claims.has(required)) {
            return Err(Reason::MissingClaim);
        }
        let scopes = claims.scopes()?;
        if !self.asked.scopes.iter().all(|scope| scopes.contains(&scope.as_str())) {
            return Err(Reason::InsufficientScope);
        }
        Ok(until_ms.unsigned_abs())
    }

    fn is_of_type(&self, typ: Option<&str>) -> bool {
        // RFC 7515 section 4.1.9: `application/` may be left out.
        let short = typ.map(|typ| match typ.split_at_checked("application/".len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") => rest,
            _ => typ,
        });
        match (&self.asked.typ, short) {
            (Some(asked), Some(typ)) => typ.eq_ignore_ascii_case(asked),
            (Some(_), None) => false,
            (None, Some(typ)) => USUAL_TYPES.iter().any(|usual| typ.eq_ignore_ascii_case(usual)),
            (None, None) => true,
        }
    }
}
