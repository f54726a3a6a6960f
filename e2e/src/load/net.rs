//! Connections to the target, plain or TLS.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Plan;

/// Opens connections to the one target of a plan.
pub(super) struct Dialer {
    target: SocketAddr,
    tls: Option<Tls>,
}

struct Tls {
    name: ServerName<'static>,
    http1: TlsConnector,
    http2: TlsConnector,
}

/// The protocol a connection will speak: chosen by ALPN over TLS, known beforehand without.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

impl Dialer {
    pub(super) fn new(plan: &Plan) -> anyhow::Result<Dialer> {
        let tls = plan.tls.as_deref().map(|ca| Tls::new(&plan.host, ca)).transpose()?;
        Ok(Dialer { target: plan.target, tls })
    }

    pub(super) async fn dial(&self, protocol: Protocol) -> io::Result<Io> {
        let stream = TcpStream::connect(self.target).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Io::Plain(stream)) };
        let connector = if protocol == Protocol::Http1 { &tls.http1 } else { &tls.http2 };
        Ok(Io::Tls(Box::new(connector.connect(tls.name.clone(), stream).await?)))
    }
}

impl Tls {
    fn new(host: &str, ca: &Path) -> anyhow::Result<Tls> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca)
            .map_err(|error| anyhow::anyhow!("--ca {}: {error}; give a file of PEM certificates", ca.display()))?
        {
            roots.add(certificate?)?;
        }
        let connector = |protocol: &[u8]| -> anyhow::Result<TlsConnector> {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok(TlsConnector::from(Arc::new(config)))
        };
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned();
        Ok(Tls { name: ServerName::try_from(name)?, http1: connector(b"http/1.1")?, http2: connector(b"h2")? })
    }
}

/// A connection, plain or TLS.
#[derive(Debug)]
pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
