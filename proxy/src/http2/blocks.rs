//! Header blocks that are larger than may be, by the frames that they come in: of trailers that are longer than it
//! reads,
//! `h2` hands out the first and says nothing of the rest, so that a gRPC status would be lost.
//!
//! `h2` is made to read three times what trailers may come to ([`most_read`]). What it cuts off is then larger as it came,
//! too, in Huffman's shortest codes: what is neither too large as it came nor as it was read is whole.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::frames::{Frame, FrameType};
use crate::message_limits::Limits;

/// Bytes that HPACK counts for each field beyond its own (RFC 7541 section 4.1).
const FIELD_OVERHEAD_BYTES: usize = 32;
/// Streams with trailers that are too large, of one connection: more than live at a time. What comes first is forgotten
/// first.
const MAX_LARGE_STREAMS: usize = 1024;

/// The most that trailers may come to, as HPACK counts.
fn of_trailers(limits: &Limits) -> usize {
    limits.trailer_bytes + limits.fields * FIELD_OVERHEAD_BYTES
}

/// The bytes that `h2` has to read of one block when heads may have so many bytes and fields: a quarter more than
/// allowed, so that what is a little too large is told apart from what is much too large.
pub(crate) fn most_read(limits: &Limits, bytes: usize, fields: usize) -> u32 {
    let head = bytes + fields * FIELD_OVERHEAD_BYTES;
    u32::try_from((head + head / 4).max(3 * of_trailers(limits))).unwrap_or(u32::MAX)
}

/// The budget of `h2` for small DATA frames that nobody has taken yet: whatever fits into windows of so many bytes
/// together, in messages of gRPC with nothing in them. `h2` alone would end the connection at some 2,000, which an
/// honest client sends before its backend has read the first. What they take in memory is counted (`held.rs`).
pub(crate) fn data_frame_budget(window: u32) -> usize {
    /// A message's head (gRPC over HTTP/2, "Length-Prefixed-Message").
    const SMALLEST: usize = 5;
    /// Bytes that `h2` counts for a frame of none.
    const OF_FRAME: usize = 256;
    window as usize / SMALLEST * OF_FRAME
}

/// The streams of one connection that brought a block which is too large for trailers.
#[derive(Debug)]
pub(crate) struct Blocks {
    most: usize,
    any: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Bytes of the block under way.
    length: usize,
    /// Whether it ends its stream, as trailers do, and heads of messages that have none.
    ends: bool,
    large: VecDeque<u32>,
}

impl Blocks {
    /// For trailers within these limits.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { most: of_trailers(limits), any: AtomicBool::new(false), inner: Mutex::default() }
    }

    /// The peer sent this.
    pub(crate) fn received(&self, frame: Frame) {
        let (FrameType::Headers | FrameType::Continuation) = frame.kind else { return };
        let length = frame.length as usize;
        // Nearly all are of one frame, and small.
        if frame.kind == FrameType::Headers && frame.end_headers && length <= self.most {
            return;
        }
        let mut inner = self.lock();
        if frame.kind == FrameType::Headers {
            (inner.length, inner.ends) = (0, frame.flag);
        }
        inner.length += length;
        if inner.ends && inner.length > self.most && !inner.large.contains(&frame.stream) {
            if inner.large.len() == MAX_LARGE_STREAMS {
                inner.large.pop_front();
            }
            inner.large.push_back(frame.stream);
            self.any.store(true, Relaxed);
        }
    }

    /// Whether this stream brought such trailers.
    pub(crate) fn is_large(&self, stream: u32) -> bool {
        self.any.load(Relaxed) && self.lock().large.contains(&stream)
    }

    /// The stream has ended.
    pub(crate) fn forget(&self, stream: u32) {
        if self.any.load(Relaxed) {
            let mut inner = self.lock();
            inner.large.retain(|large| *large != stream);
            self.any.store(!inner.large.is_empty(), Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message_limits::DEFAULT;

    #[test]
    fn large_ones_are_known_by_their_stream() {
        let blocks = Blocks::new(&DEFAULT);
        let most = u32::try_from(of_trailers(&DEFAULT)).unwrap();
        let frame = |kind, stream, length, end_headers| {
            blocks.received(Frame { kind, length, flag: kind == FrameType::Headers, end_headers, stream });
        };
        // Heads may be larger.
        let (kind, length) = (FrameType::Headers, most * 2);
        blocks.received(Frame { kind, length, flag: false, end_headers: true, stream: 11 });
        assert!(!blocks.is_large(11));
        frame(FrameType::Headers, 1, most, true);
        frame(FrameType::Headers, 3, most - 10, false);
        frame(FrameType::Continuation, 3, 10, true);
        frame(FrameType::Data, 5, most * 2, false);
        assert!([1, 3, 5].iter().all(|stream| !blocks.is_large(*stream)));
        frame(FrameType::Headers, 7, most + 1, true);
        frame(FrameType::Headers, 9, most, false);
        frame(FrameType::Continuation, 9, 1, true);
        assert!(blocks.is_large(7) && blocks.is_large(9) && !blocks.is_large(1));
        blocks.forget(7);
        assert!(!blocks.is_large(7) && blocks.is_large(9));
        (0..MAX_LARGE_STREAMS as u32).for_each(|n| frame(FrameType::Headers, 101 + 2 * n, most + 1, true));
        assert!(!blocks.is_large(9) && blocks.is_large(101) && !blocks.is_large(1));
    }

    #[test]
    fn what_is_cut_off_is_large_as_it_came() {
        for head_bytes in [1 << 10, 16 << 10, 64 << 10, 1 << 20] {
            let most = of_trailers(&DEFAULT);
            let read = most_read(&DEFAULT, head_bytes, DEFAULT.response_fields) as usize;
            // What was read is allowed, so the field that was cut off is the rest at least: no reference to HPACK's table,
            // and spelt out in codes of 5 bits.
            assert!(read - most > 4096 && (read - most) * 5 / 8 > most, "{head_bytes}");
        }
    }
}
