//! Why no connection to an operator comes about: which step failed, and what the user can look at.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use transport::connect::ConnectError;

/// Longest wait for a certificate.
pub(super) const ENROLL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the operator could not be dialled.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{}", with_sources(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("--token-file {}: {error}; it is to be a projected service account token of audience \"sluice\"", .path.display())]
    Token { path: PathBuf, error: io::Error },
    #[error("--ca-file {}: {why}; it is to hold `ca.crt` of the ConfigMap that the operator keeps for the fleet", .path.display())]
    Ca { path: PathBuf, why: String },
    #[error("--control: {error}{}", remedy(error))]
    Connect {
        #[from]
        error: ConnectError,
    },
    #[error("a key can't be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("the operator at {at} gives no certificate: {}: {}", .status.code(), .status.message())]
    Refused { at: SocketAddr, status: Box<tonic::Status> },
    #[error("the operator at {at} does not say within {} s whether it gives a certificate", ENROLL_TIMEOUT.as_secs())]
    Silent { at: SocketAddr },
}

/// What a user can look at, where that is not plain.
fn remedy(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Resolve { .. } => "; is the operator's Service there?",
        ConnectError::Connect { .. } | ConnectError::Tls { .. } => "",
    }
}

/// tonic says only "transport error"; the cause is behind it.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
