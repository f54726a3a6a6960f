//! An HTTP/2 connection to an upstream, which requests share.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong,
    client::{Builder, SendRequest},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedMutexGuard,
    time,
};

use super::arrived::{Arrived, STREAM_WINDOW_BYTES};
use crate::{
    http2::{
        blocks::{self, Blocks},
        frames::Frames,
    },
    message_limits::Limits,
};

/// Most streams of one connection, which an upstream may allow fewer of. RFC 9113 section 6.5.2 asks it to allow as
/// many.
const MAX_STREAMS: usize = 100;
/// Bytes that an upstream may send on one connection: all its streams' windows, so that those whose clients do not read
/// leave the others theirs.
const CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS as u32 * STREAM_WINDOW_BYTES;
/// Bytes of one request that may wait for the upstream to read them.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Longest wait for an upstream's settings, before others than the first request go to it.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval at which an upstream with streams is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Time that an upstream has to answer, before it is taken for gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
    blocks: Arc<Blocks>,
    arrived: Arc<Arrived>,
}

impl Connection {
    /// A connection on this socket, driven by a task of its own. `settling` is held until the upstream has said how
    /// many streams it takes.
    pub(in crate::upstream) async fn make(
        io: TcpStream,
        limits: &Limits,
        settling: OwnedMutexGuard<()>,
    ) -> Result<Self, h2::Error> {
        let blocks = Arc::new(Blocks::new(limits));
        let arrived = Arc::<Arrived>::default();
        let io = Watched { io, frames: Frames::after(0), blocks: Arc::clone(&blocks), arrived: Arc::clone(&arrived) };
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(blocks::most_read(limits, limits.response_head_bytes, limits.response_fields))
            // All of them may be small messages that nobody takes: one client's must not end the connection for others.
            .data_frame_budget(blocks::data_frame_budget(CONNECTION_WINDOW_BYTES))
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            // Until it has said how many it takes.
            .initial_max_send_streams(1);
        let (sender, mut connection) = builder.handshake(io).await?;
        let streams = Arc::<AtomicUsize>::default();
        let watching = watch(connection.ping_pong(), Arc::clone(&streams), settling);
        tokio::spawn(async move {
            tokio::select! {
                // Its end reaches whoever has a stream; there is nobody else to tell.
                _ = connection => {}
                () = watching => {}
            }
        });
        Ok(Self { sender, streams, blocks, arrived })
    }

    /// Whether it takes further requests: it is neither closed, nor was it told to go away.
    pub(in crate::upstream) fn is_open(&mut self) -> bool {
        !matches!(self.sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// Whether a further request goes out at once.
    pub(in crate::upstream) fn has_room(&self) -> bool {
        self.load() < MAX_STREAMS.min(self.sender.current_max_send_streams())
    }

    /// The number of the connection's streams.
    pub(in crate::upstream) fn load(&self) -> usize {
        self.streams.load(Relaxed)
    }

    /// The count of its streams.
    pub(in crate::upstream) fn streams(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.streams)
    }

    pub(super) fn sender(&mut self) -> &mut SendRequest<Bytes> {
        &mut self.sender
    }

    pub(super) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    pub(super) fn arrived(&self) -> &Arrived {
        &self.arrived
    }
}

/// Asks an upstream whether it is there while somebody waits for it; comes back when it is not.
async fn watch(ping: Option<PingPong>, streams: Arc<AtomicUsize>, settling: OwnedMutexGuard<()>) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    // Settings come first (RFC 9113 section 3.4), so they are known once it answers.
    let _ = time::timeout(SETTINGS_TIMEOUT, ask(&mut ping)).await;
    drop(settling);
    loop {
        time::sleep(PING_INTERVAL).await;
        if streams.load(Relaxed) > 0 && !matches!(time::timeout(PING_TIMEOUT, ask(&mut ping)).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn ask(ping: &mut PingPong) -> Result<(), h2::Error> {
    // One that was not answered in time is under way: its answer will do.
    let _ = ping.send_ping(Ping::opaque());
    poll_fn(|cx| ping.poll_pong(cx)).await.map(drop)
}

/// A socket on which header blocks and bodies are looked after.
struct Watched {
    io: TcpStream,
    frames: Frames,
    blocks: Arc<Blocks>,
    arrived: Arc<Arrived>,
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, frames, blocks, arrived } = self.get_mut();
        if arrived.is_held_back() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let start = buf.filled().len();
        ready!(Pin::new(io).poll_read(cx, buf))?;
        frames.pass(&buf.filled()[start..], |frame| {
            blocks.received(frame);
            arrived.received(frame);
        });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
