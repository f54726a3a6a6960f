//! How connections are taken: TLS, under bounds. Until its handshake is done and it is let in, a connection has one of a few
//! slots, which addresses share; it stays in that for as long as it has shown no certificate.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    connection::{Connection, Evicted, Place},
    slots::{ConnectionSlots, Slot},
};

/// Connections that wait to be served.
const QUEUE_LEN: usize = 16;
/// Wait after a connection could not be taken, such as for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The bounds on connections that are not let in yet, or have no certificate.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once. A newcomer takes the oldest slot of the address that has most.
    pub unauthenticated: usize,
    /// The time for a handshake.
    pub handshake: Duration,
}

/// The rule by which connections are let in.
pub trait Admission: Send + Sync + 'static {
    /// What is known of the other side of a connection, for whoever serves it.
    type Caller: Clone + Send + Sync + 'static;
    /// Why a connection is not let in.
    type Error: std::error::Error + Send;

    /// The configuration to serve with now; `None`: there is none yet.
    fn tls(&self) -> Option<Arc<ServerConfig>>;

    /// Lets a connection in whose handshake is done: from where, and by which certificate, which was verified; none is shown
    /// by who comes for one. `slot` is what it had until now.
    fn admit(
        &self,
        from: SocketAddr,
        certificate: Option<&CertificateDer<'static>>,
        slot: Slot<IpAddr>,
    ) -> Result<Admitted<Self::Caller>, Self::Error>;
}

/// What a connection is let in with.
pub struct Admitted<C> {
    /// The other side.
    pub caller: C,
    /// How long the connection may stay at most.
    pub stay: Duration,
    /// Its place among others.
    pub place: Box<dyn Place>,
}

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal<E> {
    #[error("no certificate authority yet")]
    NoIdentity,
    #[error("no handshake within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("handshake: {0}")]
    Handshake(#[from] io::Error),
    #[error(transparent)]
    Evicted(Evicted),
    #[error("{0}")]
    NotAdmitted(E),
}

/// Opens the port, for IPv6 and IPv4 both if it is `[::]`; for IPv4 alone where there is no IPv6.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
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

/// Connections that were let in, until the stream is dropped. To be called within a runtime.
pub fn incoming<A: Admission>(
    listener: TcpListener,
    admission: A,
    bounds: Bounds,
) -> ReceiverStream<Result<Connection<A::Caller>, Infallible>> {
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    tokio::spawn(accept(listener, admission, bounds, sender));
    ReceiverStream::new(receiver)
}

async fn accept<A: Admission>(
    listener: TcpListener,
    admission: A,
    bounds: Bounds,
    sender: mpsc::Sender<Result<Connection<A::Caller>, Infallible>>,
) {
    let admission = Arc::new(admission);
    let slots = ConnectionSlots::new(bounds.unauthenticated);
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
        let (admission, sender) = (Arc::clone(&admission), sender.clone());
        // Before anything else: a newcomer takes the slot of one that is here, however fast they come.
        let slot = slots.take(from.ip());
        tokio::spawn(async move {
            match handshake(&*admission, stream, from, slot, bounds.handshake).await {
                // Its receiver is gone only when the server ends.
                Ok(connection) => drop(sender.send(Ok(connection)).await),
                Err(error) => tracing::debug!(%from, "a connection is refused: {error}"),
            }
        });
    }
}

async fn handshake<A: Admission>(
    admission: &A,
    stream: TcpStream,
    from: SocketAddr,
    mut slot: Slot<IpAddr>,
    patience: Duration,
) -> Result<Connection<A::Caller>, Refusal<A::Error>> {
    let tls = admission.tls().ok_or(Refusal::<A::Error>::NoIdentity)?;
    stream.set_nodelay(true)?;
    let handshake = tokio::time::timeout(patience, TlsAcceptor::from(tls).accept(stream));
    let tls = tokio::select! {
        done = handshake => done.map_err(|_| Refusal::<A::Error>::Slow(patience))??,
        () = slot.evicted() => return Err(Refusal::Evicted(Evicted)),
    };
    let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let Admitted { caller, stay, place } = admission.admit(from, certificate, slot).map_err(Refusal::NotAdmitted)?;
    Ok(Connection::new(tls, caller, stay, place))
}

#[cfg(test)]
mod tests;
