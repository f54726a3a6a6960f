//! What heads cost beyond the bytes that they came as. HPACK lets two bytes stand for 4 KiB, again and again (RFC 7541
//! section 7.3): what is checked, routed, counted and passed on for each byte on the wire has to be bounded.
//!
//! A head may come to what an honest encoder can make of its bytes: the dynamic table, in which it refers to each entry
//! once, and what it spells out. So who sends a large cookie by its index with each of 10,000 requests a second is
//! never short of anything. What goes beyond that is taken from tokens, which come back with time alone.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use http::HeaderMap;

/// A colon, a space and a line's end: as HTTP/1.1 has a field.
pub(super) const FIELD_LINE_BYTES: usize = 4;
/// Bytes that every head may come to: HPACK's table holds 4 KiB (`SETTINGS_HEADER_TABLE_SIZE`, which we leave at its
/// default), and names that are referred to for values that are spelt out are less than as much again.
const BYTES_PER_HEAD: u64 = 8 << 10;
/// Bytes for each on the wire: of Huffman's codes the shortest has 5 bits, so that 8 bits hold 1.6 characters.
const BYTES_PER_WIRE_BYTE: u64 = 2;
/// Bytes beyond that which may come at once: 4 of the largest heads that are allowed by default.
const BURST_BYTES: u64 = 256 << 10;
/// Bytes beyond that which come back in a second.
const BYTES_PER_SECOND: u64 = 64 << 10;

/// The budget of one connection. It is shared by its streams, all of which run in one thread.
#[derive(Debug)]
pub(crate) struct Heads {
    /// Bytes of heads on the wire that nothing was made of yet.
    wire: AtomicU64,
    tokens: AtomicU64,
}

impl Default for Heads {
    fn default() -> Self {
        Self { wire: AtomicU64::new(0), tokens: AtomicU64::new(BURST_BYTES) }
    }
}

impl Heads {
    /// So many bytes of a head came.
    pub(super) fn received(&self, bytes: u32) {
        self.wire.fetch_add(u64::from(bytes), Relaxed);
    }

    /// Time passed.
    pub(super) fn refill(&self, passed: Duration) {
        let more = (passed.as_secs_f64() * BYTES_PER_SECOND as f64) as u64;
        self.tokens.store(self.tokens.load(Relaxed).saturating_add(more).min(BURST_BYTES), Relaxed);
    }

    /// A head, or trailers, came to so many bytes. Whether that is within the budget.
    pub(crate) fn spend(&self, bytes: usize) -> bool {
        let beyond = (bytes as u64).saturating_sub(BYTES_PER_HEAD);
        let wire = self.wire.load(Relaxed);
        let by_wire = beyond.min(wire.saturating_mul(BYTES_PER_WIRE_BYTE));
        self.wire.store(wire - by_wire.div_ceil(BYTES_PER_WIRE_BYTE), Relaxed);
        match self.tokens.load(Relaxed).checked_sub(beyond - by_wire) {
            Some(left) => {
                self.tokens.store(left, Relaxed);
                true
            }
            None => false,
        }
    }
}

/// Bytes of fields, as HTTP/1.1 would have them.
pub(crate) fn size(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_LINE_BYTES).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `each` head of so many bytes on the wire, a thousand in a second: after how many the budget is exceeded.
    fn exceeded(wire: u32, bytes: usize) -> Option<u32> {
        let heads = Heads::default();
        (1..=20_000).find(|_| {
            heads.refill(Duration::from_millis(1));
            heads.received(wire);
            !heads.spend(bytes)
        })
    }

    #[test]
    fn what_an_honest_encoder_can_make_is_free() {
        // By index: a cookie that fills the table, with a request of a few bytes; names spelt out by index beside it.
        assert_eq!(exceeded(14, 4 << 10), None);
        assert_eq!(exceeded(300, 7 << 10), None);
        // Spelt out, in the shortest of Huffman's codes, however large.
        assert_eq!(exceeded(40 << 10, 64 << 10), None);
        assert_eq!(exceeded(60 << 10, 64 << 10), None);
    }

    #[test]
    fn what_none_can_make_is_bounded() {
        // An entry of 4 KiB that is referred to 15 times.
        assert_eq!(exceeded(30, 60 << 10), Some(5));
        assert_eq!(exceeded(14, 10 << 10), Some(135));
        // What was saved up on the wire serves for as much, once.
        let heads = Heads::default();
        heads.received(1 << 20);
        assert_eq!((0..).take_while(|_| heads.spend(64 << 10)).count(), 41);
    }

    #[test]
    fn all_at_once_or_one_after_the_other_is_the_same() {
        // The connection reads 1000 heads before its streams look at the first.
        let heads = Heads::default();
        (0..1000).for_each(|_| heads.received(40 << 10));
        assert!((0..1000).all(|_| heads.spend(64 << 10)));
    }
}
