//! API keys in Secrets, and their digests, which alone go any further: into snapshots, and into what is remembered of a Secret
//! whose content was accepted, so that no key outlives the Secret that it stands in.

use std::collections::BTreeMap;

use crds::{
    Object,
    consumer::{CREDENTIAL_LABEL, is_api_key},
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use snapshot::credential::{Digest, MAX_API_KEY};

/// The type of a Secret as it is remembered. No Secret of a source may have it: whoever learns of a digest would be known by
/// it.
pub(crate) const DIGESTS: &str = "sluice.dev/api-key-digests";

/// The keys of a Secret, each as the digest of an API key; `Err`: why it can't be one.
pub(crate) type Keys = BTreeMap<String, Result<Digest, String>>;

/// The content that is remembered in place of one that was accepted: with digests for API keys. `None`: it is remembered as
/// it is.
pub fn digested(content: &Object) -> Option<Object> {
    let Object::Secret(secret) = content else { return None };
    if is_remembered(secret) {
        return None;
    }
    let digests =
        keys(secret)?.into_iter().filter_map(|(key, digest)| Some((key, ByteString(digest.ok()?.to_bytes().into()))));
    Some(Object::Secret(Secret {
        type_: Some(DIGESTS.to_owned()),
        data: Some(digests.collect()),
        string_data: None,
        ..secret.clone()
    }))
}

/// Whether a content is what [`digested`] made.
pub fn is_digested(content: &Object) -> bool {
    matches!(content, Object::Secret(secret) if is_remembered(secret))
}

/// Whether a Secret is one as it is remembered.
pub(crate) fn is_remembered(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(DIGESTS)
}

/// The API keys of a Secret that says that it has some.
pub(crate) fn keys(secret: &Secret) -> Option<Keys> {
    let data = secret.data.iter().flatten().map(|(key, content)| (key.clone(), content.0.as_slice()));
    if is_remembered(secret) {
        let digest = |content| Digest::from_slice(content).ok_or_else(|| "is no digest".to_owned());
        return Some(data.map(|(key, content)| (key, digest(content))).collect());
    }
    let label = secret.metadata.labels.as_ref().and_then(|labels| labels.get(CREDENTIAL_LABEL));
    is_api_key(label.map(String::as_str), secret.type_.as_deref())
        .then(|| data.map(|(key, content)| (key, api_key(content))).collect())
}

/// The digest of an API key. The line end that `echo` and editors leave is no part of it.
fn api_key(content: &[u8]) -> Result<Digest, String> {
    match content.trim_ascii_end() {
        [] => Err("is empty".into()),
        key if key.len() > MAX_API_KEY => Err(format!("has {} bytes, at most {MAX_API_KEY} are allowed", key.len())),
        key if !key.iter().all(u8::is_ascii_graphic) => {
            Err("holds a space, a control character or what is no ASCII, which no request can bring".into())
        }
        key => Ok(Digest::of_api_key(key)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A key is what a request can bring; the line end that a file has is no part of it.
    #[test]
    fn api_keys() {
        assert_eq!(api_key(b"k3y\r\n"), Ok(Digest::of_api_key(b"k3y")));
        for (content, fault) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            (b"a b", "holds a space"),
            (b"\xff", "holds a space"),
            (&[b'k'; MAX_API_KEY + 1], "has 4097 bytes"),
        ] {
            assert!(api_key(content).unwrap_err().starts_with(fault), "{fault}");
        }
    }

    fn secret(kind: &str, label: &str) -> Object {
        let metadata = json!({"name": "a", "namespace": "b", "uid": "u", "labels": {"sluice.dev/credential": label}});
        let data = json!({"api-key": "azN5", "spaced": "YSBi"});
        crds::admit(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data}))
            .unwrap()
    }

    #[test]
    fn what_is_remembered_has_digests_and_no_keys() {
        let remembered = digested(&secret("Opaque", "api-key")).unwrap();
        let Object::Secret(content) = &remembered else { panic!() };
        assert_eq!(content.metadata.uid.as_deref(), Some("u"));
        let key = Digest::of_api_key(b"k3y");
        assert_eq!(keys(content), Some([("api-key".to_owned(), Ok(key))].into()));
        // It passes through what is written of it, and admission, as it is.
        let written = serde_json::to_value(crds::admit::Manifest(&remembered)).unwrap();
        assert!(!written.to_string().contains("azN5") && !written.to_string().contains("k3y"), "{written}");
        assert_eq!(crds::admit(written).unwrap(), remembered);
        assert_eq!(digested(&remembered), None);
        assert_eq!(digested(&secret("Opaque", "other")), None);
        assert_eq!(digested(&secret("kubernetes.io/service-account-token", "api-key")), None);
    }
}
