//! Consumer: its labels as proxies get them, its credentials still as references.

use crds::consumer::{self as crd, CredentialType};
use snapshot::{
    check::{Unfit, consumer::MAX_LABELS},
    proto::{CredentialKind, Label},
};

use super::{Findings, unless};
use crate::problem::reason;

/// A Consumer.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    /// The labels in the order of their names.
    pub(crate) labels: Vec<Label>,
    pub(crate) credentials: Vec<CredentialRef>,
}

/// A credential, in a Secret of the consumer's namespace.
#[derive(Clone, Debug)]
pub(crate) struct CredentialRef {
    pub(crate) kind: CredentialKind,
    pub(crate) secret: String,
    /// The key within the Secret.
    pub(crate) key: String,
}

pub(super) fn validate(consumer: &crds::Consumer) -> Result<Consumer, Findings> {
    let labels = consumer.metadata.labels.iter().flatten();
    let labels = labels.map(|(name, value)| Label { name: name.clone(), value: value.clone() });
    let credential = |credential: &crd::Credential| CredentialRef {
        kind: match credential.kind {
            CredentialType::ApiKey => CredentialKind::ApiKey,
        },
        secret: credential.secret_ref.name.clone(),
        key: credential.secret_ref.key.clone(),
    };
    let consumer =
        Consumer { labels: labels.collect(), credentials: consumer.spec.credentials.iter().map(credential).collect() };
    let mut findings = vec![];
    if consumer.labels.len() > MAX_LABELS {
        let message = format!("has {} labels, at most {MAX_LABELS} are allowed", consumer.labels.len());
        findings.push(Unfit::new("metadata.labels", reason::INVALID, message));
    }
    unless(findings, consumer)
}
