//! How a server is dialled, with errors that say which step failed, and where.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Longest wait for each step.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a certain server to answer at all. It is close by, and where it was is nobody, when its machine or pod
/// is gone.
const CERTAIN_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A name that is dialled, or one of the servers behind it.
#[derive(Debug)]
pub struct Server {
    /// A host, or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Name in the server's certificate, also when it is dialled by its address.
    pub name: ServerName<'static>,
}

/// The step that failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("{host} does not resolve: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// The answer to who asked for its address.
        error: io::Error,
    },
    /// Nobody listens, or answers in time.
    #[error("no connection to {at}: {error}")]
    Connect {
        /// The last address that was tried.
        at: SocketAddr,
        /// What came of that.
        error: io::Error,
    },
    /// One side does not take the other, or does not answer in time.
    #[error("no TLS with {at} as {name}: {error}")]
    Tls {
        /// The server's address.
        at: SocketAddr,
        /// The name that its certificate is to have.
        name: String,
        /// Why there is no TLS.
        error: io::Error,
    },
}

/// Connects to one of the servers behind a name, or to the one at `at`; gives its address too. Each step ends within 2 s, or
/// fails.
pub async fn connect(
    server: &Server,
    at: Option<SocketAddr>,
    config: ClientConfig,
) -> Result<(TlsStream<TcpStream>, SocketAddr), ConnectError> {
    let (tcp, at) = tcp(server, at).await?;
    let failed = |error| ConnectError::Tls { at, name: server.host.clone(), error };
    let connector = TlsConnector::from(Arc::new(config));
    let stream = within(STEP_TIMEOUT, connector.connect(server.name.clone(), tcp)).await.map_err(failed)?;
    Ok((stream, at))
}

async fn tcp(server: &Server, at: Option<SocketAddr>) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let addresses = match at {
        Some(at) => vec![at],
        None => {
            let failed = |error| ConnectError::Resolve { host: server.host.clone(), error };
            let found = within(STEP_TIMEOUT, tokio::net::lookup_host((server.host.as_str(), server.port))).await;
            found.map_err(failed)?.collect()
        }
    };
    let patience = if at.is_some() { CERTAIN_CONNECT_TIMEOUT } else { STEP_TIMEOUT };
    let mut last = None;
    for at in addresses {
        match within(patience, TcpStream::connect(at)).await {
            Ok(tcp) => {
                let _ = tcp.set_nodelay(true); // slower without, no more
                return Ok((tcp, at));
            }
            Err(error) => last = Some(ConnectError::Connect { at, error }),
        }
    }
    let none = || io::Error::other("it has no address");
    Err(last.unwrap_or_else(|| ConnectError::Resolve { host: server.host.clone(), error: none() }))
}

async fn within<T>(patience: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", patience.as_secs()));
    tokio::time::timeout(patience, step).await.map_err(late)?
}
