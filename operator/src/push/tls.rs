//! Connections of proxies in a cluster: TLS, under bounds. Each knows who the other side is, and ends no later than that
//! one's certificate. Until it has shown one, a connection is unauthenticated, for which there are few slots ([`ConnectionSlots`]).

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use planner::FleetRef;
use snapshot::proto::control_server::ControlServer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, server::NamedService, transport::server::Connected};
use tower::Service;

use super::{
    Control, MAX_HELLO, Shared,
    keyed_limiter::{KeyedLimiter, KeyedPermit},
    service,
};
use crate::{
    identity::{
        Identity,
        certificate::{CertificateError, Peer},
    },
    push::slots::{ConnectionSlots, Slot},
};

/// Connections in their handshake, which takes [`HANDSHAKE_TIMEOUT`] at most, and those without certificate: to enrol, for which
/// there is [`ENROLL_TIMEOUT`].
const MAX_UNAUTHENTICATED: usize = 256;
/// Connections of proxies: 40 fleets of 100. They are shared between namespaces, and fleets.
const MAX_PROXY_CONNECTIONS: usize = 4096;
/// Connections of one proxy: it dials anew before it lets the old one go.
const MAX_CONNECTIONS_OF_PROXY: usize = 4;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to enrol.
const ENROLL_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of the one request of an unauthenticated connection: a token and a key.
const MAX_ENROLL_BYTES: usize = 64 << 10;
/// Wait after a connection could not be taken, such as for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Opens the port, for IPv6 and IPv4 both if it is `[::]`; for IPv4 alone where there is no IPv6.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match bind(address) {
        Err(_) if address.ip().is_unspecified() && address.is_ipv6() => {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        result => result,
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// Connections whose handshake is done.
pub(super) fn incoming(listener: TcpListener, identity: Identity) -> ReceiverStream<Result<Connection, Infallible>> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(accept(listener, identity, sender));
    ReceiverStream::new(receiver)
}

async fn accept(listener: TcpListener, identity: Identity, sender: mpsc::Sender<Result<Connection, Infallible>>) {
    let acceptor = Arc::new(Acceptor::new(identity));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection can't be taken: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (acceptor, sender) = (Arc::clone(&acceptor), sender.clone());
        // Before anything else: a newcomer takes the slot of one that is here, however fast they come.
        let slot = acceptor.unauthenticated.take(from.ip());
        tokio::spawn(async move {
            match acceptor.admit(stream, from, slot).await {
                // Its receiver is gone only when the operator ends.
                Ok(connection) => drop(sender.send(Ok(connection)).await),
                Err(error) => tracing::debug!(%from, "a connection is refused: {error}"),
            }
        });
    }
}

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no certificate authority yet")]
    NoIdentity,
    #[error("no handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Slow,
    #[error("handshake: {0}")]
    Handshake(#[from] io::Error),
    #[error("too many connections of this proxy, or of all, and no fleet has more than its own")]
    TooMany,
    #[error("others came, and this address, or this proxy's fleet, has most of the places")]
    Crowded,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The admission of connections.
struct Acceptor {
    identity: Identity,
    unauthenticated: ConnectionSlots<IpAddr>,
    proxies: ConnectionSlots<FleetRef>,
    limiter: KeyedLimiter,
}

impl Acceptor {
    fn new(identity: Identity) -> Self {
        let (unauthenticated, proxies) =
            (ConnectionSlots::new(MAX_UNAUTHENTICATED), ConnectionSlots::new(MAX_PROXY_CONNECTIONS));
        Self { identity, unauthenticated, proxies, limiter: KeyedLimiter::default() }
    }

    async fn admit(&self, stream: TcpStream, from: SocketAddr, mut slot: Slot<IpAddr>) -> Result<Connection, Refusal> {
        let tls = self.identity.tls().ok_or(Refusal::NoIdentity)?;
        stream.set_nodelay(true)?;
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls).accept(stream));
        let tls = tokio::select! {
            done = handshake => done.map_err(|_| Refusal::Slow)??,
            () = slot.evicted() => return Err(Refusal::Crowded),
        };
        let Some(certificate) = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()) else {
            let caller = Caller { from, peer: None };
            let until = Box::pin(tokio::time::sleep(ENROLL_TIMEOUT));
            return Ok(Connection { tls, caller, until, holds: Holds::Unauthenticated(slot) });
        };
        let (peer, ends) = Peer::of(certificate)?;
        let count = self.limiter.try_acquire(peer.to_string(), MAX_CONNECTIONS_OF_PROXY).ok_or(Refusal::TooMany)?;
        // An unauthenticated connection can not take a slot of proxies.
        let slot = self.proxies.claim(&peer.fleet).ok_or(Refusal::TooMany)?;
        let left = Duration::try_from(Timestamp::now().duration_until(ends)).unwrap_or_default();
        let caller = Caller { from, peer: Some(Arc::new(peer)) };
        let until = Box::pin(tokio::time::sleep(left));
        Ok(Connection { tls, caller, until, holds: Holds::Proxy { slot, _count: count } })
    }
}

/// The other side of a connection.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    from: SocketAddr,
    peer: Option<Arc<Peer>>,
}

/// A connection.
pub(super) struct Connection {
    tls: TlsStream<TcpStream>,
    caller: Caller,
    /// Reading fails from then on.
    until: Pin<Box<Sleep>>,
    holds: Holds,
}

/// The slot of a connection, which others take if its address, or its fleet, has most.
enum Holds {
    Unauthenticated(Slot<IpAddr>),
    Proxy { slot: Slot<FleetRef>, _count: KeyedPermit },
}

impl Holds {
    fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Unauthenticated(slot) => slot.poll_evicted(cx),
            Self::Proxy { slot, .. } => slot.poll_evicted(cx),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the certificate, or the time to enrol, ended",
            )));
        }
        if self.holds.poll_evicted(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, Refusal::Crowded)));
        }
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// Where a request comes from.
pub(super) fn address<T>(request: &Request<T>) -> Option<SocketAddr> {
    request.extensions().get::<Caller>().map(|caller| caller.from)
}

/// The sender of a request, by its certificate.
pub(super) fn peer<T>(request: &Request<T>) -> Result<Arc<Peer>, Status> {
    let peer = request.extensions().get::<Caller>().and_then(|caller| caller.peer.clone());
    peer.ok_or_else(|| Status::unauthenticated("Attach needs a client certificate: enrol for one first"))
}

/// The service, with the sizes of messages bound by what is called: Attach is for proxies alone, Enroll for anyone.
#[derive(Clone)]
pub(super) struct Gate {
    attach: ControlServer<Control>,
    enroll: ControlServer<Control>,
    shared: Arc<Shared>,
}

impl Gate {
    pub(super) fn new(control: Control) -> Self {
        let shared = Arc::clone(&control.shared);
        Self { attach: service(control.clone(), MAX_HELLO), enroll: service(control, MAX_ENROLL_BYTES), shared }
    }
}

impl NamedService for Gate {
    const NAME: &'static str = <ControlServer<Control> as NamedService>::NAME;
}

type GrpcRequest = hyper::http::Request<tonic::body::Body>;

impl Service<GrpcRequest> for Gate {
    type Response = hyper::http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: GrpcRequest) -> Self::Future {
        match request.uri().path().ends_with("/Attach") {
            true => self.attach.call(request.map(|body| tonic::body::Body::new(self.shared.hello_limiter.bound(body)))),
            false => self.enroll.call(request),
        }
    }
}
