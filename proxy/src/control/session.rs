//! One stream to the operator, from `Hello` to its end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use snapshot::{
    FORMAT_VERSION, Hash,
    check::{FEATURES, reason},
    proto::{
        Ack, Held, Hello, LoadWindow, ProxyMessage, control_client::ControlClient, operator_message, proxy_message,
    },
    report::{fit_hello, fit_nacks},
    wire::{Assembly, MAX_MESSAGE, ProtocolError},
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::error::{DialError, with_sources};
use crate::{
    Shared,
    config::{Applier, ApplyError, Ports},
    shared::{Rebalance, Status},
};

/// Messages that may wait for the operator to read them; more and the stream is given up.
const MAX_QUEUED_MESSAGES: usize = 64;
/// Longest wait for the operator to answer `Hello` with response headers.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Delay after which, when a port did not open, the push is asked for again, by a new `Hello` that lacks its listener.
const PORT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The identity of this proxy.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name, unique among the living.
    pub name: String,
    /// `namespace/name` of the fleet.
    pub fleet: String,
    /// Where the admin port listens.
    pub admin: SocketAddr,
}

/// The context of one stream.
pub(super) struct Session<'a, P> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) applier: &'a Applier<P>,
    pub(super) identity: &'a Identity,
}

/// A stream that another is about to take over from: until then it stays open, so that the operator never misses this
/// proxy.
pub(super) struct PreviousStream {
    _sender: mpsc::Sender<ProxyMessage>,
    _inbound: Streaming<snapshot::proto::OperatorMessage>,
}

/// The end of a stream, if not by an error.
pub(super) enum End {
    /// The operator ended it.
    Ended,
    /// A new certificate is there: the next stream is to take over.
    Renewed(Box<PreviousStream>),
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the operator does not take this proxy: {}", said(.0))]
    Refused(Box<tonic::Status>),
    #[error("{}", said(.0))]
    Status(#[from] Box<tonic::Status>),
    #[error("the operator did not take the stream within {} s", ATTACH_TIMEOUT.as_secs())]
    NoAnswer,
    #[error("protocol error: {0}")]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("this operator does not lead; {0:?} does")]
    NotLeader(String),
    #[error("a port did not open; asking for the push again")]
    PortsClosed,
    #[error("the operator does not read")]
    Stuck,
}

impl SessionError {
    /// The operator may not take the certificate: it says so, or ends the connection before any answer. (A client
    /// learns only after the handshake what the server thinks of its certificate.)
    pub(super) fn is_of_certificate(&self) -> bool {
        let Self::Refused(status) = self else { return false };
        status.code() == tonic::Code::Unauthenticated || std::error::Error::source(&**status).is_some()
    }
}

impl<P: Ports> Session<'_, P> {
    /// Holds one stream, until `renewed` comes back. `welcomed` is set once a push was applied.
    pub(super) async fn run(
        &self,
        channel: Channel,
        renewed: impl Future<Output = ()>,
        mut previous: Option<Box<PreviousStream>>,
        welcomed: &mut bool,
    ) -> Result<End, SessionError> {
        let mut renewed = std::pin::pin!(renewed);
        let mut client =
            ControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(usize::MAX);
        let (sender, receiver) = mpsc::channel(MAX_QUEUED_MESSAGES);
        let mut windows = self.shared.telemetry.windows();
        send(&sender, proxy_message::Message::Hello(self.hello()))?;
        let attach = client.attach(ReceiverStream::new(receiver));
        let attached = tokio::time::timeout(ATTACH_TIMEOUT, attach).await.map_err(|_| SessionError::NoAnswer)?;
        let mut inbound = attached.map_err(|status| SessionError::Refused(Box::new(status)))?.into_inner();
        let mut assembly = Assembly::default();
        let mut retry = None;
        loop {
            let message = tokio::select! {
                () = at(retry) => return Err(SessionError::PortsClosed),
                () = &mut renewed => {
                    return Ok(End::Renewed(Box::new(PreviousStream { _sender: sender, _inbound: inbound })));
                }
                message = next(&mut inbound) => message?,
                window = windows.recv() => {
                    match window {
                        Ok(window) => send(&sender, proxy_message::Message::Load(LoadWindow::clone(&window)))?,
                        // The next Hello brings what was missed.
                        Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "load windows were not reported"),
                        Err(RecvError::Closed) => return Ok(End::Ended),
                    }
                    continue;
                }
            };
            let Some(message) = message else { return Ok(End::Ended) };
            // The operator knows this stream now.
            drop(previous.take());
            match message {
                operator_message::Message::NotLeader(m) => return Err(SessionError::NotLeader(m.holder)),
                operator_message::Message::Rebalance(m) => self.rebalance(m.excess, m.over_ms),
                message => {
                    if let Some(push) = assembly.accept(message)? {
                        let status = self.applier.apply(push).await?;
                        *welcomed = true;
                        log(&status);
                        let closed =
                            status.nacks.iter().any(|nack| nack.reason == reason::of_proxies::PORT_UNAVAILABLE);
                        retry = closed.then(|| Instant::now() + PORT_RETRY_DELAY);
                        send(&sender, proxy_message::Message::Ack(ack(status)))?;
                    }
                }
            }
        }
    }

    fn hello(&self) -> Hello {
        let (epoch, held) = self.applier.held();
        let status = self.shared.status.borrow().clone();
        let held_bytes = |hash: &Hash| Bytes::copy_from_slice(hash.as_bytes());
        fit_hello(Hello {
            format_version: FORMAT_VERSION,
            proxy: self.identity.name.clone(),
            fleet: self.identity.fleet.clone(),
            pid: std::process::id(),
            admin_address: self.identity.admin.to_string(),
            features: FEATURES.iter().map(|f| (*f).to_owned()).collect(),
            revision: if held.is_empty() { Bytes::new() } else { held_bytes(&held.revision()) },
            held: held.iter().map(|(k, e)| Held { key: k.to_string(), hash: held_bytes(&e.hash()) }).collect(),
            nacks: status.nacks,
            windows: self.shared.telemetry.last_windows(),
            epoch,
            draining: self.shared.is_draining(),
            ready: status.ready,
        })
    }

    fn rebalance(&self, excess: f64, over_ms: u32) {
        if !(excess > 0.0 && excess < 1.0) {
            tracing::warn!(excess, "a Rebalance that is not between 0 and 1 is ignored");
            return;
        }
        let over = Duration::from_millis(over_ms.into());
        tracing::info!(excess, ?over, "moving connections to others");
        self.shared.rebalance.send_replace(Some(Rebalance { excess, over, since: std::time::Instant::now() }));
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn next(
    inbound: &mut Streaming<snapshot::proto::OperatorMessage>,
) -> Result<Option<operator_message::Message>, SessionError> {
    loop {
        match inbound.message().await.map_err(Box::new)? {
            None => return Ok(None),
            Some(message) => match message.message {
                Some(message) => return Ok(Some(message)),
                // Of a newer operator: nothing that this version must know, or Hello's version would have been refused.
                None => continue,
            },
        }
    }
}

fn send(sender: &mpsc::Sender<ProxyMessage>, message: proxy_message::Message) -> Result<(), SessionError> {
    sender.try_send(ProxyMessage { message: Some(message) }).map_err(|_| SessionError::Stuck)
}

fn ack(status: Status) -> Ack {
    let revision = Bytes::copy_from_slice(status.pushed.as_bytes());
    Ack { epoch: status.epoch, revision, nacks: fit_nacks(status.nacks), ready: status.ready }
}

fn log(status: &Status) {
    let Status { epoch, pushed, running, nacks, .. } = status;
    tracing::info!(epoch, revision = %pushed.short(), running = %running.short(), nacks = nacks.len(), "applied");
    for nack in nacks {
        tracing::warn!(key = nack.key, field = nack.field, reason = nack.reason, "refused: {}", nack.message);
    }
}

/// The text of a status: the operator's, or of a connection that broke.
fn said(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        None => format!("{}: {}", status.code(), status.message()),
        Some(source) => with_sources(source),
    }
}
