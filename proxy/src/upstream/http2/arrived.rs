//! What has come of responses on one connection and was not taken, by the frames that pass: `h2` does not say so
//! itself.
//!
//! It is charged to whoever asked for it, at once: an upstream may send faster than the streams' tasks have their
//! turns.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;

use crate::{
    http2::{
        frames::{Frame, FrameType},
        held::{FRAME_OVERHEAD_BYTES, ROUNDING_DIVISOR},
    },
    memory::Charge,
};

/// Bytes that an upstream may send of one response before it is read.
pub(super) const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// Bytes of responses that have come and were not taken, by stream.
#[derive(Debug, Default)]
pub(super) struct Arrived(Mutex<HashMap<u32, Stream, RandomState>>);

#[derive(Debug)]
struct Stream {
    charge: Charge,
    bytes: usize,
    frames: usize,
}

impl Stream {
    fn change(&mut self, bytes: usize, frames: usize) {
        (self.bytes, self.frames) = (if frames == 0 { 0 } else { bytes }, frames);
        self.charge.set(self.bytes + self.bytes / ROUNDING_DIVISOR + frames * FRAME_OVERHEAD_BYTES);
    }
}

impl Arrived {
    /// A response is awaited; nothing is charged yet.
    pub(super) fn begin(&self, stream: u32, charge: Charge) {
        self.lock().insert(stream, Stream { charge, bytes: 0, frames: 0 });
    }

    /// The upstream sent this.
    pub(super) fn received(&self, frame: Frame) {
        if frame.kind == FrameType::Data
            && frame.length > 0
            && let Some(stream) = self.lock().get_mut(&frame.stream)
        {
            // What is padding is told by nobody; there is no more than the window has room for.
            let window = STREAM_WINDOW_BYTES as usize;
            stream.change((stream.bytes + frame.length as usize).min(window), (stream.frames + 1).min(window));
        }
    }

    /// A frame of so many bytes was taken.
    pub(super) fn taken(&self, stream: u32, bytes: usize) {
        if bytes > 0
            && let Some(stream) = self.lock().get_mut(&stream)
        {
            stream.change(stream.bytes.saturating_sub(bytes), stream.frames.saturating_sub(1));
        }
    }

    /// Nothing of what has come is left; what was not taken was padding.
    pub(super) fn drained(&self, stream: u32) {
        if let Some(stream) = self.lock().get_mut(&stream)
            && stream.frames > 0
        {
            stream.change(0, 0);
        }
    }

    /// Ends the account of a response: it is awaited no more.
    pub(super) fn end(&self, stream: u32) {
        self.lock().remove(&stream);
    }

    /// Whether nothing more is to be read for now.
    pub(super) fn is_held_back(&self) -> bool {
        self.lock().values().next().is_some_and(|stream| stream.charge.is_held_back())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Stream, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Kind, testing::holder};

    /// Padding (RFC 9113 section 6.1) comes and is never taken: it is charged no longer than there is something to
    /// take.
    #[test]
    fn padding_is_not_charged_for_ever() {
        let holder = holder();
        let arrived = Arrived::default();
        arrived.begin(1, Charge::new(&holder, Kind::Bodies));
        for _ in 0..10_000 {
            let (kind, stream) = (FrameType::Data, 1);
            arrived.received(Frame { kind, length: 256, flag: false, end_headers: false, stream });
            arrived.taken(1, 0);
        }
        assert!(holder.held() >= STREAM_WINDOW_BYTES as usize);
        arrived.drained(1);
        assert_eq!(holder.held(), 0);
    }

    #[test]
    fn what_has_come_is_charged_until_it_is_taken() {
        let holder = holder();
        let arrived = Arrived::default();
        let data = |stream, length| {
            arrived.received(Frame { kind: FrameType::Data, length, flag: false, end_headers: false, stream });
        };
        arrived.begin(1, Charge::new(&holder, Kind::Bodies));
        data(1, 1000);
        data(1, 0);
        data(3, 1000);
        assert_eq!(holder.held(), 1250 + FRAME_OVERHEAD_BYTES);
        data(1, 1000);
        // With padding, of which nobody says so.
        arrived.taken(1, 900);
        arrived.taken(1, 0);
        assert_eq!(holder.held(), 1375 + FRAME_OVERHEAD_BYTES);
        arrived.taken(1, 900);
        assert_eq!(holder.held(), 0);
        data(1, 1000);
        arrived.end(1);
        assert_eq!(holder.held(), 0);
    }
}
