//! A client's connection by HTTP/2: its streams, its silence, and its end.

use std::{
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason, server};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};

use super::{
    blocks::{self, Blocks},
    flood_guard::FloodGuard,
    held::Held,
    keep_alive::{KeepAlive, KeepAliveEvent},
    stream,
};
use crate::{
    connection::{Conn, TimeoutKind},
    memory::{Charge, Kind},
    worker::Worker,
};

/// Time that a connection which exceeded its budget has to send its GOAWAY.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes that a connection takes besides its streams: HPACK's table, and buffers to read into and to write from.
const CONNECTION_BYTES: usize = 24 << 10;

fn builder(conn: &Conn) -> server::Builder {
    let (limits, http2) = (&conn.limits, conn.http2_limits);
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(http2.streams)
        // What is a little too large is told why it is refused (`head.rs`). `h2` tells clients what it enforces.
        .max_header_list_size(blocks::most_read(limits, limits.head_bytes, limits.fields))
        .initial_window_size(http2.stream_window)
        .initial_connection_window_size(http2.connection_window)
        .data_frame_budget(blocks::data_frame_budget(http2.connection_window))
        .max_send_buffer_size(256 << 10)
        .max_concurrent_reset_streams(50)
        .max_local_error_reset_streams(Some(200))
        .max_pending_accept_reset_streams(100);
    builder
}

/// Serves a connection that speaks HTTP/2 to its end.
pub(crate) async fn serve<S>(worker: &Arc<Worker>, conn: &Arc<Conn>, io: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    conn.note_http2();
    let mut connection = Charge::new(&conn.holder, Kind::Connections);
    connection.set(CONNECTION_BYTES);
    let held = Held::new(&conn.holder, conn.http2_limits);
    let blocks = Arc::new(Blocks::new(&conn.limits));
    let (held_there, blocks_there) = (Arc::clone(&held), Arc::clone(&blocks));
    let (io, exceeded) = FloodGuard::new(io, Instant::now(), conn.http2_limits.streams, held_there, blocks_there);
    let mut h2 = match time::timeout(conn.limits.head_time, builder(conn).handshake::<_, Bytes>(io)).await {
        Ok(Ok(h2)) => h2,
        Ok(Err(e)) => return tracing::debug!(peer = %conn.peer, error = %e, "HTTP/2 handshake failed"),
        Err(_) => return tracing::debug!(peer = %conn.peer, "HTTP/2 handshake took too long"),
    };
    let mut keep_alive = KeepAlive::new(h2.ping_pong(), conn.limits.idle_time, conn.limits.least_rate);
    conn.progress();
    conn.wait(TimeoutKind::Idle, &conn.limits);
    let mut told = false;
    loop {
        if let Some(class) = exceeded.class() {
            tracing::debug!(peer = %conn.peer, class = class.name(), "beyond its budget: closed");
            worker.shared.telemetry.flooded(class.name());
            h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            // The streams' tasks end with the connection.
            let _ = time::timeout(GOAWAY_TIMEOUT, poll_fn(|cx| h2.poll_closed(cx))).await;
            return;
        }
        tokio::select! {
            // First what the client sent: an idle connection is closed only when there is nothing to read.
            biased;
            request = h2.accept() => match request {
                Some(Ok((request, mut respond))) => {
                    conn.progress();
                    keep_alive.broken();
                    if conn.holder.is_refused() {
                        respond.send_reset(Reason::REFUSED_STREAM);
                        continue;
                    }
                    // At once, so that nobody has a head that was not charged.
                    let request = stream::Request::new(&conn.holder, &held, &blocks, request);
                    // Boxed: made where it stays, instead of being copied from hand to hand until its task runs.
                    let stream = stream::run(worker.clone(), conn.clone(), exceeded.clone(), request, respond);
                    tokio::spawn(Box::pin(conn.task(stream)));
                }
                Some(Err(e)) => {
                    if e.reason() == Some(Reason::ENHANCE_YOUR_CALM) && !e.is_remote() {
                        worker.shared.telemetry.flooded("streams and heads");
                    }
                    return tracing::debug!(peer = %conn.peer, error = %e, "connection broke off");
                }
                None => return,
            },
            () = exceeded.noticed() => {}
            () = retirement(conn), if !told => {
                told = true;
                h2.graceful_shutdown();
            }
            end = keep_alive.next(|| held.read()) => match end {
                KeepAliveEvent::Asked if h2.has_streams() => {
                    keep_alive.broken();
                    conn.insist();
                }
                KeepAliveEvent::Asked => {}
                KeepAliveEvent::Idle => conn.retire(),
                KeepAliveEvent::Gone => return tracing::debug!(peer = %conn.peer, "no answer to PING: gone"),
            },
        }
    }
}

/// Waits until the connection should end: its task is woken then.
async fn retirement(conn: &Conn) {
    let due = || conn.is_retiring() || (!conn.is_used() && conn.expired().is_some());
    poll_fn(|_| if due() { Poll::Ready(()) } else { Poll::Pending }).await;
}
