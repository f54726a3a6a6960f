//! The TLS configuration of the control channel: TLS 1.3, a certificate of ours, and clients' certificates if they have
//! one.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};

use super::authority::Authorities;

/// Why it can't be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// A certificate or key that rustls does not take.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
    /// No verifier of clients.
    #[error("TLS: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A client without certificate gets in, and may enrol: what else it may not do is for the service to say.
pub(super) fn config(
    authorities: &Authorities,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in authorities.certificates() {
        roots.add(authority.clone())?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session brings the client's certificate back without a look at when it ended.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}
