//! The push server: proxies dial in, each holds one stream, and gets what its fleet publishes.
//!
//! ```text
//!  loop ───roll────► Registry ──watch──► stream of each proxy ──diff(held)──► Begin Put* Delete* Commit
//!    ▲                                        │
//!    └───────── Event::Proxy ◄── Hello, Ack, LoadWindow
//! ```
//!
//! On one machine over a Unix socket, whose folder says who may connect. In a cluster over TLS ([`tls`]): a proxy
//! enrols first ([`enrollment`]), and attaches with its certificate, for as long as the pod lives that this names. A standby
//! sends proxies to the leader; while there is none, it gives one that has nothing what it would publish itself.

mod enrollment;
mod hello_limiter;
pub mod published;
mod read_rate;
mod registry;
mod standby;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use snapshot::{
    proto::{EnrollRequest, EnrollResponse, OperatorMessage, ProxyMessage, control_server},
    report::MAX_HELLO,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tonic::{Request, Response, Status, Streaming};

use self::hello_limiter::HelloLimiter;
pub use self::{
    published::{Offered, Outbox, Published},
    registry::Registry,
};
use crate::{
    identity::{Identity, pods::Pods},
    leader::election::LeaderWatch,
    reconcile::event::Event,
};

/// Messages that wait for one proxy, besides pushes; when it takes none, more are dropped.
const OUTBOX_LEN: usize = 4;
/// Messages of a push that are on their way. Each is up to 1 MiB.
const PUSH_QUEUE_LEN: usize = 4;
/// The memory, in KiB, of messages that the loop has not taken up yet: a proxy that has more to send waits.
const MAX_PENDING_KIB: usize = 64 << 10;
/// A proxy that answers no ping for this long is taken for gone. It may only be stopped or starved: it redials.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the protocol on a Unix socket. Who may connect is for the folder's mode to say.
pub async fn serve(
    socket: &Path,
    lead: LeaderWatch,
    registry: Arc<Registry>,
    events: mpsc::Sender<Event>,
) -> Result<(), ServeError> {
    let failed = |error| ServeError::Listen(socket.display().to_string(), error);
    remove_stale(socket).map_err(failed)?;
    let listener = tokio::net::UnixListener::bind(socket).map_err(failed)?;
    let shared = Arc::new(Shared::new(lead, registry, events, Pods::default()));
    let control = Control { access: Access::Anyone, shared };
    builder()
        .serve_with_incoming(service(control, MAX_HELLO), UnixListenerStream::new(listener))
        .await
        .map_err(ServeError::Serve)
}

/// Serves the protocol in a cluster: over TLS, to proxies that prove themselves.
pub async fn serve_tls(
    listen: SocketAddr,
    identity: Identity,
    lead: LeaderWatch,
    registry: Arc<Registry>,
    events: mpsc::Sender<Event>,
) -> Result<(), ServeError> {
    let listener = transport::accept::listen(listen).map_err(|error| ServeError::Listen(listen.to_string(), error))?;
    serve_tls_on(listener, identity, lead, registry, events).await
}

/// Serves the protocol in a cluster, from a socket that listens.
pub async fn serve_tls_on(
    listener: TcpListener,
    identity: Identity,
    lead: LeaderWatch,
    registry: Arc<Registry>,
    events: mpsc::Sender<Event>,
) -> Result<(), ServeError> {
    let incoming = tls::incoming(listener, identity.clone());
    let shared = Arc::new(Shared::new(lead, registry, events, identity.pods.clone()));
    let control =
        Control { access: Access::Certificates(Arc::new(enrollment::EnrollmentService::new(identity))), shared };
    builder()
        // One stream is open for long, and another takes over from it.
        .max_concurrent_streams(2)
        .serve_with_incoming(tls::Gate::new(control), incoming)
        .await
        .map_err(ServeError::Serve)
}

fn builder() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_TIMEOUT))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
}

fn service(control: Control, largest: usize) -> control_server::ControlServer<Control> {
    control_server::ControlServer::new(control)
        .max_decoding_message_size(largest)
        .max_encoding_message_size(snapshot::wire::MAX_MESSAGE)
}

/// Removes the socket that a former operator left; the lock on the state folder says that it is gone.
pub(crate) fn remove_stale(socket: &Path) -> io::Result<()> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Why proxies can't connect.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket can't be opened.
    #[error("can't listen for proxies on {0}: {1}")]
    Listen(String, io::Error),
    /// Serving ended.
    #[error("the push server ended: {0}")]
    Serve(tonic::transport::Error),
}

/// The state that all streams share.
#[derive(Debug)]
struct Shared {
    lead: LeaderWatch,
    registry: Arc<Registry>,
    events: mpsc::Sender<Event>,
    sessions: AtomicU64,
    hello_limiter: HelloLimiter,
    /// [`MAX_PENDING_KIB`].
    room: Arc<Semaphore>,
    pods: Pods,
}

impl Shared {
    fn new(lead: LeaderWatch, registry: Arc<Registry>, events: mpsc::Sender<Event>, pods: Pods) -> Self {
        let room = Arc::new(Semaphore::new(MAX_PENDING_KIB));
        Self { lead, registry, events, sessions: AtomicU64::new(0), hello_limiter: HelloLimiter::default(), room, pods }
    }
}

/// The rule by which proxies are let in.
#[derive(Clone)]
enum Access {
    /// Every connection is let in.
    Anyone,
    /// Proxies with a certificate are let in, which they get by enrolment here.
    Certificates(Arc<enrollment::EnrollmentService>),
}

#[derive(Clone)]
struct Control {
    access: Access,
    shared: Arc<Shared>,
}

#[tonic::async_trait]
impl control_server::Control for Control {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<OperatorMessage, Status>> + Send>>;

    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        match &self.access {
            Access::Certificates(enrollment) => enrollment.enroll(request, &self.shared.registry).await,
            Access::Anyone => {
                Err(Status::unimplemented("on one machine the folder of this socket says who may connect"))
            }
        }
    }

    async fn attach(&self, request: Request<Streaming<ProxyMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let caller = match self.access {
            Access::Anyone => None,
            Access::Certificates(_) => Some(tls::peer(&request)?),
        };
        let (out, messages) = mpsc::channel(PUSH_QUEUE_LEN);
        let session = self.shared.sessions.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(status) = stream::run(&shared, session, caller.as_deref(), request.into_inner(), &out).await {
                tracing::info!(session, reason = status.message(), "proxy stream ended");
                // When the proxy is gone, there is no one to tell.
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}
