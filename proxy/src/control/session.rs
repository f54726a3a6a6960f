//! One stream to the operator, from `Hello` to its end.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use snapshot::{
    FORMAT_VERSION, Hash,
    check::FEATURES,
    proto::{
        Ack, Held, Hello, LoadWindow, ProxyMessage, control_client::ControlClient, operator_message, proxy_message,
    },
    wire::{Assembly, MAX_MESSAGE, ProtocolError},
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint};

use super::Identity;
use crate::{
    Shared,
    config::{Applier, ApplyError, PORT_UNAVAILABLE, Ports},
    shared::{Rebalance, Status},
};

/// Messages that may wait for the operator to read them; more and the stream is given up.
const WAITING: usize = 64;
/// Longest wait for the operator to answer `Hello` with response headers.
const ATTACH: Duration = Duration::from_secs(5);

/// How long after a port did not open the push is asked for again, by a new `Hello` that lacks its listener.
const RETRY_PORTS: Duration = Duration::from_secs(1);

/// What one stream works with.
pub(super) struct Session<'a, P> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) applier: &'a Applier<P>,
    pub(super) identity: &'a Identity,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("{}", with_sources(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] Box<tonic::Status>),
    #[error("the operator did not take the stream within {} s", ATTACH.as_secs())]
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

impl<P: Ports> Session<'_, P> {
    /// Holds one stream. `welcomed` is set once a push was applied.
    pub(super) async fn run(&self, operator: &Endpoint, welcomed: &mut bool) -> Result<(), SessionError> {
        let channel = operator.connect().await?;
        let mut client =
            ControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(usize::MAX);
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut windows = self.shared.telemetry.windows();
        send(&sender, proxy_message::Message::Hello(self.hello()))?;
        let attach = client.attach(ReceiverStream::new(receiver));
        let attached = tokio::time::timeout(ATTACH, attach).await.map_err(|_| SessionError::NoAnswer)?;
        let mut inbound = attached.map_err(Box::new)?.into_inner();
        let mut assembly = Assembly::default();
        let mut retry = None;
        loop {
            let message = tokio::select! {
                () = at(retry) => return Err(SessionError::PortsClosed),
                message = next(&mut inbound) => message?,
                window = windows.recv() => {
                    match window {
                        Ok(window) => send(&sender, proxy_message::Message::Load(LoadWindow::clone(&window)))?,
                        // The next Hello brings what was missed.
                        Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "load windows were not reported"),
                        Err(RecvError::Closed) => return Ok(()),
                    }
                    continue;
                }
            };
            let Some(message) = message else { return Ok(()) };
            match message {
                operator_message::Message::NotLeader(m) => return Err(SessionError::NotLeader(m.holder)),
                operator_message::Message::Rebalance(m) => self.rebalance(m.excess, m.over_ms),
                message => {
                    if let Some(push) = assembly.accept(message)? {
                        let status = self.applier.apply(push).await?;
                        *welcomed = true;
                        log(&status);
                        let closed = status.nacks.iter().any(|nack| nack.reason == PORT_UNAVAILABLE);
                        retry = closed.then(|| Instant::now() + RETRY_PORTS);
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
        Hello {
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
        }
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
    Ack { epoch: status.epoch, revision, nacks: status.nacks, ready: status.ready }
}

fn log(status: &Status) {
    let Status { epoch, pushed, running, nacks, .. } = status;
    tracing::info!(epoch, revision = %pushed.short(), running = %running.short(), nacks = nacks.len(), "applied");
    for nack in nacks {
        tracing::warn!(key = nack.key, field = nack.field, reason = nack.reason, "refused: {}", nack.message);
    }
}

/// tonic says only "transport error"; the cause is behind it.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
