//! Secret: a certificate and its key, or credentials, of which only digests go any further.
//!
//! A certificate is checked as proxies check it, by the same code: what they would refuse must not take the place of what
//! serves. Whether a certificate is signed by someone, and in date, is for clients to say.

use std::iter;

use crds::Object;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use k8s_openapi::api::core::v1 as core;
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error, PemObject},
};
use snapshot::{check::Unfit, proto::Certificate};

use super::{Findings, unless};
use crate::{
    credentials::{self, Keys},
    problem::reason,
};

/// A Secret.
#[derive(Clone, Debug)]
pub(crate) enum Secret {
    /// A Secret of type `kubernetes.io/tls`.
    Certificate(Certificate),
    /// A Secret that holds credentials, as its label says.
    Credentials {
        /// The type.
        kind: String,
        /// The digests of its keys.
        keys: Keys,
    },
    /// Another one, of which nothing is read.
    Other {
        /// The type.
        kind: String,
    },
}

/// Why a content is none that a source may have: it is of the type under which digests are remembered.
pub(super) fn reserved(content: &Object) -> Option<Unfit> {
    let message = "is kept for what the operator itself remembers: use Opaque";
    credentials::is_digested(content).then(|| Unfit::new("type", reason::INVALID, message))
}

pub(super) fn validate(secret: &core::Secret) -> Result<Secret, Findings> {
    let kind = secret.type_.as_deref().unwrap_or("Opaque");
    if kind != "kubernetes.io/tls" {
        let kind = kind.to_owned();
        return Ok(credentials::keys(secret)
            .map_or(Secret::Other { kind: kind.clone() }, |keys| Secret::Credentials { kind, keys }));
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
    if findings.is_empty() {
        let found = pair_fault(&chain_pem, &private_key_pem);
        findings.extend(found.map(|message| Unfit::new(field("tls.key"), reason::INVALID_CERTIFICATE, message)));
    }
    unless(
        findings,
        Secret::Certificate(Certificate { chain_pem: chain_pem.into(), private_key_pem: private_key_pem.into() }),
    )
}

fn field(name: &str) -> String {
    format!("data[{name}]")
}

/// The fault of a certificate, or of those that it is signed by.
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

/// The fault of a private key. Nothing of it is quoted.
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

/// The reason why a key can't serve by a certificate: both can be read.
fn pair_fault(chain_pem: &[u8], key_pem: &[u8]) -> Option<String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem).collect::<Result<_, _>>().ok()?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).ok()?;
    match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
        Ok(_) => None,
        Err(rustls::Error::InconsistentKeys(_)) => {
            Some("is not the key of the first certificate in tls.crt: put both of one pair there".into())
        }
        Err(error) => Some(format!("can't serve by the first certificate in tls.crt: {error}")),
    }
}

/// The end of the first certificate of a chain; `None`: it can't be read.
pub(crate) fn expires(chain_pem: &[u8]) -> Option<Timestamp> {
    let leaf = CertificateDer::pem_slice_iter(chain_pem).next()?.ok()?;
    let (_, signed, _) = element(element(&leaf)?.1)?;
    // A version, tagged 0; the serial number; the algorithm; who signed; then from when to when (RFC 5280, 4.1).
    let members: Vec<(u8, &[u8])> = members(signed)?;
    let validity = members.iter().filter(|(tag, _)| *tag != VERSION).nth(3)?.1;
    let (tag, text) = *self::members(validity)?.get(1)?;
    let text = std::str::from_utf8(text).ok()?;
    // Two digits of the year: from 50 on it is of the last century.
    let text = match tag {
        UTC_TIME => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        _ => text.to_owned(),
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
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
const UTC_TIME: u8 = 0x17;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Whether it is a signed structure, its algorithm and a signature (RFC 5280, 4.1).
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
    let (SEQUENCE, content, []) = element(der)? else { return None };
    Some(members(content)?.into_iter().map(|(tag, _)| tag).collect())
}

/// Tags and contents of the elements that stand one after the other, if they are whole.
fn members(mut content: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let members = iter::from_fn(|| {
        let next = (!content.is_empty()).then(|| element(content));
        let Some((tag, member, rest)) = next? else {
            content = &[];
            return Some(None);
        };
        content = rest;
        Some(Some((tag, member)))
    });
    members.collect()
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
mod tests;
