//! Keeps secrets out of everything that prints. Bytes in a resource are secret by their type (`build.rs`): `Debug` is
//! written by hand, `Serialize` redacts. Enum numbers print as words.

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
    credential_kind: proto::CredentialKind, "CREDENTIAL_KIND_";
    access_action: proto::AccessAction, "ACCESS_ACTION_";
}

/// The encoding of a certificate holds its key.
impl fmt::Debug for proto::PutEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutEntry")
            .field("key", &self.key)
            .field("resource", &format_args!("<{} bytes>", self.resource.len()))
            .finish()
    }
}

/// Prints the length in place of bytes.
macro_rules! hidden {
    ($($message:ident { $($shown:ident),*; $($hidden:ident),* })*) => {$(
        impl fmt::Debug for proto::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($shown), &self.$shown))*
                    $(.field(stringify!($hidden), &format_args!("<{} bytes>", self.$hidden.len())))*
                    .finish()
            }
        }
    )*};
}

hidden! {
    Certificate { ; chain_pem, private_key_pem }
    Credential { kind; digest }
    JwtProvider {
        issuer, audiences, r#type, leeway_seconds, required_claims, scopes, from, forward, claim_headers;
        jwks
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Entry, Key, Kind, Snapshot, wire};

    /// As text, and as the numbers that bytes print as.
    #[track_caller]
    fn hidden(value: &dyn fmt::Debug) {
        for text in [format!("{value:?}"), format!("{value:#?}")] {
            assert!(!text.contains("k3y") && !text.contains("107, 51, 121"), "{text}");
        }
    }

    #[test]
    fn nothing_that_prints_shows_a_key() {
        let certificate = proto::Certificate { chain_pem: "chain".into(), private_key_pem: "k3y".into() };
        assert_eq!(serde_json::to_value(&certificate).unwrap()["private_key_pem"], "<3 bytes>");
        hidden(&certificate);
        let resource =
            proto::Resource { requires: vec![], kind: Some(proto::resource::Kind::Certificate(certificate)) };
        hidden(&resource);
        let entry = Entry::new(&resource);
        assert!(entry.bytes().windows(3).any(|bytes| bytes == b"k3y"));
        hidden(&entry);
        let snapshot: Snapshot = [(Key::new(Kind::Certificate, "ns", "c"), entry)].into_iter().collect();
        hidden(&snapshot);
        let delta = snapshot.diff(&BTreeMap::new());
        hidden(&delta);
        let messages = wire::push(1, None, snapshot.revision(), &delta);
        hidden(&messages);
        let mut assembly = wire::Assembly::default();
        let accept = |message: proto::OperatorMessage| assembly.accept(message.message.unwrap()).unwrap();
        let push: Vec<_> = messages.into_iter().filter_map(accept).collect();
        assert_eq!(push.len(), 1);
        hidden(&push);
    }

    #[test]
    fn nothing_that_prints_shows_keys_of_tokens() {
        let jwt = proto::JwtProvider { jwks: "k3y".into(), ..proto::JwtProvider::default() };
        assert_eq!(serde_json::to_value(&jwt).unwrap()["jwks"], "<3 bytes>");
        hidden(&jwt);
        let provider = Some(proto::auth_provider::Provider::Jwt(jwt));
        let providers = vec![proto::AuthProvider { name: "staff".into(), provider }];
        let authentication = Some(proto::Authentication { providers, ..proto::Authentication::default() });
        hidden(&proto::AccessPolicy { authentication, ..proto::AccessPolicy::default() });
    }

    #[test]
    fn nothing_that_prints_shows_a_digest() {
        let credential = proto::Credential { kind: 0, digest: "k3y".into() };
        let shown = serde_json::json!({"kind": "API_KEY", "digest": "<3 bytes>"});
        assert_eq!(serde_json::to_value(&credential).unwrap(), shown);
        hidden(&proto::Consumer { labels: vec![], credentials: vec![credential] });
    }
}
