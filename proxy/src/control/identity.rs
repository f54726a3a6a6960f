//! Identity in a cluster: a proxy enrols with its pod's token and a key that never leaves this process, and dials with
//! the certificate that it gets. It enrols again while that one is still good.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use snapshot::proto::{EnrollRequest, EnrollResponse, control_client::ControlClient};
use tokio::time::Instant;
use tonic::transport::Channel;
use transport::connect::Server;

use super::{
    error::{DialError, ENROLL_TIMEOUT},
    tls,
};

/// Tries to renew are at least this far apart, and up to a second more: the certificate is still good for 20 minutes.
const RENEW_RETRY_DELAY: Duration = Duration::from_secs(10);
const MAX_RENEW_JITTER: Duration = Duration::from_secs(1);
/// A certificate is not renewed sooner than this, whatever the clocks say.
const MIN_RENEWAL_DELAY: Duration = Duration::from_secs(5);

/// An operator in a cluster: where its Service is, and what it and this proxy know each other by.
#[derive(Debug)]
pub struct Cluster {
    pub(super) server: Server,
    token: PathBuf,
    ca: PathBuf,
    credentials: Mutex<Option<Arc<Credentials>>>,
}

/// A certificate, its key, and what came with it.
#[derive(Debug)]
struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// Authorities of operators, besides those of the file.
    authorities: Vec<CertificateDer<'static>>,
    renew: Instant,
    until: Instant,
}

impl Cluster {
    pub(super) fn new(host: &str, port: u16, token: PathBuf, ca: PathBuf) -> Result<Self, String> {
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name =
            ServerName::try_from(bare.clone()).map_err(|_| format!("--control: {host:?} is no name of a host"))?;
        Ok(Self { server: Server { host: bare, port, name }, token, ca, credentials: Mutex::default() })
    }

    /// Dials with a certificate that is good, for which it enrols first if there is none.
    pub(super) async fn dial(&self, at: Option<SocketAddr>) -> Result<Channel, DialError> {
        let known = self.credentials().filter(|credentials| Instant::now() < credentials.until);
        let credentials = match known {
            Some(credentials) => credentials,
            None => self.enroll(at).await?,
        };
        let roots = self.authorities().await?.into_iter().chain(credentials.authorities.iter().cloned());
        let client = Some((&*credentials.chain, &credentials.key));
        Ok(tls::connect(&self.server, at, roots, client).await?.0)
    }

    /// Comes back when there is a new certificate.
    pub(super) async fn renewed(&self, at: Option<SocketAddr>) {
        if let Some(credentials) = self.credentials() {
            tokio::time::sleep_until(credentials.renew).await;
        }
        while let Err(error) = self.enroll(at).await {
            tracing::warn!("the certificate can't be renewed: {error}");
            tokio::time::sleep(RENEW_RETRY_DELAY + MAX_RENEW_JITTER.mul_f64(fastrand::f64())).await;
        }
    }

    /// Forgets the certificate: the operator does not take it.
    pub(super) fn forget(&self) {
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn credentials(&self) -> Option<Arc<Credentials>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn enroll(&self, at: Option<SocketAddr>) -> Result<Arc<Credentials>, DialError> {
        let token = tokio::fs::read_to_string(&self.token).await;
        let token = token.map_err(|error| DialError::Token { path: self.token.clone(), error })?.trim().to_owned();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let csr = CertificateParams::default().serialize_request(&key)?.der().to_vec().into();
        let (channel, at) = tls::connect(&self.server, at, self.authorities().await?, None).await?;
        let mut client = ControlClient::new(channel);
        let answer = tokio::time::timeout(ENROLL_TIMEOUT, client.enroll(EnrollRequest { token, csr })).await;
        let answer = answer.map_err(|_| DialError::Silent { at })?;
        let answer = answer.map_err(|status| DialError::Refused { at, status: Box::new(status) })?;
        let credentials = Arc::new(Credentials::new(answer.into_inner(), &key));
        let left = credentials.until.duration_since(Instant::now());
        tracing::info!(operator = %at, minutes = left.as_secs() / 60, "enrolled");
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&credentials));
        Ok(credentials)
    }

    /// The authorities of operators: their file, which changes, is read for each dial.
    async fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, DialError> {
        let wrong = |why: String| DialError::Ca { path: self.ca.clone(), why };
        let read = tokio::fs::read(&self.ca).await.map_err(|error| wrong(error.to_string()))?;
        match certificates(&read) {
            Ok(found) if found.is_empty() => Err(wrong("no certificate in it".into())),
            result => result.map_err(wrong),
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    use rustls_pki_types::pem::PemObject as _;
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

impl Credentials {
    fn new(answer: EnrollResponse, key: &KeyPair) -> Self {
        let certificates = |ders: Vec<bytes::Bytes>| -> Vec<_> {
            ders.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect()
        };
        let now = Instant::now();
        let left = UNIX_EPOCH + Duration::from_millis(answer.not_after_unix_ms);
        let left = left.duration_since(SystemTime::now()).unwrap_or_default().max(MIN_RENEWAL_DELAY);
        Self {
            chain: certificates(answer.chain),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            authorities: certificates(answer.authorities),
            // At two thirds, less up to a tenth: proxies that began together do not renew together.
            renew: now + left.mul_f64(2.0 / 3.0 - fastrand::f64() / 10.0),
            until: now + left,
        }
    }
}
