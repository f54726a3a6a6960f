//! Accepting connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::net::{TcpListener, TcpStream};

use super::connection;
use crate::{
    connection::limit::{self, Share},
    fd_limit,
    worker::Worker,
};

/// A proxy with more than its share leaves new connections to others for this long; one that nobody takes is delayed
/// by no more than that.
const YIELD_TIME: Duration = Duration::from_millis(4);
/// Pause when descriptors run out all the same: those that close meanwhile make room.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// Accepts from one listener until aborted. While there is no room, or no memory, what comes waits in the kernel.
pub(super) async fn accept(worker: Arc<Worker>, listener: TcpListener, port: u16) {
    loop {
        if worker.connection_limit.is_full() {
            worker.shared.telemetry.accepting_paused();
            if worker.connection_limit.is_news() {
                let most = worker.connection_limit.most();
                tracing::warn!(
                    port,
                    most,
                    "accepting pauses: there are as many connections as descriptors suffice for"
                );
            }
            worker.connection_limit.free().await;
        }
        if worker.account.is_full() {
            worker.shared.telemetry.accepting_paused();
            worker.account.room().await;
        }
        if yields(&worker) {
            tokio::time::sleep(YIELD_TIME).await;
            // What the others left is taken at once, all of it.
            while !worker.connection_limit.is_full()
                && !worker.account.is_full()
                && let Some(accepted) = listener.accept().now_or_never()
            {
                take(&worker, &listener, accepted, port).await;
            }
        } else {
            take(&worker, &listener, listener.accept().await, port).await;
        }
    }
}

async fn take(worker: &Arc<Worker>, listener: &TcpListener, accepted: io::Result<(TcpStream, SocketAddr)>, port: u16) {
    match accepted {
        Ok((stream, peer)) => {
            let share = {
                let config = worker.shared.config.load();
                let settings = &config.settings;
                Share { connections: settings.connections_per_client, descriptors: settings.descriptors_per_client }
            };
            // Counted before its task runs, so that a proxy which leaves waits for it.
            let Some(permit) = worker.connection_limit.enter(peer.ip(), share) else {
                return worker.shared.telemetry.connection_refused();
            };
            // Upstreams have taken more than one for each client.
            let scarce = fd_limit::is_kept(&stream);
            let turn = worker.turns.join(limit::client(peer.ip()));
            tokio::spawn(turn.task(connection::run(worker.clone(), permit, Arc::clone(&turn), stream, (peer, port))));
            if scarce {
                worker.shared.telemetry.accepting_paused();
                worker.pool.give_up_idle();
                while fd_limit::are_scarce(listener) {
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
        Err(e) if is_of_one_connection(&e) => {}
        Err(e) => {
            tracing::warn!(port, error = %e, "accepting paused");
            worker.shared.telemetry.accepting_paused();
            tokio::time::sleep(RETRY_DELAY).await;
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
