//! HTTP/2 over one TLS connection to an operator.

use std::{future::ready, io, net::SocketAddr, time::Duration};

use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use transport::{
    connect::{self, Server},
    mtls::{self, Identity},
};

use super::error::DialError;

/// An operator that answers no ping for this long, this often asked, is taken for gone: a machine that is lost says
/// nothing.
const PING_INTERVAL: Duration = Duration::from_secs(4);

/// Connects to the Service, or to one operator behind it; gives its address too. `roots`: who may sign its certificate.
pub(super) async fn connect(
    server: &Server,
    at: Option<SocketAddr>,
    roots: impl IntoIterator<Item = CertificateDer<'static>>,
    client: Option<Identity<'_>>,
) -> Result<(Channel, SocketAddr), DialError> {
    let (stream, at) = connect::connect(server, at, mtls::client(roots, client)?).await?;
    Ok((channel(server, stream).await?, at))
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
