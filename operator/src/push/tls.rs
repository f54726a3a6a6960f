//! The proxies of a cluster, as they come over TLS: who each is, by its certificate, and how many connections it may have. A
//! connection ends no later than that certificate. How connections are taken is [`transport::accept`]'s.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use planner::FleetRef;
use rustls::{ServerConfig, pki_types::CertificateDer};
use snapshot::proto::control_server::ControlServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, server::NamedService};
use tower::Service;
use transport::{
    accept::{self, Admission, Admitted, Bounds},
    connection::Connection,
    keyed_limiter::KeyedLimiter,
    slots::{ConnectionSlots, Slot},
};

use super::{Control, MAX_HELLO, Shared, service};
use crate::identity::{
    Identity,
    certificate::{CertificateError, Peer},
};

/// Connections in their handshake, and those without certificate: to enrol, for which there is [`ENROLL_TIMEOUT`].
const BOUNDS: Bounds = Bounds { unauthenticated: 256, handshake: Duration::from_secs(5) };
/// Connections of proxies: 40 fleets of 100. They are shared between namespaces, and fleets.
const MAX_PROXY_CONNECTIONS: usize = 4096;
/// Connections of one proxy: it dials anew before it lets the old one go.
const MAX_CONNECTIONS_OF_PROXY: usize = 4;
/// Time to enrol.
const ENROLL_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of the one request of an unauthenticated connection: a token and a key.
const MAX_ENROLL_BYTES: usize = 64 << 10;

/// Connections that were let in.
pub(super) fn incoming(
    listener: TcpListener,
    identity: Identity,
) -> ReceiverStream<Result<Connection<Caller>, Infallible>> {
    let proxies = ConnectionSlots::new(MAX_PROXY_CONNECTIONS);
    accept::incoming(listener, Proxies { identity, proxies, limiter: KeyedLimiter::default() }, BOUNDS)
}

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("too many connections of this proxy, or of all, and no fleet has more than its own")]
    TooMany,
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The admission of proxies, and of who enrols as one.
struct Proxies {
    identity: Identity,
    proxies: ConnectionSlots<FleetRef>,
    limiter: KeyedLimiter,
}

impl Admission for Proxies {
    type Caller = Caller;
    type Error = Refusal;

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.identity.tls()
    }

    fn admit(
        &self,
        from: SocketAddr,
        certificate: Option<&CertificateDer<'static>>,
        slot: Slot<IpAddr>,
    ) -> Result<Admitted<Caller>, Refusal> {
        let Some(certificate) = certificate else {
            let caller = Caller { from, peer: None };
            return Ok(Admitted { caller, stay: ENROLL_TIMEOUT, place: Box::new(slot) });
        };
        let (peer, ends) = Peer::of(certificate)?;
        let count = self.limiter.try_acquire(peer.to_string(), MAX_CONNECTIONS_OF_PROXY).ok_or(Refusal::TooMany)?;
        // An unauthenticated connection can not take a slot of proxies.
        let slot = self.proxies.claim(&peer.fleet, |fleet| &fleet.namespace).ok_or(Refusal::TooMany)?;
        let stay = Duration::try_from(Timestamp::now().duration_until(ends)).unwrap_or_default();
        let caller = Caller { from, peer: Some(Arc::new(peer)) };
        Ok(Admitted { caller, stay, place: Box::new((slot, count)) })
    }
}

/// The other side of a connection.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    from: SocketAddr,
    peer: Option<Arc<Peer>>,
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
