//! Memory that connections borrow while they have something to read or write. An idle connection holds none of it, and
//! a busy worker works in the few buffers that are still in its caches. Each thread has its own.

use std::{cell::RefCell, mem};

use bytes::BytesMut;

use super::lines::HeaderLines;

/// Bytes that are read at once from a client: most heads are far smaller, and uploads are no benchmark of anybody's.
const CLIENT_READ_BYTES: usize = 16 << 10;
/// Bytes that are read at once from an upstream. The pages that are not written to cost nothing.
const UPSTREAM_READ_BYTES: usize = 72 << 10;
/// Capacity of a writer's buffer before it grows.
const WRITE_BYTES: usize = 4 << 10;
/// Capacity beyond which a writer's buffer is not kept.
const MAX_KEPT_WRITE_BYTES: usize = 64 << 10;
/// Most buffers of each kind that a thread keeps.
const MAX_KEPT: usize = 64;

/// The peer whose bytes a buffer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A client.
    Client,
    /// An upstream.
    Upstream,
}

/// A buffer to read into, and the lines that were found in it. It holds memory from the first use to its release.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    pub(crate) bytes: BytesMut,
    pub(crate) lines: HeaderLines,
    peer: Peer,
}

#[derive(Default)]
struct Kept {
    client: Vec<(BytesMut, HeaderLines)>,
    upstream: Vec<(BytesMut, HeaderLines)>,
    out: Vec<Vec<u8>>,
}

thread_local! {
    static KEPT_HERE: RefCell<Kept> = RefCell::default();
}

impl ReadBuffer {
    /// Without memory yet.
    pub(crate) fn new(peer: Peer) -> Self {
        Self { bytes: BytesMut::new(), lines: HeaderLines::default(), peer }
    }

    /// Makes room to read into. Bytes that were taken off the front make room once nothing refers to them.
    pub(crate) fn make_room(&mut self) {
        let wanted = self.peer.capacity();
        if self.is_released()
            && let Some((bytes, lines)) = kept(|kept| kept.read(self.peer).pop()).flatten()
        {
            (self.bytes, self.lines) = (bytes, lines);
            self.lines.reset(true);
        } else if self.bytes.capacity() - self.bytes.len() < wanted / 4 {
            self.bytes.reserve(wanted);
        }
    }

    /// Whether it holds no memory.
    pub(crate) fn is_released(&self) -> bool {
        self.bytes.capacity() == 0
    }

    /// Bytes of memory that it holds. What was taken off the front is part of the same.
    pub(crate) fn held(&self) -> usize {
        if self.is_released() { 0 } else { self.bytes.capacity().max(self.peer.capacity()) }
    }

    /// Bytes of memory that it holds when a part that was taken off it is still there.
    pub(crate) fn held_by_parts(&self) -> usize {
        self.bytes.capacity().max(self.peer.capacity())
    }

    /// Gives the memory back, with what is in it. If something still refers to it, it is not kept.
    pub(crate) fn release(&mut self) {
        if self.is_released() {
            return;
        }
        let (mut bytes, lines) = (mem::take(&mut self.bytes), mem::take(&mut self.lines));
        bytes.clear();
        let wanted = self.peer.capacity();
        if bytes.try_reclaim(wanted) && bytes.capacity() < wanted * 2 {
            kept(|kept| keep(kept.read(self.peer), (bytes, lines)));
        }
    }

    /// Gives the memory back unless something still refers to it: then there is room in what is left of it.
    pub(crate) fn release_unshared(&mut self) {
        if self.bytes.try_reclaim(self.peer.capacity()) {
            self.release();
        }
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.release();
    }
}

/// An empty buffer to write from.
pub(super) fn take_out() -> Vec<u8> {
    kept(|kept| kept.out.pop()).flatten().unwrap_or_else(|| Vec::with_capacity(WRITE_BYTES))
}

/// Gives one back.
pub(super) fn give_out(mut buffer: Vec<u8>) {
    buffer.clear();
    if buffer.capacity() <= MAX_KEPT_WRITE_BYTES {
        kept(|kept| keep(&mut kept.out, buffer));
    }
}

/// The buffers that this thread keeps; `None` when the thread is about to end.
fn kept<T>(use_it: impl FnOnce(&mut Kept) -> T) -> Option<T> {
    KEPT_HERE.try_with(|kept| use_it(&mut kept.borrow_mut())).ok()
}

fn keep<T>(list: &mut Vec<T>, item: T) {
    if list.len() < MAX_KEPT {
        list.push(item);
    }
}

impl Kept {
    fn read(&mut self, peer: Peer) -> &mut Vec<(BytesMut, HeaderLines)> {
        match peer {
            Peer::Client => &mut self.client,
            Peer::Upstream => &mut self.upstream,
        }
    }
}

impl Peer {
    fn capacity(self) -> usize {
        match self {
            Peer::Client => CLIENT_READ_BYTES,
            Peer::Upstream => UPSTREAM_READ_BYTES,
        }
    }
}
