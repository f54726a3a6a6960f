//! One client connection: TLS, HTTP/1.1 or HTTP/2, and its end.
//!
//! A connection is *retired* when it should end without a request lost: HTTP/1.1 learns by `Connection: close` on the
//! next response, HTTP/2 by GOAWAY in two steps (RFC 9113 section 6.8). It is *closed* when it is idle and the proxy
//! leaves.

use std::{future::poll_fn, net::SocketAddr, pin::Pin, sync::Arc, task::Poll};

use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::{
    connection::{
        Admission, Conn, TimeoutKind,
        limit::{self, ConnectionPermit},
        turns::Turn,
    },
    exchange,
    http1::{
        serve::{self, Ended},
        stream::{Accepted, Stream},
    },
    http2,
    memory::{Charge, Kind},
    websocket,
    worker::{Phase, Worker},
};

/// Bytes that a connection takes by itself: its task, and what is known of it.
const CONNECTION_BYTES: usize = 6 << 10;
/// Bytes that TLS takes: keys, and what it reads whole records into.
const TLS_BYTES: usize = 24 << 10;

/// Serves one accepted connection to its end.
pub(super) async fn run(
    worker: Arc<Worker>,
    permit: ConnectionPermit,
    turn: Arc<Turn>,
    stream: TcpStream,
    (peer, port): (SocketAddr, u16),
) {
    let entered = worker.account.enter(limit::client(peer.ip()));
    let holder = &entered.holder;
    let (conn, tls) = {
        let config = worker.shared.config.load();
        // The port was removed while the connection waited.
        let Some(at) = config.ports.get(&port) else { return };
        let settings = &config.settings;
        let admission = Admission {
            peer,
            port,
            public_port: at.port,
            tls: at.tls.is_some(),
            max_age: settings.connection_max_age,
            limits: Arc::clone(&settings.limits),
            http2_limits: settings.http2,
            holder: Arc::clone(holder),
            descriptors: permit.descriptors(),
            turn,
        };
        (Arc::new(Conn::new(admission, &worker.clock)), at.tls.clone())
    };
    match *worker.phase.borrow() {
        Phase::Serving => {}
        Phase::Retiring => conn.retire(),
        Phase::Closing => conn.close(),
    }
    let registered = Registered::new(&worker, &conn);
    let mut held = Charge::new(holder, Kind::Connections);
    held.set(CONNECTION_BYTES + if tls.is_some() { TLS_BYTES } else { 0 });
    let stream = Accepted::new(stream, Arc::clone(&conn));
    poll_fn(|cx| {
        holder.note_task(cx);
        conn.note_task(cx);
        Poll::Ready(())
    })
    .await;
    // Boxed, here and below: each is made where it stays, instead of being copied from hand to hand until its task runs,
    // and a connection holds what it speaks, not what it might have spoken.
    let serving: Pin<Box<dyn Future<Output = ()> + Send + '_>> = match tls {
        None => Box::pin(serve(&worker, &conn, registered, stream)),
        Some(config) => Box::pin(secured(&worker, &conn, registered, stream, config)),
    };
    tokio::select! {
        biased;
        // What is under way ends with the future, and says why.
        () = holder.ended() => {
            if conn.is_waiting_for(TimeoutKind::Head) {
                exchange::ended_for_memory(&worker, &conn);
            }
        }
        () = serving => {}
    }
}

async fn secured(
    worker: &Arc<Worker>,
    conn: &Arc<Conn>,
    registered: Registered,
    stream: Accepted,
    config: Arc<ServerConfig>,
) {
    conn.wait(TimeoutKind::Handshake, &conn.limits);
    let mut handshake = TlsAcceptor::from(config).accept(stream);
    let stream = poll_fn(|cx| match conn.expired() {
        Some(_) => Poll::Ready(Err(std::io::ErrorKind::TimedOut.into())),
        None => Pin::new(&mut handshake).poll(cx),
    });
    let stream = stream.await;
    if let Ok(stream) = &stream
        && let Some(name) = stream.get_ref().1.server_name()
    {
        conn.note_server_name(name);
    }
    match stream {
        Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            Box::pin(http2::serve::serve(worker, conn, stream)).await;
        }
        Ok(stream) => Box::pin(serve(worker, conn, registered, stream)).await,
        Err(e) => tracing::debug!(peer = %conn.peer, error = %e, "TLS handshake failed"),
    }
}

async fn serve<S: Stream>(worker: &Arc<Worker>, conn: &Arc<Conn>, registered: Registered, io: S) {
    match serve::serve(worker, conn, io).await {
        Ended::Closed => {}
        Ended::Http2(io) => Box::pin(http2::serve::serve(worker, conn, io)).await,
        Ended::WebSocket(ends) => {
            drop(registered);
            let mut held = Charge::new(&conn.holder, Kind::WebSockets);
            held.set(websocket::HELD_BYTES);
            Box::pin(websocket::relay(worker, conn, *ends)).await;
        }
    }
}

/// Lists a connection for as long as it lives.
struct Registered {
    worker: Arc<Worker>,
    id: u64,
}

impl Registered {
    fn new(worker: &Arc<Worker>, conn: &Arc<Conn>) -> Self {
        worker.shared.telemetry.connected();
        worker.conns().insert(conn.id, conn.clone());
        Self { worker: worker.clone(), id: conn.id }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.conns().remove(&self.id);
        self.worker.shared.telemetry.disconnected();
    }
}
