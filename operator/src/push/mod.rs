//! The push server: proxies dial in, each holds one stream, and gets what its fleet publishes.
//!
//! ```text
//!  turn ──publish──► Registry ──watch──► stream of each proxy ──diff(held)──► Begin Put* Delete* Commit
//!    ▲                                        │
//!    └───────── Event::Proxy ◄── Hello, Ack, LoadWindow
//! ```

mod stream;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use planner::FleetRef;
use snapshot::{
    Hash, Snapshot,
    proto::{EnrollRequest, EnrollResponse, OperatorMessage, ProxyMessage, control_server},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tonic::{Request, Response, Status, Streaming};

use crate::{event::Event, lead::Leading};

/// What the proxies of a fleet are to run.
#[derive(Debug, Default)]
pub struct Published {
    /// Its name: the hash of its content.
    pub revision: Hash,
    /// The content.
    pub snapshot: Snapshot,
}

impl From<Snapshot> for Published {
    fn from(snapshot: Snapshot) -> Self {
        Self { revision: snapshot.revision(), snapshot }
    }
}

/// Takes messages to one proxy, besides pushes.
pub type Outbox = mpsc::Sender<OperatorMessage>;

/// Messages that wait for one proxy, besides pushes; when it takes none, more are dropped.
const OUTBOX: usize = 4;
/// Messages of a push that are on their way. Each is up to 1 MiB.
const IN_FLIGHT: usize = 4;
/// A Hello lists every key held: 110,000 of about 150 bytes.
const MAX_HELLO: usize = 64 << 20;
/// A proxy that answers no ping for this long is taken for gone. It may only be stopped or starved: it redials.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What each fleet publishes, for streams to follow.
#[derive(Debug, Default)]
pub struct Registry {
    fleets: Mutex<BTreeMap<FleetRef, watch::Sender<Option<Arc<Published>>>>>,
}

impl Registry {
    /// Makes this what the fleet's proxies are to run.
    pub fn publish(&self, fleet: &FleetRef, published: Arc<Published>) {
        self.with(fleet, |sender| sender.send_replace(Some(published)));
    }

    /// Follows what a fleet publishes; nothing until the first time.
    fn subscribe(&self, fleet: &FleetRef) -> watch::Receiver<Option<Arc<Published>>> {
        self.with(fleet, watch::Sender::subscribe)
    }

    fn with<T>(&self, fleet: &FleetRef, f: impl FnOnce(&watch::Sender<Option<Arc<Published>>>) -> T) -> T {
        let mut fleets = self.fleets.lock().unwrap_or_else(PoisonError::into_inner);
        f(fleets.entry(fleet.clone()).or_insert_with(|| watch::Sender::new(None)))
    }
}

/// Serves the protocol on a Unix socket. Who may connect is for the folder's mode to say.
pub async fn serve(
    socket: &Path,
    lead: Leading,
    registry: Arc<Registry>,
    events: mpsc::Sender<Event>,
) -> Result<(), ServeError> {
    let failed = |error| ServeError::Socket(socket.display().to_string(), error);
    remove_stale(socket).map_err(failed)?;
    let listener = tokio::net::UnixListener::bind(socket).map_err(failed)?;
    let service = Control { shared: Arc::new(Shared { lead, registry, events, sessions: AtomicU64::new(0) }) };
    let service = control_server::ControlServer::new(service)
        .max_decoding_message_size(MAX_HELLO)
        .max_encoding_message_size(snapshot::wire::MAX_MESSAGE);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_TIMEOUT))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(service)
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .map_err(ServeError::Serve)
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
    #[error("can't listen on {0}: {1}")]
    Socket(String, io::Error),
    /// Serving ended.
    #[error("the push server ended: {0}")]
    Serve(tonic::transport::Error),
}

/// What all streams share.
#[derive(Debug)]
struct Shared {
    lead: Leading,
    registry: Arc<Registry>,
    events: mpsc::Sender<Event>,
    sessions: AtomicU64,
}

struct Control {
    shared: Arc<Shared>,
}

#[tonic::async_trait]
impl control_server::Control for Control {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<OperatorMessage, Status>> + Send>>;

    async fn enroll(&self, _: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        Err(Status::unimplemented("on one machine the folder of this socket says who may connect"))
    }

    async fn attach(&self, request: Request<Streaming<ProxyMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let (out, messages) = mpsc::channel(IN_FLIGHT);
        let session = self.shared.sessions.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(status) = stream::run(&shared, session, request.into_inner(), &out).await {
                tracing::info!(session, reason = status.message(), "proxy stream ended");
                // When the proxy is gone, there is no one to tell.
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}
