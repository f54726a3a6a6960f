//! HTTP/2 frames by hand, around the `h2` crate: that reads what comes, since HPACK needs its tables, and what is sent is
//! written here, since it would not send what is malformed.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc::UnboundedSender,
};

use super::Fields;

const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Largest frame that needs no setting.
const FRAME: usize = 16 << 10;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// A header block in as many frames as it takes.
pub(super) fn headers(stream: u32, fields: &Fields, end: bool) -> Vec<u8> {
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let mut parts = block.chunks(FRAME).peekable();
    let (mut kind, mut frames) = (HEADERS, vec![]);
    loop {
        let part = parts.next().unwrap_or_default();
        let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
        let ends = if end && kind == HEADERS { END_STREAM } else { 0 };
        frames.extend(frame(kind, last | ends, stream, part));
        kind = CONTINUATION;
        if last > 0 {
            return frames;
        }
    }
}

/// A field that no table keeps (RFC 7541 section 6.2.2).
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        // An integer with a prefix of 7 bits.
        match text.len() {
            short @ 0..127 => field.push(short as u8),
            long => {
                field.push(127);
                let mut rest = long - 127;
                while rest > 127 {
                    field.push((rest & 127) as u8 | 128);
                    rest >>= 7;
                }
                field.push(rest as u8);
            }
        }
        field.extend(text);
    }
    field
}

/// Header blocks that are sent in place of those that `h2` makes, in their order.
pub(super) type Blocks = Arc<Mutex<VecDeque<Fields>>>;

/// A client's connection whose header blocks are replaced.
pub(super) struct Rewriting<S> {
    io: S,
    blocks: Blocks,
    came: Vec<u8>,
    out: Vec<u8>,
    begun: bool,
}

impl<S> Rewriting<S> {
    pub(super) fn new(io: S, blocks: Blocks) -> Self {
        Self { io, blocks, came: vec![], out: vec![], begun: false }
    }

    fn rewrite(&mut self) {
        if !self.begun {
            if self.came.len() < PREFACE {
                return;
            }
            self.out.extend(self.came.drain(..PREFACE));
            self.begun = true;
        }
        while let [a, b, c, kind, flags, id @ ..] = &self.came[..]
            && id.len() >= 4
        {
            let end = 9 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if self.came.len() < end {
                return;
            }
            let stream = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
            let (kind, ends) = (*kind, flags & END_STREAM > 0);
            let whole: Vec<u8> = self.came.drain(..end).collect();
            match kind {
                HEADERS => {
                    let fields = self.blocks.lock().unwrap().pop_front().unwrap();
                    self.out.extend(headers(stream, &fields, ends));
                }
                CONTINUATION => {}
                _ => self.out.extend(whole),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewriting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewriting<S> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.came.extend(buf);
        self.rewrite();
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, out, .. } = &mut *self;
        while !out.is_empty() {
            let count = ready!(Pin::new(&mut *io).poll_write(cx, out))?;
            out.drain(..count);
        }
        Pin::new(io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// An upstream's connection: what `h2` writes goes into a queue, and so do frames by hand. Each of its polls writes whole
/// frames, since the queue is never full.
pub(super) struct Queued<R> {
    pub(super) io: R,
    pub(super) out: UnboundedSender<Vec<u8>>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Queued<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<R: Unpin> AsyncWrite for Queued<R> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.out.send(buf.to_vec());
        Poll::Ready(sent.map(|()| buf.len()).map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
