//! Secret: a certificate and its key.

use k8s_openapi::api::core::v1 as core;
use snapshot::{check::Unfit, proto::Certificate};

use super::{Findings, unless};
use crate::problem::reason;

/// A Secret. Others than `kubernetes.io/tls` are nobody's business here: only their type is kept, to say so.
#[derive(Clone, Debug)]
pub(crate) enum TlsSecret {
    /// Holds a certificate.
    Certificate(Certificate),
    /// Of another type.
    OtherType(String),
}

pub(super) fn validate(secret: &core::Secret) -> Result<TlsSecret, Findings> {
    let kind = secret.type_.as_deref().unwrap_or("Opaque");
    if kind != "kubernetes.io/tls" {
        return Ok(TlsSecret::OtherType(kind.to_owned()));
    }
    let mut findings = vec![];
    let mut part = |name: &str, label: fn(&str) -> bool, words: &str| {
        let text = secret.string_data.as_ref().and_then(|d| d.get(name)).map(|s| s.as_bytes());
        let pem = text.or_else(|| secret.data.as_ref().and_then(|d| d.get(name)).map(|b| b.0.as_slice()));
        match pem {
            None => findings.push(Unfit::new(field(name), reason::INVALID_CERTIFICATE, "is missing")),
            Some(pem) if !is_pem(pem, label) => {
                let message = format!("is no PEM {words}: it needs a block from -----BEGIN to -----END");
                findings.push(Unfit::new(field(name), reason::INVALID_CERTIFICATE, message));
            }
            Some(_) => {}
        }
        pem.unwrap_or_default().to_vec()
    };
    let chain_pem = part("tls.crt", |label| label == "CERTIFICATE", "certificate");
    let private_key_pem = part("tls.key", |label| label.ends_with("PRIVATE KEY"), "private key");
    unless(
        findings,
        TlsSecret::Certificate(Certificate { chain_pem: chain_pem.into(), private_key_pem: private_key_pem.into() }),
    )
}

fn field(name: &str) -> String {
    format!("data[{name}]")
}

/// Whether there is a whole block of such a label. The proxy, which has the crypto, decides whether its content is sound.
fn is_pem(pem: &[u8], label: fn(&str) -> bool) -> bool {
    let Ok(text) = str::from_utf8(pem) else { return false };
    let mut lines = text.lines().map(str::trim);
    let begun =
        lines.find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----").filter(|found| label(found)));
    let Some(found) = begun else { return false };
    let (mut body, mut ended) = (0, false);
    for line in lines {
        if line.strip_prefix("-----END ").and_then(|l| l.strip_suffix("-----")) == Some(found) {
            ended = true;
            break;
        }
        body += line.len();
    }
    ended && body > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pem: &str, expect: bool) {
        assert_eq!(is_pem(pem.as_bytes(), |label| label == "CERTIFICATE"), expect, "{pem}");
    }

    #[test]
    fn markers() {
        check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", true);
        check("leaf\n-----BEGIN CERTIFICATE-----\r\nAAAA\r\n-----END CERTIFICATE-----", true);
        check("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", false);
        check("-----BEGIN CERTIFICATE-----\nAAAA\n", false);
        check("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", false);
        check("AAAA", false);
    }
}
