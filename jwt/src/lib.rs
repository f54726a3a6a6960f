//! JSON Web Tokens, verified as pure functions: no clock, no I/O; `now` is passed in. See `README.md` beside for what is ruled.
//!
//! ```text
//!  token ─► token.rs  three parts, canonical base64url ─► json.rs  objects that all parsers read alike
//!             │ header                                         │ claims, once the signature is right
//!             ▼                                                ▼
//!  JWKS ─► jwk.rs  keys, each with its one algorithm ─► verifier.rs ─► claims.rs ─► Verified | Reason
//!                                                          remembered.rs  what was verified, until it ends
//! ```
//!
//! - [`KeySet`]: the keys of an issuer (RFC 7517), and which of them are left out, and why.
//! - [`Verifier`]: what is asked of a token (RFC 7519, RFC 8725, RFC 9068).
//! - [`Reason`]: why a token is refused, and the error of RFC 6750 that says so.
//! - [`Remembered`]: a bounded memory of what was verified.
//!
//! **Why not a crate for tokens.** The maths is `aws-lc-rs`, which TLS uses already. What is around it decides here whether
//! a token passes, and is where implementations were broken, so it is written down to be read: the crate `jsonwebtoken`
//! takes what the token says for the first choice of an algorithm, reads claims by `serde`, for which the last of two
//! members of one name counts, looks into none of `crit`, `b64` and `zip`, and builds a key anew for each token.

mod algorithm;
mod claims;
mod json;
mod jwk;
mod reason;
mod remembered;
mod token;
mod verifier;

pub use algorithm::Algorithm;
pub use claims::{ClaimPath, Claims, InvalidPath, RequiredClaim};
pub use jwk::{KeySet, KeySetError, MAX_JWKS_BYTES, MAX_KEYS, Origin, Unusable, UnusableKey};
pub use reason::{OAuthError, Reason};
pub use remembered::{Remembered, TokenId};
pub use token::MAX_TOKEN_BYTES;
pub use verifier::{Requirements, Verified, Verifier};

/// Longest tolerance for clocks that differ, in seconds.
pub const MAX_LEEWAY_SECONDS: u64 = 60;
