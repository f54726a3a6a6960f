//! What `h2` holds of one connection's streams, by the frames that pass: it does not say so itself.
//!
//! Of a request's body: what has come, and the exchange has not taken. Of a response's, and of heads before it: what
//! the exchange has given to `h2`, and has not left, because the client reads nothing. Of a head: what has come of one
//! that does not end. Each number is of one stream, so that it goes with it, whoever resets it.
//!
//! And how fast the client reads: by what has left of all bodies, since its streams share what it takes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use foldhash::fast::RandomState;

use super::frames::{Frame, FrameType};
use crate::{
    memory::{Charge, Holder, Kind},
    message_limits::Http2Limits,
};

/// Bytes that one byte of an unfinished head may come to: a field that the table has, in a map that has just grown.
const BYTES_PER_HEAD_BYTE: usize = 160;
/// Bytes that `h2` keeps of a DATA frame besides its own: its place in a list, and the handle of what it was read into.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 128;
/// Each is read into memory of its own, with its header: of 16 KiB and a little more the allocator makes 20.
pub(crate) const ROUNDING_DIVISOR: usize = 4;
/// Bytes that most peers take in one frame (`SETTINGS_MAX_FRAME_SIZE`, RFC 9113 section 6.5.2).
const MAX_FRAME_BYTES: usize = 16 << 10;
/// More than that `h2` reads of no head: it counts 32 bytes for each field.
const MAX_HEAD_BYTES: usize = 384 << 10;

/// The account of what `h2` holds of one connection.
#[derive(Debug)]
pub(super) struct Held {
    inner: Mutex<Inner>,
    /// Bytes of responses' bodies that have left.
    left: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    streams: HashMap<u32, Stream, RandomState>,
    /// More than there can be: `h2` takes no notice of some frames.
    most: usize,
    /// Bytes that one stream may have sent that were not taken.
    window: usize,
    /// Sum of what has come and of what has not left.
    sum: usize,
    bodies: Charge,
    head: Charge,
    /// Bytes of the head under way.
    head_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// Bytes of the request's body that came and were not taken,
    untaken: usize,
    /// Number of frames of what has come: of small ones, that is most of what they take.
    frames: usize,
    unsent: usize,
    /// Whether the response came by HTTP/2 itself.
    by_http2: bool,
    /// Heads that have not left, and their bytes.
    heads: (usize, usize),
    /// The request's body is wanted no more.
    dropped: bool,
}

impl Stream {
    fn held(&self) -> usize {
        let rounding = if self.by_http2 { self.unsent / ROUNDING_DIVISOR } else { 0 };
        self.untaken + self.frames * FRAME_OVERHEAD_BYTES + self.unsent + rounding + self.heads.1
    }
}

impl Held {
    /// Nothing yet.
    pub(super) fn new(holder: &Arc<Holder>, limits: Http2Limits) -> Arc<Self> {
        let [bodies, head] = [Kind::Bodies, Kind::Heads].map(|kind| Charge::new(holder, kind));
        let (most, window) = (limits.streams as usize * 2 + 64, limits.stream_window as usize);
        let streams = HashMap::default();
        let inner = Mutex::new(Inner { streams, most, window, sum: 0, bodies, head, head_bytes: 0 });
        Arc::new(Self { inner, left: AtomicU64::new(0) })
    }

    /// The client sent this.
    pub(super) fn received(&self, frame: Frame) {
        match frame.kind {
            // Most requests have no body, and a head of one frame: there is nothing to keep.
            FrameType::Headers if frame.flag && frame.end_headers => {}
            FrameType::Headers => {
                let mut inner = self.lock();
                if !frame.flag && inner.streams.len() < inner.most {
                    inner.streams.entry(frame.stream).or_default();
                }
                inner.head(frame);
            }
            FrameType::Continuation => self.lock().head(frame),
            FrameType::Data => {
                let mut inner = self.lock();
                let window = inner.window;
                inner.change(frame.stream, |stream| {
                    if !stream.dropped {
                        // Padding is given back by `h2` at once, and nobody says so.
                        stream.untaken = window.min(stream.untaken + frame.length as usize);
                        stream.frames = window.min(stream.frames + usize::from(frame.length > 0));
                    }
                });
            }
            FrameType::Reset => self.lock().remove(frame.stream),
            _ => {}
        }
    }

    /// We sent this.
    pub(super) fn sent(&self, frame: Frame) {
        match frame.kind {
            FrameType::Data => {
                let mut inner = self.lock();
                inner.change(frame.stream, |stream| {
                    stream.unsent = stream.unsent.saturating_sub(frame.length as usize + FRAME_OVERHEAD_BYTES);
                });
                inner.end(frame);
            }
            FrameType::Headers => {
                let mut inner = self.lock();
                inner.change(frame.stream, |stream| {
                    let (count, bytes) = stream.heads;
                    stream.heads = (count.saturating_sub(1), bytes - bytes / count.max(1));
                });
                // Trailers, or all of a response.
                inner.end(frame);
            }
            FrameType::Reset => self.lock().remove(frame.stream),
            _ => {}
        }
    }

    /// The exchange took a frame of a request's body, of so many bytes.
    pub(super) fn taken(&self, stream: u32, bytes: usize) {
        self.lock().change(stream, |stream| {
            stream.untaken = stream.untaken.saturating_sub(bytes);
            stream.frames = stream.frames.saturating_sub(1);
        });
    }

    /// Notes that the exchange wants no more of a stream's body, and answers.
    pub(super) fn unwanted(&self, stream: u32) {
        self.lock().change(stream, |stream| (stream.untaken, stream.frames) = (0, 0));
    }

    /// Notes that the exchange takes no more of a stream's body. Bytes that are left to be sent are still counted.
    pub(super) fn dropped(&self, stream: u32) {
        let mut inner = self.lock();
        inner.change(stream, |stream| (stream.untaken, stream.frames, stream.dropped) = (0, 0, true));
        if inner.streams.get(&stream).is_some_and(|stream| (stream.unsent, stream.heads.0) == (0, 0)) {
            inner.remove(stream);
        }
    }

    /// So much of a response is to be sent; `by_http2`: as it came in its frames.
    pub(super) fn queued(&self, stream: u32, bytes: usize, by_http2: bool) {
        let mut inner = self.lock();
        inner.streams.entry(stream).or_default();
        let frames = bytes.div_ceil(MAX_FRAME_BYTES);
        inner.change(stream, |stream| {
            stream.unsent += bytes + frames * FRAME_OVERHEAD_BYTES;
            stream.by_http2 |= by_http2;
        });
    }

    /// A head of so many bytes is to be sent.
    pub(super) fn queued_head(&self, stream: u32, bytes: usize) {
        let mut inner = self.lock();
        inner.streams.entry(stream).or_default();
        inner.change(stream, |stream| stream.heads = (stream.heads.0 + 1, stream.heads.1 + bytes));
    }

    /// Bytes of heads that wait to be sent.
    pub(super) fn heads(&self, stream: u32) -> usize {
        self.lock().streams.get(&stream).map_or(0, |stream| stream.heads.1)
    }

    /// So many bytes of bodies have left in all.
    pub(super) fn left(&self, bytes: u64) {
        self.left.store(bytes, Relaxed);
    }

    /// Bytes of bodies that have left.
    pub(super) fn read(&self) -> u64 {
        self.left.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn change(&mut self, stream: u32, change: impl FnOnce(&mut Stream)) {
        let Some(stream) = self.streams.get_mut(&stream) else { return };
        let before = stream.held();
        change(stream);
        self.sum = self.sum - before + stream.held();
        self.bodies.set(self.sum);
    }

    /// The response is over, if this is its last frame.
    fn end(&mut self, frame: Frame) {
        if frame.flag {
            self.change(frame.stream, |stream| (stream.unsent, stream.heads) = (0, (0, 0)));
            if self.streams.get(&frame.stream).is_some_and(|stream| stream.dropped) {
                self.remove(frame.stream);
            }
        }
    }

    fn remove(&mut self, stream: u32) {
        if let Some(stream) = self.streams.remove(&stream) {
            self.sum -= stream.held();
            self.bodies.set(self.sum);
        }
    }

    fn head(&mut self, frame: Frame) {
        self.head_bytes = if frame.end_headers { 0 } else { self.head_bytes + frame.length as usize };
        self.head.set((self.head_bytes * BYTES_PER_HEAD_BYTE).min(MAX_HEAD_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::testing::holder;

    fn frame(kind: FrameType, stream: u32, length: u32, flag: bool) -> Frame {
        Frame { kind, length, flag, end_headers: true, stream }
    }

    #[test]
    fn what_comes_and_is_not_taken_is_held() {
        let holder = holder();
        let held = Held::new(&holder, Http2Limits { stream_window: 1000, ..Http2Limits::default() });
        held.received(frame(FrameType::Headers, 1, 50, false));
        held.received(frame(FrameType::Headers, 3, 50, true));
        held.received(frame(FrameType::Data, 1, 300, false));
        // A stream that is not known, and one without a body.
        held.received(frame(FrameType::Data, 3, 300, false));
        held.received(frame(FrameType::Data, 5, 300, false));
        assert_eq!(holder.held(), 300 + FRAME_OVERHEAD_BYTES);
        held.taken(1, 100);
        assert_eq!(holder.held(), 200);
        held.received(frame(FrameType::Data, 1, 5000, true));
        assert_eq!(holder.held(), 1000 + FRAME_OVERHEAD_BYTES);
        held.unwanted(1);
        assert_eq!(holder.held(), 0);
        held.received(frame(FrameType::Data, 1, 20, true));
        held.received(frame(FrameType::Reset, 1, 4, false));
        assert_eq!(holder.held(), 0);
    }

    #[test]
    fn what_is_not_sent_yet_is_held_after_its_exchange() {
        let holder = holder();
        let held = Held::new(&holder, Http2Limits::default());
        held.queued(1, 700, false);
        held.queued(3, 200, false);
        held.queued(5, 100, false);
        held.sent(frame(FrameType::Data, 1, 300, false));
        held.dropped(1);
        held.dropped(5);
        assert_eq!(holder.held(), 700 + 2 * FRAME_OVERHEAD_BYTES);
        held.sent(frame(FrameType::Reset, 1, 4, false));
        assert_eq!(holder.held(), 300 + 2 * FRAME_OVERHEAD_BYTES);
        held.sent(frame(FrameType::Headers, 3, 10, true));
        held.sent(frame(FrameType::Data, 5, 100, true));
        assert_eq!(holder.held(), 0);
        held.dropped(3);
        assert!(held.lock().streams.is_empty());
    }

    #[test]
    fn a_head_that_does_not_end_is_held() {
        let holder = holder();
        let held = Held::new(&holder, Http2Limits::default());
        let part = |kind, length, end_headers| Frame { kind, length, flag: true, end_headers, stream: 1 };
        held.received(part(FrameType::Headers, 100, false));
        assert_eq!(holder.held(), 100 * BYTES_PER_HEAD_BYTE);
        held.received(part(FrameType::Continuation, 100_000, false));
        assert_eq!(holder.held(), MAX_HEAD_BYTES);
        held.received(part(FrameType::Continuation, 1, true));
        assert_eq!(holder.held(), 0);
    }

    proptest! {
        /// In whatever order things happen: once each stream is reset or over, nothing is held.
        #[test]
        fn nothing_is_left(steps in proptest::collection::vec((0..10u8, 0..6u32, 0..2000u32), 0..80), reset: bool) {
            let holder = holder();
            let held = Held::new(&holder, Http2Limits::default());
            for (step, n, length) in steps {
                let id = 2 * n + 1;
                match step {
                    0 => held.received(frame(FrameType::Headers, id, 10, false)),
                    1 => held.received(frame(FrameType::Data, id, length, false)),
                    2 => held.received(frame(FrameType::Reset, id, 4, false)),
                    3 => held.sent(frame(FrameType::Data, id, length, false)),
                    4 => held.sent(frame(FrameType::Data, id, length, true)),
                    5 => held.taken(id, length as usize),
                    6 => held.dropped(id),
                    7 => held.unwanted(id),
                    8 => held.queued_head(id, length as usize),
                    _ => held.queued(id, length as usize, length % 2 == 0),
                }
                let inner = held.lock();
                prop_assert_eq!(inner.sum, inner.streams.values().map(Stream::held).sum::<usize>());
                prop_assert_eq!(inner.sum, holder.held());
            }
            for id in (0..6).map(|n| 2 * n + 1) {
                if reset {
                    held.sent(frame(FrameType::Reset, id, 4, false));
                } else {
                    held.dropped(id);
                    held.sent(frame(FrameType::Headers, id, 4, true));
                }
            }
            prop_assert_eq!(holder.held(), 0);
            prop_assert!(held.lock().streams.is_empty());
        }
    }
}
