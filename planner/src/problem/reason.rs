//! The words that stand as reason in problems and conditions: every one that is made here is in [`ALL`], and in
//! `docs/conditions.md`. [`snapshot::check::reason`] has more, for the content of one object, and the operator a few for
//! what it observes.
#![allow(missing_docs)] // each is its own word; most are Gateway API's

macro_rules! reasons {
    ($($name:ident = $word:literal;)*) => {
        $(pub const $name: &str = $word;)*
        /// The words of this list, all of them.
        pub const ALL: &[&str] = &[$($word),*];
    };
}

reasons! {
    INVALID = "Invalid";
    INVALID_QUANTITY = "InvalidQuantity";
    INVALID_ADDRESS = "InvalidAddress";
    INVALID_CERTIFICATE = "InvalidCertificate";
    DUPLICATE_NAME = "DuplicateName";
    UNSUPPORTED_PROTOCOL = "UnsupportedProtocol";
    UNSUPPORTED_VALUE = "UnsupportedValue";

    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed";

    NO_MATCHING_PARENT = "NoMatchingParent";
    NOT_ALLOWED_BY_LISTENERS = "NotAllowedByListeners";
    NO_MATCHING_LISTENER_HOSTNAME = "NoMatchingListenerHostname";

    BACKEND_NOT_FOUND = "BackendNotFound";
    NO_READY_ENDPOINTS = "NoReadyEndpoints";
    REF_NOT_PERMITTED = "RefNotPermitted";
    INVALID_CERTIFICATE_REF = "InvalidCertificateRef";
    INVALID_CREDENTIAL_REF = "InvalidCredentialRef";
    TARGET_NOT_FOUND = "TargetNotFound";
    TARGET_NOT_SERVED = "TargetNotServed";

    LISTENER_NOT_PROGRAMMED = "ListenerNotProgrammed";
    CONFLICTED = "Conflicted";
    HOSTNAME_NOT_ALLOWED = "HostnameNotAllowed";
    HOSTNAMES_CLAIMED = "HostnamesClaimed";
    PATH_NOT_REACHABLE = "PathNotReachable";
    TOO_LARGE = "TooLarge";
    POLICY_UNAVAILABLE = "PolicyUnavailable";

    ACCEPTED = "Accepted";
    NOT_ACCEPTED = "NotAccepted";
    RESOLVED_REFS = "ResolvedRefs";
    PROGRAMMED = "Programmed";
    PENDING = "Pending";
    PROXY_REJECTED = "ProxyRejected";
    PROXY_DISAGREES = "ProxyDisagrees";
    PROXY_OUTDATED = "ProxyOutdated";
    ROLLOUT_HALTED = "RolloutHalted";
    READY = "Ready";
    NO_READY_PROXY = "NoReadyProxy";
    BELOW_MINIMUM = "BelowMinimum";
    MANAGED = "Managed";
    EXTERNAL = "External";
    DRY_RUN = "DryRun";
    PAUSED = "Paused";
}
