//! Connections of proxies in a cluster: TLS, under bounds. Each knows who the other side is, and ends no later than that
//! one's certificate.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use snapshot::proto::control_server::ControlServer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, server::NamedService, transport::server::Connected};
use tower::Service;

use super::{Control, MAX_HELLO, service};
use crate::identity::{
    Identity,
    certificate::{CertificateError, Peer},
};

/// Connections in their handshake, which takes [`HANDSHAKE`] at most.
const HANDSHAKES: usize = 256;
/// Connections without certificate: to enrol, for which there is [`ENROLL`].
const STRANGERS: usize = 256;
/// Of the ones and of the others, from one address.
const FROM_ONE: usize = 64;
/// Connections of proxies. 40 fleets of 100.
const PROXIES: usize = 4096;
/// Connections of one proxy: it dials anew before it lets the old one go.
const OF_ONE: usize = 4;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Time to enrol.
const ENROLL: Duration = Duration::from_secs(15);
/// What a stranger may send at once: a token and a key.
const MAX_ENROLL: usize = 64 << 10;
/// Wait after a connection could not be taken, such as for want of descriptors.
const BREATHER: Duration = Duration::from_millis(100);

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
    let (door, handshakes) = (Arc::new(Door::new(identity)), Arc::new(Semaphore::new(HANDSHAKES)));
    loop {
        // Who comes when too many are here waits in the kernel's queue.
        let Ok(turn) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection can't be taken: {error}");
                tokio::time::sleep(BREATHER).await;
                continue;
            }
        };
        let (door, sender) = (Arc::clone(&door), sender.clone());
        tokio::spawn(async move {
            let welcome = door.welcome(stream, from).await;
            drop(turn);
            match welcome {
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
    #[error("no handshake within {} s", HANDSHAKE.as_secs())]
    Slow,
    #[error("handshake: {0}")]
    Handshake(#[from] io::Error),
    #[error("too many connections")]
    TooMany,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// What connections are let in by.
struct Door {
    identity: Identity,
    strangers: Arc<Semaphore>,
    proxies: Arc<Semaphore>,
    counts: Counts,
}

impl Door {
    fn new(identity: Identity) -> Self {
        let (strangers, proxies) = (Arc::new(Semaphore::new(STRANGERS)), Arc::new(Semaphore::new(PROXIES)));
        Self { identity, strangers, proxies, counts: Counts::default() }
    }

    async fn welcome(&self, stream: TcpStream, from: SocketAddr) -> Result<Connection, Refusal> {
        let one_more = |name: String, most: usize| self.counts.one_more(name, most).ok_or(Refusal::TooMany);
        let _handshake = one_more(format!("handshake {}", from.ip()), FROM_ONE)?;
        let tls = self.identity.tls().ok_or(Refusal::NoIdentity)?;
        stream.set_nodelay(true)?;
        let handshake = TlsAcceptor::from(tls).accept(stream);
        let tls = tokio::time::timeout(HANDSHAKE, handshake).await.map_err(|_| Refusal::Slow)??;
        let Some(certificate) = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()) else {
            let permit = Arc::clone(&self.strangers).try_acquire_owned().map_err(|_| Refusal::TooMany)?;
            let of_address = one_more(format!("stranger {}", from.ip()), FROM_ONE)?;
            let caller = Caller { from, peer: None };
            let until = Box::pin(tokio::time::sleep(ENROLL));
            return Ok(Connection { tls, caller, until, _permit: permit, _count: of_address });
        };
        let (peer, ends) = Peer::of(certificate)?;
        // A proxy's place is not a stranger's to take.
        let permit = Arc::clone(&self.proxies).try_acquire_owned().map_err(|_| Refusal::TooMany)?;
        let of_proxy = one_more(format!("proxy {}/{}", peer.fleet.namespace, peer.pod), OF_ONE)?;
        let left = Duration::try_from(Timestamp::now().duration_until(ends)).unwrap_or_default();
        let caller = Caller { from, peer: Some(Arc::new(peer)) };
        let until = Box::pin(tokio::time::sleep(left));
        Ok(Connection { tls, caller, until, _permit: permit, _count: of_proxy })
    }
}

/// How many connections there are of each proxy, and of what is no proxy from each address.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<HashMap<String, usize>>>);

/// One of these connections.
struct Count {
    counts: Counts,
    name: String,
}

impl Counts {
    fn one_more(&self, name: String, most: usize) -> Option<Count> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name.clone()).or_default();
        (*count < most).then(|| {
            *count += 1;
            Count { counts: self.clone(), name }
        })
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.name);
            }
        }
    }
}

/// Who is on the other side.
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
    _permit: OwnedSemaphorePermit,
    _count: Count,
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

/// Who sent a request, by its certificate.
pub(super) fn peer<T>(request: &Request<T>) -> Result<Arc<Peer>, Status> {
    let peer = request.extensions().get::<Caller>().and_then(|caller| caller.peer.clone());
    peer.ok_or_else(|| Status::unauthenticated("Attach needs a client certificate: enrol for one first"))
}

/// The service, with the sizes of messages bound by what is called: Attach is for proxies alone, Enroll for anyone.
#[derive(Clone)]
pub(super) struct Gate {
    attach: ControlServer<Control>,
    enroll: ControlServer<Control>,
}

impl Gate {
    pub(super) fn new(control: Control) -> Self {
        Self { attach: service(control.clone(), MAX_HELLO), enroll: service(control, MAX_ENROLL) }
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
            true => self.attach.call(request),
            false => self.enroll.call(request),
        }
    }
}
