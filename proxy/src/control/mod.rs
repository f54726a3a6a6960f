//! The stream to the operator: `Hello`, pushes in, acknowledgements and load windows out.
//!
//! It is dialled anew whenever it ends; meanwhile everything that was applied goes on running.

mod backoff;
mod session;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tonic::transport::Endpoint;

use self::{backoff::Backoff, session::Session};
use crate::{
    Shared,
    config::{Applier, Ports},
};

/// A proxy that starts and does not reach its operator for this long serves the last-good file.
const ALONE: Duration = Duration::from_secs(2);

/// Who this proxy is, and where its operator listens.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name, unique among the living.
    pub name: String,
    /// `namespace/name` of the fleet.
    pub fleet: String,
    /// Where the admin port listens.
    pub admin: SocketAddr,
}

/// Holds a stream to the operator for as long as the process lives.
pub async fn run<P: Ports>(shared: Arc<Shared>, applier: Applier<P>, identity: Identity, operator: Endpoint) {
    let mut backoff = Backoff::default();
    let mut alone = Some(Instant::now());
    loop {
        let session = Session { shared: &shared, applier: &applier, identity: &identity };
        let mut welcomed = false;
        match session.run(&operator, &mut welcomed).await {
            Ok(()) => tracing::info!("the operator ended the stream"),
            // Dialling fails each time while the operator is away; the first time says enough.
            Err(e) if welcomed || backoff.is_first() => tracing::warn!("no stream to the operator: {e}"),
            Err(e) => tracing::debug!("no stream to the operator: {e}"),
        }
        if welcomed {
            backoff.reset();
            alone = None;
        }
        if alone.is_some_and(|since| since.elapsed() >= ALONE) {
            applier.restore().await;
            alone = None;
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

#[cfg(test)]
mod tests;
