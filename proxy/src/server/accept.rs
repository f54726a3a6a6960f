//! Accepting connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::net::{TcpListener, TcpStream};

use super::{Worker, connection};

/// A proxy with more than its share leaves new connections to others for this long; one that nobody takes is delayed
/// by no more than that.
const YIELD: Duration = Duration::from_millis(4);
/// Pause when descriptors run out: those that close meanwhile make room.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts from one listener until aborted.
pub(super) async fn accept(worker: Arc<Worker>, listener: TcpListener, port: u16) {
    loop {
        if yields(&worker) {
            tokio::time::sleep(YIELD).await;
            // What the others left is taken at once, all of it.
            while let Some(accepted) = listener.accept().now_or_never() {
                take(&worker, accepted, port).await;
            }
        } else {
            take(&worker, listener.accept().await, port).await;
        }
    }
}

async fn take(worker: &Arc<Worker>, accepted: io::Result<(TcpStream, SocketAddr)>, port: u16) {
    match accepted {
        Ok((stream, peer)) => {
            // Counted before its task runs, so that a proxy which leaves waits for it.
            let live = worker.live();
            tokio::spawn(connection::run(worker.clone(), live, stream, peer, port));
        }
        Err(e) if is_of_one_connection(&e) => {}
        Err(e) => {
            tracing::warn!(port, error = %e, "accepting paused");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// While an order to shift load stands, and there are others to take what comes.
fn yields(worker: &Worker) -> bool {
    worker.shares_sockets && worker.shared.rebalance.borrow().is_some_and(|r| r.since.elapsed() < r.over)
}

/// The client left before it was accepted (accept(2)).
fn is_of_one_connection(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(e.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
