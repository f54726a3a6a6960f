//! Secret: a certificate and its key.
//!
//! Checked is what needs no cryptography: the PEM is read as proxies read it, and its content begins as certificates and
//! keys do. Whether the key fits the certificate, and whether it is signed and in date, is not.

use std::iter;

use k8s_openapi::api::core::v1 as core;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error, PemObject},
};
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
    let mut part = |name: &str, fault: fn(&[u8]) -> Option<String>| {
        let text = secret.string_data.as_ref().and_then(|d| d.get(name)).map(|s| s.as_bytes());
        let pem = text.or_else(|| secret.data.as_ref().and_then(|d| d.get(name)).map(|b| b.0.as_slice()));
        let found = pem.map_or_else(|| Some("is missing".to_owned()), fault);
        findings.extend(found.map(|message| Unfit::new(field(name), reason::INVALID_CERTIFICATE, message)));
        pem.unwrap_or_default().to_vec()
    };
    let chain_pem = part("tls.crt", chain_fault);
    let private_key_pem = part("tls.key", key_fault);
    unless(
        findings,
        TlsSecret::Certificate(Certificate { chain_pem: chain_pem.into(), private_key_pem: private_key_pem.into() }),
    )
}

fn field(name: &str) -> String {
    format!("data[{name}]")
}

/// What is wrong with a certificate and those that it is signed by.
fn chain_fault(pem: &[u8]) -> Option<String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Err(error) => Some(format!("is no PEM certificate: {}", unreadable(&error))),
        Ok(chain) if chain.is_empty() => Some(
            "is no PEM certificate: it needs a block from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
                .into(),
        ),
        Ok(chain) => chain.iter().position(|der| !is_certificate(der)).map(|i| {
            format!("certificate {} in it is none: what stands between BEGIN and END is not the DER of one", i + 1)
        }),
    }
}

/// What is wrong with a private key. Nothing of it is quoted.
fn key_fault(pem: &[u8]) -> Option<String> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Err(Error::NoItemsFound) if pem.windows(9).any(|words| words == b"ENCRYPTED") => {
            Some("is encrypted: proxies need the key in the clear (openssl pkey -in KEY)".into())
        }
        Err(Error::NoItemsFound) => Some(
            "is no PEM private key: it needs a block from -----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY-----"
                .into(),
        ),
        Err(error) => Some(format!("is no PEM private key: {}", unreadable(&error))),
        Ok(key) if is_key(&key) => None,
        Ok(_) => Some("is no private key: what stands between BEGIN and END is not the DER of one".into()),
    }
}

fn unreadable(error: &Error) -> &'static str {
    match error {
        Error::MissingSectionEnd { .. } => "a block has no -----END line",
        Error::IllegalSectionStart { .. } => "a -----BEGIN line is broken",
        Error::Base64Decode(_) => "what stands between BEGIN and END is not base64",
        _ => "it can't be read",
    }
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// What is signed, how, and the signature (RFC 5280, 4.1).
fn is_certificate(der: &[u8]) -> bool {
    sequence(der).is_some_and(|members| members == [SEQUENCE, SEQUENCE, BIT_STRING])
}

/// A version, then the key in one of its three forms (RFC 5208, 5; RFC 5915, 3; RFC 8017, A.1.2).
fn is_key(key: &PrivateKeyDer<'_>) -> bool {
    let start: &[u8] = match key {
        PrivateKeyDer::Pkcs8(_) => &[INTEGER, SEQUENCE, OCTET_STRING],
        PrivateKeyDer::Sec1(_) => &[INTEGER, OCTET_STRING],
        PrivateKeyDer::Pkcs1(_) => &[INTEGER; 9],
        _ => return false,
    };
    sequence(key.secret_der()).is_some_and(|members| members.starts_with(start))
}

/// The tags of the members of a DER sequence, if it is one and whole.
fn sequence(der: &[u8]) -> Option<Vec<u8>> {
    let (SEQUENCE, mut members, []) = element(der)? else { return None };
    let tags = iter::from_fn(|| {
        let next = (!members.is_empty()).then(|| element(members));
        let Some((tag, _, rest)) = next? else {
            members = &[];
            return Some(None);
        };
        members = rest;
        Some(Some(tag))
    });
    tags.collect()
}

/// Tag and content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        short @ ..=0x7f => (short, rest),
        // 0x82 0x01 0x0a: two bytes that say 266. More than four say what is longer than any Secret.
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "MAcwADAAAwEA"; // a sequence of two empty sequences and a bit string
    const KEY: &str = "MAcCAQAwAAQA"; // a sequence of 0, an empty sequence and no octets

    fn pem(label: &str, body: &str) -> String {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    /// What is found, by its beginning; empty: nothing.
    #[track_caller]
    fn check(fault: fn(&[u8]) -> Option<String>, pem: &str, expect: &str) {
        let found = fault(pem.as_bytes()).unwrap_or_default();
        assert!(found.starts_with(expect) && found.is_empty() == expect.is_empty(), "{found:?} of {pem}");
    }

    #[test]
    fn certificates() {
        let good = pem("CERTIFICATE", CERTIFICATE);
        check(chain_fault, &good, "");
        check(chain_fault, &format!("leaf\n{good}{good}").replace('\n', "\r\n"), "");
        for nothing in ["", "AAAA", &pem("PRIVATE KEY", KEY)] {
            check(chain_fault, nothing, "is no PEM certificate: it needs a block");
        }
        check(
            chain_fault,
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "is no PEM certificate: a block has no -----END line",
        );
        check(
            chain_fault,
            &pem("CERTIFICATE", "?"),
            "is no PEM certificate: what stands between BEGIN and END is not base64",
        );
        for other in ["", "bm90IGEga2V5", KEY, "MAcwADAA", "MAcwADAAAwEAAA=="] {
            check(chain_fault, &format!("{good}{}", pem("CERTIFICATE", other)), "certificate 2 in it is none");
        }
    }

    #[test]
    fn keys() {
        check(key_fault, &pem("PRIVATE KEY", KEY), "");
        // The parameters of a curve may come first.
        check(key_fault, &format!("{}{}", pem("EC PARAMETERS", "BgA="), pem("EC PRIVATE KEY", "MAUCAQEEAA==")), "");
        check(key_fault, &pem("RSA PRIVATE KEY", "MBsCAQACAQACAQACAQACAQACAQACAQACAQACAQA="), "");
        check(key_fault, &pem("RSA PRIVATE KEY", KEY), "is no private key");
        check(key_fault, &pem("PRIVATE KEY", CERTIFICATE), "is no private key");
        check(key_fault, &pem("PRIVATE KEY", "bm90IGEga2V5"), "is no private key");
        check(key_fault, &pem("ENCRYPTED PRIVATE KEY", KEY), "is encrypted");
        check(key_fault, &pem("CERTIFICATE", CERTIFICATE), "is no PEM private key: it needs a block");
        check(key_fault, &pem("PRIVATE KEY", "!k3y"), "is no PEM private key: what stands");
        check(key_fault, "-----BEGIN PRIVATE KEY-----\nk3y", "is no PEM private key: a block has no -----END line");
    }

    #[test]
    fn lengths() {
        let long = [&[SEQUENCE, 0x82, 0x01, 0x00][..], &[0x04, 0x81, 0xfd], &[7; 253]].concat();
        assert_eq!(sequence(&long), Some(vec![OCTET_STRING]));
        for cut in 0..long.len() {
            assert_eq!(sequence(&long[..cut]), None, "{cut} bytes");
        }
        for length in [0x80, 0x85, 0xff] {
            assert_eq!(sequence(&[SEQUENCE, length, 0, 0, 0, 0, 0, 0]), None);
        }
        assert_eq!(sequence(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
