//! Keeps private keys out of everything that prints: `Debug` by hand, `Serialize` redacted. Enum numbers print as words.

use std::fmt;

use bytes::Bytes;
use serde::Serializer;

use crate::proto;

/// Serializes the length instead of the content.
pub(crate) fn redact<S: Serializer>(secret: &Bytes, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&format_args!("<{} bytes>", secret.len()))
}

/// Serializes bytes that are text (PEM) as a string.
pub(crate) fn text<S: Serializer>(bytes: &Bytes, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&String::from_utf8_lossy(bytes))
}

/// Serializes an enum's number as its word.
macro_rules! words {
    ($($name:ident: $message:ty, $prefix:literal;)*) => {$(
        pub(crate) fn $name<S: Serializer>(number: &i32, s: S) -> Result<S::Ok, S::Error> {
            match <$message>::try_from(*number) {
                Ok(value) => s.serialize_str(value.as_str_name().strip_prefix($prefix).unwrap_or(value.as_str_name())),
                Err(_) => s.serialize_i32(*number),
            }
        }
    )*};
}

words! {
    access_log_level: proto::AccessLogLevel, "ACCESS_LOG_LEVEL_";
    path_kind: proto::PathKind, "PATH_KIND_";
    cluster_protocol: proto::ClusterProtocol, "CLUSTER_PROTOCOL_";
    limit_scope: proto::LimitScope, "LIMIT_SCOPE_";
}

impl fmt::Debug for proto::Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("chain_pem", &format_args!("<{} bytes>", self.chain_pem.len()))
            .field("private_key_pem", &format_args!("<{} bytes>", self.private_key_pem.len()))
            .finish()
    }
}
