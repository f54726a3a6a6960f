//! Reasons why a resource is not executable, in one word each: `docs/conditions.md` has them all.
#![allow(missing_docs)] // each is its own word

macro_rules! reasons {
    ($($name:ident = $word:literal;)*) => {
        $(pub const $name: &str = $word;)*
        /// The words of this list, all of them.
        pub const ALL: &[&str] = &[$($word),*];
    };
}

reasons! {
    INVALID_ACCESS = "InvalidAccess";
    INVALID_ADDRESS = "InvalidAddress";
    INVALID_CERTIFICATE = "InvalidCertificate";
    INVALID_CONSUMER = "InvalidConsumer";
    INVALID_HEADER = "InvalidHeader";
    INVALID_HOSTNAME = "InvalidHostname";
    INVALID_JWKS = "InvalidJWKS";
    INVALID_LIMIT = "InvalidLimit";
    INVALID_METHOD = "InvalidMethod";
    INVALID_PATH = "InvalidPath";
    INVALID_PORT = "InvalidPort";
    INVALID_PREFIX = "InvalidPrefix";
    INVALID_REGEX = "InvalidRegex";
    INVALID_SCHEME = "InvalidScheme";
    INVALID_STATUS = "InvalidStatus";
    NO_CERTIFICATE = "NoCertificate";
    NO_MATCH = "NoMatch";
    TOO_COMPLEX = "TooComplex";
    UNKNOWN_FEATURE = "UnknownFeature";
    UNKNOWN_FILTER = "UnknownFilter";
    UNKNOWN_KEY = "UnknownKey";
    UNKNOWN_KIND = "UnknownKind";
    UNKNOWN_PATH_TYPE = "UnknownPathType";
    UNKNOWN_PROVIDER = "UnknownProvider";
    WRONG_KIND = "WrongKind";
    WRONG_REFERENCE = "WrongReference";
}

/// Reasons of refusals that only a proxy can find. In conditions they stand in the message of `ProxyDisagrees` or
/// `ProxyRejected`.
pub mod of_proxies {
    reasons! {
        PORT_UNAVAILABLE = "PortUnavailable";
        PROTOCOL_CONFLICT = "ProtocolConflict";
        UNDECODABLE = "Undecodable";
    }
}
