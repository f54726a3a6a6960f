//! A stream that counts the frames that pass it against a budget, and reads no further once that is used up.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    blocks::Blocks,
    frame_budget::{Class, FrameBudget},
    frames::{FrameType, Frames},
    heads::Heads,
    held::Held,
};

/// Length of the client's preface: `PRI * HTTP/2.0 …` (RFC 9113 section 3.4).
const PREFACE: u32 = 24;

/// A guard against floods: it counts the frames that pass.
pub(super) struct FloodGuard<S> {
    io: S,
    inbound: Frames,
    outbound: Frames,
    budget: FrameBudget,
    exceeded: Exceeded,
    held: Arc<Held>,
    blocks: Arc<Blocks>,
}

/// The budget that was used up, if one was: the connection is to end.
#[derive(Clone, Default)]
pub(super) struct Exceeded(Arc<Inner>);

#[derive(Default)]
struct Inner {
    any: AtomicBool,
    class: OnceLock<Class>,
    heads: Arc<Heads>,
}

impl Exceeded {
    pub(super) fn class(&self) -> Option<Class> {
        if self.0.any.load(Ordering::Relaxed) { self.0.class.get().copied() } else { None }
    }

    /// A stream's head came to so many bytes. Whether that is within the budget, and all else too.
    pub(super) fn head(&self, bytes: usize) -> bool {
        if !self.0.heads.spend(bytes) {
            self.set(Class::Heads);
        }
        self.class().is_none()
    }

    /// For what comes behind a stream's head.
    pub(super) fn heads(&self) -> Arc<Heads> {
        Arc::clone(&self.0.heads)
    }

    /// Waits until one was; whoever polls the stream is woken then.
    pub(super) async fn noticed(&self) {
        std::future::poll_fn(|_| if self.class().is_some() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn set(&self, class: Class) {
        // Set once: the first is what counts.
        let _ = self.0.class.set(class);
        self.0.any.store(true, Ordering::Relaxed);
    }
}

impl<S> FloodGuard<S> {
    /// Counts what comes and goes on `io`, which may have so many streams open.
    pub(super) fn new(io: S, now: Instant, streams: u32, held: Arc<Held>, blocks: Arc<Blocks>) -> (Self, Exceeded) {
        let exceeded = Exceeded::default();
        let (inbound, outbound, budget) = (Frames::after(PREFACE), Frames::after(0), FrameBudget::new(now, streams));
        (Self { io, inbound, outbound, budget, exceeded: exceeded.clone(), held, blocks }, exceeded)
    }

    fn wrote<'a>(&mut self, mut n: usize, slices: impl Iterator<Item = &'a [u8]>) {
        for slice in slices {
            let part = &slice[..n.min(slice.len())];
            n -= part.len();
            self.outbound.pass(part, |frame| {
                self.budget.sent(frame);
                self.held.sent(frame);
            });
            if n == 0 {
                break;
            }
        }
        self.held.left(self.outbound.data());
        self.judge();
    }

    fn judge(&self) {
        if let Some(class) = self.budget.exceeded() {
            self.exceeded.set(class);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FloodGuard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.exceeded.class().is_some() {
            // Whoever polls ends the connection now, instead of reading on for as long as there is a flood.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let start = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let heads = &this.exceeded.0.heads;
        if let Some(passed) = this.budget.refill(Instant::now()) {
            heads.refill(passed);
        }
        this.inbound.pass(&buf.filled()[start..], |frame| {
            if matches!(frame.kind, FrameType::Headers | FrameType::Continuation) {
                heads.received(frame.length);
            }
            this.budget.received(frame);
            this.held.received(frame);
            this.blocks.received(frame);
        });
        this.judge();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FloodGuard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.wrote(n, std::iter::once(buf));
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        this.wrote(n, bufs.iter().map(|slice| &**slice));
        Poll::Ready(Ok(n))
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::{
        memory::testing::holder,
        message_limits::{DEFAULT, Http2Limits},
    };

    fn meter<S>(io: S) -> (FloodGuard<S>, Exceeded) {
        let held = Held::new(&holder(), Http2Limits::default());
        FloodGuard::new(io, Instant::now(), 100, held, Arc::new(Blocks::new(&DEFAULT)))
    }

    #[tokio::test]
    async fn floods_are_read_no_further() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (mut meter, exceeded) = meter(server);
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        meter.read_exact(&mut [0; 24]).await.unwrap();
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        client.write_all(&ping.repeat(2000)).await.unwrap();
        let mut read = 0;
        let mut buf = [0; 1700];
        while let Ok(Ok(n)) = tokio::time::timeout(std::time::Duration::from_millis(50), meter.read(&mut buf)).await {
            read += n;
        }
        assert_eq!(exceeded.class(), Some(Class::Control));
        assert!((1000 * 17..1200 * 17).contains(&read), "{read}");
    }

    #[tokio::test]
    async fn resets_that_we_send_count() {
        let (_client, server) = tokio::io::duplex(1 << 20);
        let (mut meter, exceeded) = meter(server);
        let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 1];
        for _ in 0..200 {
            let (a, b) = reset.split_at(5);
            let n = meter.write_vectored(&[IoSlice::new(a), IoSlice::new(b)]).await.unwrap();
            meter.write_all(&reset[n..]).await.unwrap();
        }
        assert_eq!(exceeded.class(), None);
        meter.write_all(&reset).await.unwrap();
        assert_eq!(exceeded.class(), Some(Class::Resets));
    }
}
