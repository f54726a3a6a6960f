//! Accepting connections.

use std::{io, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::net::TcpListener;

use super::{Worker, connection};

/// A proxy with more than its share leaves new connections to others for this long; one that nobody takes is delayed
/// by no more than that.
const YIELD: Duration = Duration::from_millis(4);
/// Pause when descriptors run out: those that close meanwhile make room.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts from one listener until aborted.
pub(super) async fn accept(worker: Arc<Worker>, listener: TcpListener, port: u16) {
    loop {
        let accepted = if yields(&worker) {
            tokio::time::sleep(YIELD).await;
            match listener.accept().now_or_never() {
                Some(accepted) => accepted,
                None => continue,
            }
        } else {
            listener.accept().await
        };
        match accepted {
            Ok((stream, peer)) => {
                tokio::spawn(connection::run(worker.clone(), stream, peer, port));
            }
            Err(e) if is_of_one_connection(&e) => {}
            Err(e) => {
                tracing::warn!(port, error = %e, "accepting paused");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// While an order to shift load stands.
fn yields(worker: &Worker) -> bool {
    worker.shared.rebalance.borrow().is_some_and(|r| r.since.elapsed() < r.over)
}

/// The client left before it was accepted (accept(2)).
fn is_of_one_connection(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(e.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
