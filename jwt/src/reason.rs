//! Why a token is refused.

/// The reason for which a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    /// The token has more bytes than [`crate::MAX_TOKEN_BYTES`].
    #[error("the token is too long")]
    TooLong,
    /// The token is no compact JWS: three parts of canonical base64url, of which the first two are JSON objects.
    #[error("the token is malformed")]
    Malformed,
    /// An object has two members of one name, or one whose name some parsers take for another.
    #[error("the token has a member that can be read in two ways")]
    AmbiguousMember,
    /// Objects are nested too deeply.
    #[error("the token is nested too deeply")]
    TooDeep,
    /// The header demands an extension (`crit`), or changes how the claims are to be read (`b64`, `zip`).
    #[error("the token's header demands what is not supported")]
    UnsupportedHeader,
    /// The header's `typ` says that it is another kind of token.
    #[error("the token is of another type")]
    WrongType,
    /// The header's `alg` is none that is supported, such as `none`.
    #[error("the token's algorithm is not supported")]
    UnsupportedAlgorithm,
    /// The issuer's keys have none of that `kid`. (They may have been replaced since they were read.)
    #[error("the token's key is not known")]
    UnknownKey,
    /// The token's key is for another algorithm than its header says.
    #[error("the token's algorithm is not its key's")]
    WrongAlgorithm,
    /// The header has no `kid`, and the issuer has too many keys to try them all.
    #[error("the token does not say its key")]
    KeyIdMissing,
    /// The signature is not that key's.
    #[error("the token's signature is wrong")]
    WrongSignature,
    /// The issuer is another.
    #[error("the token is of another issuer")]
    WrongIssuer,
    /// The token is for others, or does not say for whom it is.
    #[error("the token is for another audience")]
    WrongAudience,
    /// The token's time is over.
    #[error("the token has expired")]
    Expired,
    /// The token's time has not come, or it was issued later than now.
    #[error("the token is not yet valid")]
    NotYetValid,
    /// A claim that is read has a value that it can't have, such as an `exp` that is no number.
    #[error("a claim of the token has an invalid value")]
    InvalidClaim,
    /// A required claim is missing, or has none of the required values.
    #[error("a claim of the token is not as required")]
    MissingClaim,
    /// A required scope is missing.
    #[error("the token lacks a scope")]
    InsufficientScope,
}

/// The error codes of RFC 6750 section 3.1 that refused tokens have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OAuthError {
    /// 401: the token is not accepted.
    InvalidToken,
    /// 403: the token is accepted, and does not suffice.
    InsufficientScope,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 18] = [
        Self::TooLong,
        Self::Malformed,
        Self::AmbiguousMember,
        Self::TooDeep,
        Self::UnsupportedHeader,
        Self::WrongType,
        Self::UnsupportedAlgorithm,
        Self::UnknownKey,
        Self::WrongAlgorithm,
        Self::KeyIdMissing,
        Self::WrongSignature,
        Self::WrongIssuer,
        Self::WrongAudience,
        Self::Expired,
        Self::NotYetValid,
        Self::InvalidClaim,
        Self::MissingClaim,
        Self::InsufficientScope,
    ];

    /// A fixed word, for metrics and log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed => "token_malformed",
            Self::AmbiguousMember => "token_ambiguous",
            Self::TooDeep => "token_too_deep",
            Self::UnsupportedHeader => "token_header_unsupported",
            Self::WrongType => "token_type_wrong",
            Self::UnsupportedAlgorithm => "token_algorithm_unsupported",
            Self::UnknownKey => "token_key_unknown",
            Self::WrongAlgorithm => "token_algorithm_wrong",
            Self::KeyIdMissing => "token_key_id_missing",
            Self::WrongSignature => "token_signature_wrong",
            Self::WrongIssuer => "token_issuer_wrong",
            Self::WrongAudience => "token_audience_wrong",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::InvalidClaim => "token_claim_invalid",
            Self::MissingClaim => "token_claim_missing",
            Self::InsufficientScope => "token_scope_insufficient",
        }
    }

    /// Whether the issuer signed the token: who brings it may know what is wrong with it, and did not guess.
    pub fn is_of_claims(self) -> bool {
        matches!(
            self,
            Self::WrongIssuer
                | Self::WrongAudience
                | Self::Expired
                | Self::NotYetValid
                | Self::InvalidClaim
                | Self::MissingClaim
                | Self::InsufficientScope
        )
    }

    /// The error that the client is told.
    pub fn oauth_error(self) -> OAuthError {
        match self {
            Self::InsufficientScope => OAuthError::InsufficientScope,
            _ => OAuthError::InvalidToken,
        }
    }
}

impl OAuthError {
    /// The code, as `WWW-Authenticate` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
        }
    }
}
