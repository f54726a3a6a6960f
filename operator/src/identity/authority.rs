//! The certificate authorities of the control channel: one, or two while they change. What may happen when is decided
//! by pure functions over their lives, with `now` as an argument:
//!
//! ```text
//!  day 0        60           61                 62+1h       90
//!  A signs ─────┼────────────┤ A is trusted ────┤ dropped   (would end)
//!               B is trusted ┤ B signs ─────────┼─────────► ...
//! ```
//!
//! Proxies learn B within minutes (their ConfigMap) or 40 minutes (their next enrolment), and B signs after a day. What
//! A signed ends within a day of that, and then A is dropped.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::x509;

/// How long an authority lives.
pub const LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);
/// At this age the next is made.
const RENEW_AT_AGE: SignedDuration = SignedDuration::from_hours(60 * 24);
/// How long all have to learn a new one before it signs.
const ANNOUNCED_FOR: SignedDuration = SignedDuration::from_hours(24);
/// Longest life of what an authority signs.
pub const MAX_CERTIFICATE_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// Clocks differ by less than this, and replicas see a change within this.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_hours(1);
/// More than two are never made; a few more are read.
const MAX_READ: usize = 8;

/// When an authority was made, and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it was made.
    pub from: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

impl Life {
    fn lives(&self, now: Timestamp) -> bool {
        now < self.until
    }

    fn is_learned(&self, now: Timestamp) -> bool {
        now >= self.from + ANNOUNCED_FOR
    }
}

/// Which of them signs: the newest that all have learned; if there is none, the oldest.
pub fn signer(lives: &[Life], now: Timestamp) -> Option<usize> {
    let living = || lives.iter().enumerate().filter(|(_, life)| life.lives(now));
    let learned = living().filter(|(_, life)| life.is_learned(now)).max_by_key(|(_, life)| life.from);
    learned.or_else(|| living().min_by_key(|(_, life)| life.from)).map(|(at, _)| at)
}

/// The changes that are due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The authorities that are of no use any more.
    pub drop: Vec<usize>,
    /// Whether an authority is to be made.
    pub add: bool,
}

/// The changes to the authorities that are due at this time.
pub fn change(lives: &[Life], now: Timestamp) -> Change {
    let replaced = |life: &Life| {
        // A later one signs since so long that whatever this one signed has ended.
        let later = |other: &&Life| other.from > life.from && other.lives(now);
        lives
            .iter()
            .filter(later)
            .any(|other| now >= other.from + ANNOUNCED_FOR + MAX_CERTIFICATE_LIFETIME + CLOCK_SLACK)
    };
    let useless = |life: &Life| !life.lives(now) || replaced(life);
    let drop = lives.iter().enumerate().filter(|(_, life)| useless(life)).map(|(at, _)| at).collect();
    let add = !lives.iter().any(|life| life.lives(now) && now < life.from + RENEW_AT_AGE);
    Change { drop, add }
}

/// An authority with its key.
pub struct Authority {
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// When it was made, and ends.
    pub life: Life,
    pub(super) key: KeyPair,
}

impl Authority {
    /// A new one.
    pub fn new(now: Timestamp) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("sluice control channel, {}", now.strftime("%F")));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let life = Life { from: x509::whole_second(now), until: x509::whole_second(now + LIFETIME) };
        x509::set_validity(&mut params, life.from, life.until);
        params.serial_number = Some(x509::serial()?);
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { certificate, life, key })
    }

    fn read(certificate: CertificateDer<'static>, key: &PrivateKeyDer<'_>) -> Result<Self, ParseError> {
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| ParseError::NotCertificate)?;
        if !parsed.is_ca() {
            return Err(ParseError::NotAuthority);
        }
        let time = |second: i64| Timestamp::from_second(second).map_err(|_| ParseError::Date);
        let validity = parsed.validity();
        let life = Life {
            from: time(validity.not_before.timestamp())? + x509::BACKDATED,
            until: time(validity.not_after.timestamp())?,
        };
        let public = parsed.public_key().subject_public_key.data.to_vec();
        // Both would be taken: rcgen makes P-256 keys only here.
        let key = KeyPair::from_der_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256).map_err(|_| ParseError::KeyType)?;
        if key.public_key_raw() != public {
            return Err(ParseError::OtherKey);
        }
        Ok(Self { certificate, life, key })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("life", &self.life).finish_non_exhaustive()
    }
}

/// Why the content of the Secret can't be used. Each message begins with the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A certificate is none.
    #[error("ca.crt: not a certificate")]
    NotCertificate,
    /// The field is no PEM.
    #[error("ca.crt: not certificates in PEM")]
    NotCertificates,
    /// A certificate may not sign others.
    #[error("ca.crt: not a certificate authority")]
    NotAuthority,
    /// A certificate's life is out of range.
    #[error("ca.crt: a date out of range")]
    Date,
    /// The number of certificates is none, or more than are read.
    #[error("ca.crt: no certificate, or too many")]
    Count,
    /// The field is no PEM.
    #[error("ca.key: not private keys in PEM")]
    NotKeys,
    /// A key is of another algorithm.
    #[error("ca.key: not a P-256 private key")]
    KeyType,
    /// A key is another certificate's.
    #[error("ca.key: not the key of the certificate at the same place in ca.crt")]
    OtherKey,
    /// A certificate has no key, or a key no certificate.
    #[error("ca.key: not as many keys as ca.crt has certificates")]
    KeyCount,
}

/// The authorities, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Authorities(Vec<Arc<Authority>>);

impl Authorities {
    /// From the two fields of the Secret: certificates, and their keys in the same order.
    pub fn parse(certificates: &[u8], keys: &[u8]) -> Result<Self, ParseError> {
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<_, _>>()
            .map_err(|_| ParseError::NotCertificates)?;
        let keys: Vec<PrivateKeyDer<'static>> =
            PrivateKeyDer::pem_slice_iter(keys).collect::<Result<_, _>>().map_err(|_| ParseError::NotKeys)?;
        if certificates.len() != keys.len() {
            return Err(ParseError::KeyCount);
        }
        if certificates.is_empty() || certificates.len() > MAX_READ {
            return Err(ParseError::Count);
        }
        let read = certificates.into_iter().zip(&keys).map(|(c, key)| Authority::read(c, key).map(Arc::new));
        let mut all: Vec<_> = read.collect::<Result<_, _>>()?;
        all.sort_by_key(|authority| authority.life.from);
        Ok(Self(all))
    }

    /// The authorities after the changes that are due; `None`: there are none.
    pub fn changed(&self, now: Timestamp) -> Result<Option<Self>, rcgen::Error> {
        let Change { drop, add } = change(&self.lives(), now);
        if drop.is_empty() && !add {
            return Ok(None);
        }
        let mut all: Vec<_> =
            self.0.iter().enumerate().filter(|(at, _)| !drop.contains(at)).map(|(_, a)| Arc::clone(a)).collect();
        if add {
            all.push(Arc::new(Authority::new(now)?));
        }
        Ok(Some(Self(all)))
    }

    /// The one that signs now.
    pub fn signer(&self, now: Timestamp) -> Option<&Arc<Authority>> {
        self.0.get(signer(&self.lives(), now)?)
    }

    /// All of them.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.0.iter().map(|authority| &authority.certificate)
    }

    /// The certificates that others trust, in PEM.
    pub fn bundle(&self) -> String {
        self.certificates().map(|c| x509::pem("CERTIFICATE", c)).collect()
    }

    /// Their keys in PEM, in the order of the bundle.
    pub fn keys(&self) -> String {
        self.0.iter().map(|authority| authority.key.serialize_pem()).collect()
    }

    /// When each was made, and ends.
    pub fn lives(&self) -> Vec<Life> {
        self.0.iter().map(|authority| authority.life).collect()
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.certificates().eq(other.certificates())
    }
}

#[cfg(test)]
mod tests;
