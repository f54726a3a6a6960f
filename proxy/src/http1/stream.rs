//! The transport of HTTP/1.1: a TCP connection, with or without TLS.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::connection::Conn;

/// A client's connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether its end is told by a message of its own.
    const FAREWELL: bool;

    /// Pending when a read would be, for all that is known without trying.
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Whether bytes wait in the kernel that the runtime has not heard of.
    fn has_unseen(&self) -> bool;

    /// Whether the connection is broken, as the kernel has it; for when nothing is read that would show it.
    fn has_failed(&self) -> bool;

    /// Bytes that were written to the connection itself: with TLS, more than that was given may wait.
    fn written(&self) -> u64 {
        0
    }

    /// Whether writes are tried even if there is no room, for all that is known: the kernel tells of some when a third
    /// of its buffer is free, which is a long time to a slow client.
    fn insist(&mut self, _: bool) {}

    /// Makes the close a reset: where a body ends with its connection, nothing else tells a broken one from a whole
    /// one.
    fn close_by_reset(&self);
}

impl Stream for TcpStream {
    const FAREWELL: bool = false;

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error shows when it is read.
        self.poll_read_ready(cx).map(drop)
    }

    fn has_unseen(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        SockRef::from(self).peek(&mut byte).is_ok_and(|waiting| waiting > 0)
    }

    fn has_failed(&self) -> bool {
        !matches!(SockRef::from(self).take_error(), Ok(None))
    }

    fn close_by_reset(&self) {
        // If it fails, the connection is gone already.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

/// A client's connection, as it was accepted. Ended for what it holds, it is closed by a reset: what the kernel has for
/// a client that reads nothing is freed with it.
pub(crate) struct Accepted {
    io: TcpStream,
    conn: Arc<Conn>,
    written: u64,
    insists: bool,
}

impl Accepted {
    pub(crate) fn new(io: TcpStream, conn: Arc<Conn>) -> Self {
        Self { io, conn, written: 0, insists: false }
    }

    fn insists(&self) -> bool {
        self.insists || self.conn.insists()
    }

    fn note(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.written += *bytes as u64;
        }
        written
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if self.conn.holder.is_ended() {
            self.close_by_reset();
        }
    }
}

impl Stream for Accepted {
    const FAREWELL: bool = false;

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.io.poll_readable(cx)
    }

    fn has_unseen(&self) -> bool {
        self.io.has_unseen()
    }

    fn has_failed(&self) -> bool {
        self.io.has_failed()
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn insist(&mut self, insists: bool) {
        self.insists = insists;
    }

    fn close_by_reset(&self) {
        self.io.close_by_reset();
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if written.is_pending()
            && self.insists()
            && let Ok(bytes) = SockRef::from(&self.io).send(buf)
        {
            return self.note(Poll::Ready(Ok(bytes)));
        }
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.insists()
            && let Some(first) = bufs.iter().find(|buf| !buf.is_empty())
        {
            return self.poll_write(cx, first);
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<S: Stream> Stream for TlsStream<S> {
    const FAREWELL: bool = true;

    fn has_unseen(&self) -> bool {
        self.get_ref().0.has_unseen()
    }

    fn has_failed(&self) -> bool {
        self.get_ref().0.has_failed()
    }

    fn written(&self) -> u64 {
        self.get_ref().0.written()
    }

    fn insist(&mut self, insists: bool) {
        self.get_mut().0.insist(insists);
    }

    fn close_by_reset(&self) {
        self.get_ref().0.close_by_reset();
    }
}

/// A stream of which some bytes were read before.
#[derive(Debug)]
pub(crate) struct Prefixed<S> {
    prefix: Bytes,
    stream: S,
}

impl<S> Prefixed<S> {
    pub(crate) fn new(prefix: Bytes, stream: S) -> Self {
        Self { prefix, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let now = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..now]);
        self.prefix.advance(now);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
