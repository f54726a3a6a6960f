//! Certificates that an authority signs: operators' (server), and proxies' (client, with the pod in a URI:
//! `spiffe://sluice/ns/NAMESPACE/fleet/NAME/pod/POD/uid/UID`).

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use planner::FleetRef;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{
    authority::{Authority, MAX_CERTIFICATE_LIFETIME},
    x509::{serial, set_validity, time, whole_second},
};

/// Life of a proxy's certificate.
const CERTIFICATE_LIFETIME: SignedDuration = SignedDuration::from_hours(1);
const SCHEME: &str = "spiffe://sluice/";

/// A certificate, and when it ends.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// When it ends.
    pub until: Timestamp,
}

/// A server certificate with its key, for these DNS names.
pub fn server(
    authority: &Authority,
    names: &[String],
    now: Timestamp,
) -> Result<(Signed, PrivateKeyDer<'static>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let name = names.first().map(String::as_str).unwrap_or_default();
    let signed = sign(authority, params, name, &key, MAX_CERTIFICATE_LIFETIME, now)?;
    Ok((signed, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

/// The proxy that a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its fleet.
    pub fleet: FleetRef,
    /// Its pod, in the fleet's namespace.
    pub pod: String,
    /// Which of that name: the certificate is of no use to one that comes after it.
    pub uid: String,
}

/// `namespace/pod`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.fleet.namespace, self.pod)
    }
}

/// Why something of a proxy is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The request is none.
    #[error("csr: {0}")]
    Request(rcgen::Error),
    /// The key is of another kind.
    #[error("csr: only P-256 keys are taken")]
    KeyType,
    /// Signing failed.
    #[error("signing failed: {0}")]
    Sign(#[from] rcgen::Error),
    /// A certificate that does not say who it is.
    #[error("the certificate names no pod; enrol for one that does")]
    Nameless,
}

/// Reads the public key of a request and nothing else of it. Its signature proves that the sender has the private key.
pub fn public_key(request: &[u8]) -> Result<impl PublicKeyData + use<>, CertificateError> {
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request));
    let key = request.map_err(CertificateError::Request)?.public_key;
    // A point of the curve, uncompressed: what else P-256 could be is not taken.
    match *key.algorithm() == PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == 65 {
        true => Ok(key),
        false => Err(CertificateError::KeyType),
    }
}

/// A client certificate for a proxy.
pub fn proxy(
    authority: &Authority,
    peer: &Peer,
    key: &impl PublicKeyData,
    now: Timestamp,
) -> Result<Signed, CertificateError> {
    let mut params = CertificateParams::default();
    let Peer { fleet: FleetRef { namespace, name }, pod, uid } = peer;
    let uri = format!("{SCHEME}ns/{namespace}/fleet/{name}/pod/{pod}/uid/{uid}");
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(sign(authority, params, "sluice-proxy", key, CERTIFICATE_LIFETIME, now)?)
}

impl Peer {
    /// Reads it from a certificate that was verified; with when that ends.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<(Self, Timestamp), CertificateError> {
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::Nameless)?;
        let names = certificate.subject_alternative_name().ok().flatten().ok_or(CertificateError::Nameless)?;
        let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
            return Err(CertificateError::Nameless);
        };
        let parts: Vec<&str> = uri.strip_prefix(SCHEME).unwrap_or_default().split('/').collect();
        let ["ns", namespace, "fleet", name, "pod", pod, "uid", uid] = parts.as_slice() else {
            return Err(CertificateError::Nameless);
        };
        let fleet = FleetRef { namespace: (*namespace).to_owned(), name: (*name).to_owned() };
        let until = time(certificate.validity().not_after.timestamp()).ok_or(CertificateError::Nameless)?;
        Ok((Self { fleet, pod: (*pod).to_owned(), uid: (*uid).to_owned() }, until))
    }
}

fn sign(
    authority: &Authority,
    mut params: CertificateParams,
    name: &str,
    key: &impl PublicKeyData,
    life: SignedDuration,
    now: Timestamp,
) -> Result<Signed, rcgen::Error> {
    params.distinguished_name = DistinguishedName::new();
    // A common name has at most 64 characters.
    params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    let until = whole_second(now + life).min(authority.life.until);
    set_validity(&mut params, whole_second(now), until);
    let issuer = Issuer::from_ca_cert_der(&authority.certificate, &authority.key)?;
    let certificate = params.signed_by(key, &issuer)?.der().clone();
    Ok(Signed { certificate, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn peer() -> Peer {
        let fleet = FleetRef { namespace: "shop".into(), name: "eu.west".into() };
        Peer { fleet, pod: "sluice-eu-1-x".into(), uid: "5b0c2a4e-77d1".into() }
    }

    fn request(key: &KeyPair) -> Vec<u8> {
        CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn a_proxy_is_who_its_certificate_says() {
        let now = at("2026-03-01T12:00:00.5Z");
        let authority = Authority::new(now).unwrap();
        let key = KeyPair::generate().unwrap();
        let signed = proxy(&authority, &peer(), &public_key(&request(&key)).unwrap(), now).unwrap();
        assert_eq!(signed.until, at("2026-03-01T13:00:00Z"));
        assert_eq!(Peer::of(&signed.certificate).unwrap(), (peer(), signed.until));
        let (_, parsed) = X509Certificate::from_der(&signed.certificate).unwrap();
        assert_eq!(parsed.public_key().subject_public_key.data, key.public_key_raw());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any && !parsed.is_ca());
    }

    #[test]
    fn nothing_outlives_its_authority() {
        let made = at("2026-03-01T12:00:00Z");
        let authority = Authority::new(made).unwrap();
        let now = authority.life.until - SignedDuration::from_mins(10);
        let (signed, _) = server(&authority, &["a.b.svc".to_owned()], now).unwrap();
        assert_eq!(signed.until, authority.life.until);
    }

    #[test]
    fn only_one_kind_of_key_is_taken() {
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let refused = |request: &[u8]| public_key(request).map(drop).unwrap_err().to_string();
        assert_eq!(refused(&request(&p384)), "csr: only P-256 keys are taken");
        assert!(refused(b"x").starts_with("csr: "));
        // Of a key that the sender does not have: the signature is of another.
        let (mut mixed, other) = (request(&KeyPair::generate().unwrap()), KeyPair::generate().unwrap());
        let own = CertificateSigningRequestParams::from_der(&mixed.as_slice().into()).unwrap().public_key;
        let place = mixed.windows(65).position(|part| part == own.der_bytes()).unwrap();
        mixed[place..place + 65].copy_from_slice(other.public_key_raw());
        assert!(refused(&mixed).contains("signature"), "{}", refused(&mixed));
    }

    #[test]
    fn a_server_is_no_proxy() {
        let now = at("2026-03-01T12:00:00Z");
        let (signed, _) = server(&Authority::new(now).unwrap(), &["a.b.svc".to_owned()], now).unwrap();
        assert!(matches!(Peer::of(&signed.certificate), Err(CertificateError::Nameless)));
    }
}
