//! A TLS connection to an operator, with errors that say which step failed, and where.

use std::{future::ready, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use super::error::DialError;

/// Longest wait for each step.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a certain operator to answer at all. It is close by, and where it was is nobody, when its machine
/// or pod is gone.
const LEADER_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// An operator that answers no ping for this long, this often asked, is taken for gone: a machine that is lost says
/// nothing.
const PING_INTERVAL: Duration = Duration::from_secs(4);

/// A Service that is dialled, or one of the operators behind it.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    /// Name in the server's certificate, also when it is dialled by its address.
    pub(super) name: ServerName<'static>,
}

/// A certificate and its key, by which the server knows this proxy.
type Client<'a> = (&'a [CertificateDer<'static>], &'a PrivateKeyDer<'static>);

/// Connects to the Service, or to one operator behind it; gives its address too. `roots`: who may sign its certificate.
pub(super) async fn connect(
    server: &Server,
    at: Option<SocketAddr>,
    roots: impl IntoIterator<Item = CertificateDer<'static>>,
    client: Option<Client<'_>>,
) -> Result<(Channel, SocketAddr), DialError> {
    let connector = TlsConnector::from(Arc::new(config(roots, client)?));
    let (tcp, at) = tcp(server, at).await?;
    let failed = |error| DialError::Tls { at, name: server.host.clone(), error };
    let stream = within(STEP_TIMEOUT, connector.connect(server.name.clone(), tcp)).await.map_err(failed)?;
    Ok((channel(server, stream).await?, at))
}

fn config(
    authorities: impl IntoIterator<Item = CertificateDer<'static>>,
    client: Option<Client<'_>>,
) -> Result<ClientConfig, DialError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?.with_root_certificates(roots);
    let mut config = match client {
        None => config.with_no_client_auth(),
        Some((chain, key)) => config.with_client_auth_cert(chain.to_vec(), key.clone_key())?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

async fn tcp(server: &Server, at: Option<SocketAddr>) -> Result<(TcpStream, SocketAddr), DialError> {
    let addresses = match at {
        Some(at) => vec![at],
        None => {
            let failed = |error| DialError::Resolve { host: server.host.clone(), error };
            let found = within(STEP_TIMEOUT, tokio::net::lookup_host((server.host.as_str(), server.port))).await;
            found.map_err(failed)?.collect()
        }
    };
    let patience = if at.is_some() { LEADER_CONNECT_TIMEOUT } else { STEP_TIMEOUT };
    let mut last = None;
    for at in addresses {
        match within(patience, TcpStream::connect(at)).await {
            Ok(tcp) => {
                let _ = tcp.set_nodelay(true); // slower without, no more
                return Ok((tcp, at));
            }
            Err(error) => last = Some(DialError::Connect { at, error }),
        }
    }
    let none = || io::Error::other("it has no address");
    Err(last.unwrap_or_else(|| DialError::Resolve { host: server.host.clone(), error: none() }))
}

/// HTTP/2 over one connection. When that ends, so does the channel: who dials again begins with the address.
async fn channel(server: &Server, stream: TlsStream<TcpStream>) -> Result<Channel, DialError> {
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_: http::Uri| {
        ready(stream.take().ok_or_else(|| io::Error::new(io::ErrorKind::BrokenPipe, "the connection ended")))
    });
    let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host.clone() };
    let endpoint = Endpoint::from_shared(format!("https://{host}:{}", server.port))?
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector(once).await?)
}

async fn within<T>(patience: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", patience.as_secs()));
    tokio::time::timeout(patience, step).await.map_err(late)?
}
