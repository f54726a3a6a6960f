//! A connection that was let in: it ends when its certificate does, or when another gets its place.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::{keyed_limiter::KeyedPermit, slots::Slot};

/// The place of a connection among others, which its drop gives back.
pub trait Place: Send {
    /// Polls whether another connection got the place; else the task is woken when that happens.
    fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

impl<K: Ord + Clone + Send> Place for Slot<K> {
    fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Slot::poll_evicted(self, cx)
    }
}

/// One of all, and one of those that the same peer may have.
impl<K: Ord + Clone + Send> Place for (Slot<K>, KeyedPermit) {
    fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_evicted(cx)
    }
}

/// Another connection got the place of this one.
#[derive(Debug, thiserror::Error)]
#[error("others came, and who has this connection has most of the places")]
pub struct Evicted;

/// A connection, and what is known of its other side.
pub struct Connection<C> {
    tls: TlsStream<TcpStream>,
    caller: C,
    /// Reading fails from then on.
    until: Pin<Box<Sleep>>,
    place: Box<dyn Place>,
}

impl<C> Connection<C> {
    /// A connection that may stay for this long, in this place.
    pub(crate) fn new(tls: TlsStream<TcpStream>, caller: C, stay: Duration, place: Box<dyn Place>) -> Self {
        Self { tls, caller, until: Box::pin(tokio::time::sleep(stay)), place }
    }
}

impl<C: Clone + Send + Sync + 'static> Connected for Connection<C> {
    type ConnectInfo = C;

    fn connect_info(&self) -> C {
        self.caller.clone()
    }
}

impl<C: Unpin> AsyncRead for Connection<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the certificate, or the time to get one, ended",
            )));
        }
        if self.place.poll_evicted(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, Evicted)));
        }
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl<C: Unpin> AsyncWrite for Connection<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
