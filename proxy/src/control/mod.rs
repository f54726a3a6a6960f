//! The stream to the operator: `Hello`, pushes in, acknowledgements and load windows out.
//!
//! It is dialled anew whenever it ends; meanwhile everything that was applied goes on running. In a cluster a proxy
//! enrols first ([`identity`]), and dials the leader where another operator says that it is.

mod error;
mod identity;
mod operator;
mod session;
mod tls;

use std::{
    future::pending,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tonic::transport::Channel;

pub use self::operator::{Address, Operator};
pub use self::session::Identity;
use self::{
    error::DialError,
    session::{End, PreviousStream, Session, SessionError},
};
use crate::{
    Shared,
    backoff::Backoff,
    config::{Applier, Ports},
};

/// A proxy that starts and does not reach its operator for this long serves the last-good file.
const FALLBACK_AFTER: Duration = Duration::from_secs(2);
/// Time without an operator after which a proxy that crashed and was started again serves the last-good file.
const FALLBACK_AFTER_CRASH: Duration = Duration::from_millis(500);

/// An operator is dialled again after so long: soon, because a new one may be there within a second.
const MIN_REDIAL_DELAY: Duration = Duration::from_millis(50);
const MAX_REDIAL_DELAY: Duration = Duration::from_secs(1);
/// A failure that goes on is said again this often.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// An operator that was not there is not dialled for this long, whoever says that it leads: until the lease of a dead
/// leader ends, the others know no better.
const AVOID_FOR: Duration = Duration::from_secs(4);

/// The patience of a proxy that looks for its operator, before it serves the last-good file. Pushes come first: the
/// operator may know that the last configuration is what proxies crash of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The proxy was started: nobody waits for it.
    Started,
    /// The proxy crashed, and connections wait in its sockets: when the operator is not there, it does not look again.
    Restarted,
}

/// Holds a stream to the operator for as long as the process lives.
pub async fn run<P: Ports>(
    shared: Arc<Shared>,
    applier: Applier<P>,
    identity: Identity,
    operator: Operator,
    patience: Patience,
) {
    let session = Session { shared: &shared, applier: &applier, identity: &identity };
    let mut connector = Connector::new(operator, patience);
    loop {
        let mut welcomed = false;
        let previous = connector.previous.take();
        let result = match connector.dial(&applier).await {
            Ok(channel) => {
                session.run(channel, connector.operator.renewed(connector.at), previous, &mut welcomed).await
            }
            Err(error) => Err(error.into()),
        };
        if welcomed {
            connector.backoff.reset();
            connector.complaint = None;
            connector.fallback_at = None;
        }
        if let Some(wait) = connector.next(result) {
            if patience == Patience::Restarted && connector.fallback_at.take().is_some() {
                applier.restore().await;
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// The choice of the operator to dial next, and when.
struct Connector {
    operator: Operator,
    /// A certain operator, as another said or for a stream that is to be taken over from; else whichever answers.
    at: Option<SocketAddr>,
    previous: Option<Box<PreviousStream>>,
    backoff: Backoff,
    /// An operator that was not there, and when.
    absent: Option<(SocketAddr, Instant)>,
    /// Failure that was logged last, and when.
    complaint: Option<(String, Instant)>,
    /// When the last-good file is to be read, if no operator was reached; `None`: it was.
    fallback_at: Option<Instant>,
}

impl Connector {
    fn new(operator: Operator, patience: Patience) -> Self {
        let fallback_at = match patience {
            Patience::Started => FALLBACK_AFTER,
            Patience::Restarted => FALLBACK_AFTER_CRASH,
        };
        let (backoff, fallback_at) =
            (Backoff::new(MIN_REDIAL_DELAY, MAX_REDIAL_DELAY), Some(Instant::now() + fallback_at));
        Self { operator, at: None, previous: None, backoff, absent: None, complaint: None, fallback_at }
    }

    /// Dials; reads the last-good file when that takes long.
    async fn dial<P: Ports>(&mut self, applier: &Applier<P>) -> Result<Channel, DialError> {
        let mut dial = std::pin::pin!(self.operator.dial(self.at));
        let fallback_at = self.fallback_at;
        tokio::select! {
            dialled = &mut dial => return dialled,
            () = async { match fallback_at { Some(at) => tokio::time::sleep_until(at.into()).await, None => pending().await } } => {}
        }
        self.fallback_at = None;
        applier.restore().await;
        dial.await
    }

    /// Takes up how a stream ended; gives how long to wait before the next.
    fn next(&mut self, result: Result<End, SessionError>) -> Option<Duration> {
        let sent = self.at.take();
        match result {
            Ok(End::Renewed(previous)) => {
                (self.at, self.previous) = (sent, Some(previous));
                return None;
            }
            Ok(End::Ended) => tracing::info!("the operator ended the stream"),
            Err(SessionError::NotLeader(holder)) => {
                tracing::debug!(holder, "this operator does not lead");
                let is_absent =
                    |at: &SocketAddr| self.absent.is_some_and(|(a, when)| a == *at && when.elapsed() < AVOID_FOR);
                self.at = holder.parse().ok().filter(|at| !is_absent(at));
                // Sent from one to the other and back, it waits: they will agree soon.
                if self.at.is_some() && sent.is_none() {
                    return None;
                }
            }
            Err(error) => {
                if let (SessionError::Dial(_), Some(at)) = (&error, sent) {
                    self.absent = Some((at, Instant::now()));
                }
                if error.is_of_certificate() {
                    self.operator.refused();
                }
                self.complain(error.to_string());
            }
        }
        Some(self.backoff.next())
    }

    /// Dialling fails each time while the operator is away; once a minute says enough.
    fn complain(&mut self, complaint: String) {
        let said = self.complaint.as_ref();
        if said.is_some_and(|(said, when)| *said == complaint && when.elapsed() < REPEAT_AFTER) {
            tracing::debug!("no stream to the operator: {complaint}");
        } else {
            tracing::warn!("no stream to the operator: {complaint}");
            self.complaint = Some((complaint, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests;
