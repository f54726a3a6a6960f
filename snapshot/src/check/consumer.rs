//! Checks of consumers.

use super::{Fit, Unfit, reason};
use crate::{
    credential::Digest,
    proto::{Consumer, CredentialKind},
};

/// Most labels of a consumer: each look-up compares them.
pub const MAX_LABELS: usize = 64;
/// Most credentials of a consumer.
pub const MAX_CREDENTIALS: usize = 16;

pub(super) fn consumer(consumer: &Consumer) -> Fit {
    for (list, len, most) in [
        ("metadata.labels", consumer.labels.len(), MAX_LABELS),
        ("credentials", consumer.credentials.len(), MAX_CREDENTIALS),
    ] {
        if len > most {
            return Err(Unfit::new(list, reason::INVALID_CONSUMER, format!("has {len}, at most {most} are allowed")));
        }
    }
    for (i, credential) in consumer.credentials.iter().enumerate() {
        let unfit = |message: &str| Unfit::new(format!("credentials[{i}]"), reason::INVALID_CONSUMER, message);
        match CredentialKind::try_from(credential.kind) {
            Ok(CredentialKind::ApiKey) if Digest::from_slice(&credential.digest).is_some() => {}
            Ok(CredentialKind::ApiKey) => return Err(unfit("an API key is known by its SHA-256, of 32 bytes")),
            Err(_) => return Err(unfit("a credential of a type that this version does not know")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Credential, Label};

    #[track_caller]
    fn check(labels: usize, credentials: &[(i32, usize)], expect: Option<&str>) {
        let credential = |(kind, len): &(i32, usize)| Credential { kind: *kind, digest: vec![7; *len].into() };
        let credentials = credentials.iter().map(credential).collect();
        let found = consumer(&Consumer { labels: vec![Label::default(); labels], credentials });
        assert_eq!(found.err().map(|unfit| unfit.field).as_deref(), expect);
    }

    #[test]
    fn consumers() {
        check(0, &[], None);
        check(MAX_LABELS, &[(0, 32); MAX_CREDENTIALS], None);
        check(MAX_LABELS + 1, &[], Some("metadata.labels"));
        check(0, &[(0, 32); MAX_CREDENTIALS + 1], Some("credentials"));
        check(0, &[(0, 32), (0, 31)], Some("credentials[1]"));
        check(0, &[(9, 32)], Some("credentials[0]"));
    }
}
