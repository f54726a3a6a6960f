//! Bytes that wait to be written. Small parts are put together, so that a head and a short body are one write; a large
//! one is written from where it was read to.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use tokio::io::AsyncWrite;

use super::{body::Framing, buffers, encode};

/// Longest part that is copied; beyond, a copy costs more than a second part of a write.
const MAX_COPIED_BYTES: usize = 8 << 10;
/// Bytes at which the buffer is full: they are written before more is asked for.
const FULL_BYTES: usize = 32 << 10;

/// Bytes on their way to one peer.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    /// Bytes to be written first, from `at` on; the buffer is lent.
    bytes: Vec<u8>,
    at: usize,
    /// A large part, written behind `bytes` from where it was read to.
    large: Bytes,
    /// Bytes to be written behind `large`: the end of its chunk.
    after: &'static [u8],
    written: u64,
}

impl WriteBuffer {
    /// Bytes that were written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes of memory that it holds, without the large part.
    pub(crate) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Bytes of the large part, which stands in what it was read into.
    pub(crate) fn large(&self) -> usize {
        self.large.len()
    }

    /// Nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len() && self.large.is_empty() && self.after.is_empty()
    }

    /// Whether there should be a write before anything is added.
    pub(crate) fn is_full(&self) -> bool {
        !self.large.is_empty() || !self.after.is_empty() || self.bytes.len() - self.at >= FULL_BYTES
    }

    /// Where heads and the like are written to. Not while it is full.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = buffers::take_out();
        }
        &mut self.bytes
    }

    /// Adds a part of a body. Not while it is full.
    pub(crate) fn push(&mut self, data: Bytes, framing: Framing) {
        if data.is_empty() {
            // An empty chunk would be the last.
            return;
        }
        let chunked = framing == Framing::Chunked;
        if chunked {
            encode::chunk_size(self.bytes(), data.len());
        }
        if data.len() <= MAX_COPIED_BYTES {
            let bytes = self.bytes();
            bytes.extend_from_slice(&data);
            if chunked {
                bytes.extend_from_slice(b"\r\n");
            }
        } else {
            self.large = data;
            self.after = if chunked { b"\r\n" } else { b"" };
        }
    }

    /// Ends a body.
    pub(crate) fn finish(&mut self, framing: Framing, trailers: Option<&HeaderMap>) {
        if framing != Framing::Chunked {
            return;
        }
        if self.large.is_empty() {
            encode::last_chunk(self.bytes(), trailers);
        } else if let Some(trailers) = trailers {
            // Rare: what waits becomes one part.
            let (large, after) = (std::mem::take(&mut self.large), std::mem::take(&mut self.after));
            let bytes = self.bytes();
            bytes.extend_from_slice(&large);
            bytes.extend_from_slice(after);
            encode::last_chunk(bytes, Some(trailers));
        } else {
            self.after = b"\r\n0\r\n\r\n";
        }
    }

    /// Forgets what waits.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        (self.at, self.large, self.after) = (0, Bytes::new(), b"");
    }

    /// Writes all of it.
    pub(crate) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let first = &self.bytes[self.at..];
            let written = if self.large.is_empty() && self.after.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, first))?
            } else {
                let parts = [IoSlice::new(first), IoSlice::new(&self.large), IoSlice::new(self.after)];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &parts))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the buffer back.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && self.bytes.capacity() > 0 {
            self.at = 0;
            buffers::give_out(std::mem::take(&mut self.bytes));
        }
    }

    fn advance(&mut self, written: usize) {
        self.written += written as u64;
        let first = written.min(self.bytes.len() - self.at);
        self.at += first;
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        }
        let second = (written - first).min(self.large.len());
        self.large.advance(second);
        if self.large.is_empty() && second > 0 {
            // The memory it stands in is wanted back.
            self.large = Bytes::new();
        }
        self.after = &self.after[written - first - second..];
    }
}

impl Drop for WriteBuffer {
    fn drop(&mut self) {
        self.clear();
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn parts_arrive_in_order_however_little_fits() {
        let large = Bytes::from(vec![b'x'; 20_000]);
        let mut trailers = HeaderMap::new();
        trailers.insert("t", http::HeaderValue::from_static("1"));
        for (framing, trailers) in
            [(Framing::Length(0), None), (Framing::Chunked, None), (Framing::Chunked, Some(&trailers))]
        {
            let (mut near, mut far) = tokio::io::duplex(7);
            let reader = tokio::spawn(async move {
                let mut got = String::new();
                far.read_to_string(&mut got).await.unwrap();
                got
            });
            let mut out = WriteBuffer::default();
            out.bytes().extend_from_slice(b"head ");
            out.push(Bytes::from_static(b"small"), framing);
            out.push(Bytes::new(), framing);
            out.push(large.clone(), framing);
            assert!(out.is_full());
            out.finish(framing, trailers);
            poll_fn(|cx| out.poll_write(&mut near, cx)).await.unwrap();
            assert!(out.is_empty());
            drop(near);
            let x = "x".repeat(20_000);
            let expect = match (framing, trailers) {
                (Framing::Chunked, None) => format!("head 5\r\nsmall\r\n4e20\r\n{x}\r\n0\r\n\r\n"),
                (Framing::Chunked, Some(_)) => format!("head 5\r\nsmall\r\n4e20\r\n{x}\r\n0\r\nt: 1\r\n\r\n"),
                _ => format!("head small{x}"),
            };
            assert_eq!(reader.await.unwrap(), expect);
        }
    }
}
