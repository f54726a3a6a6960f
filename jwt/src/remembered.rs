//! A bounded memory of tokens that were verified: what was made of them, until they end.
//!
//! A token is found by the SHA-256 of itself and of all that it was verified by, so that what another policy or other keys
//! made of it is never found. What is beyond the bound is given up: of a few entries, chosen at random, first one that has
//! ended, else one of the namespace that holds most in that shard, and among these the one that was not asked for longest. So who
//! floods the memory with tokens of its own gives up its own.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use aws_lc_rs::digest::{Context, SHA256};

/// Shards, each with a lock.
const SHARDS: usize = 16;
/// Entries that are looked at for one to give up.
const LOOKED_AT: usize = 8;
/// Bytes of an entry besides its value: key, index, and the shared allocation's head.
const ENTRY_BYTES: usize = 160;

/// The identity of a token and of all that it is verified by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenId([u8; 32]);

/// What was made of verified tokens.
pub struct Remembered<T> {
    shards: Box<[Mutex<Shard<T>>]>,
    /// Bytes of a shard, at most.
    shard_bytes: usize,
    given_up: AtomicU64,
}

struct Shard<T> {
    entries: Vec<Entry<T>>,
    index: HashMap<TokenId, usize>,
    /// Bytes of each namespace.
    held: HashMap<u64, usize>,
    bytes: usize,
    /// Number of questions, and the state of a generator of random numbers (both only need to be different each time).
    asked: u64,
}

struct Entry<T> {
    id: TokenId,
    namespace: u64,
    until_ms: u64,
    bytes: usize,
    /// Number of the question that asked for it last.
    used: u64,
    value: Arc<T>,
}

impl TokenId {
    /// The identity of a token that is verified by what has this fingerprint: policy and keys, or their hash.
    pub fn new(fingerprint: &[u8], token: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        // No fingerprint goes on as a token.
        context.update(&(fingerprint.len() as u64).to_le_bytes());
        context.update(fingerprint);
        context.update(token);
        let mut id = [0; 32];
        id.copy_from_slice(context.finish().as_ref());
        Self(id)
    }
}

impl<T> Remembered<T> {
    /// A memory of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, shard_bytes: bytes / SHARDS, given_up: AtomicU64::new(0) }
    }

    /// The value for a token, unless it has ended.
    pub fn get(&self, id: TokenId, now_ms: u64) -> Option<Arc<T>> {
        let mut shard = self.shard(id);
        let at = *shard.index.get(&id)?;
        if shard.entries[at].until_ms <= now_ms {
            shard.remove(at);
            return None;
        }
        shard.asked += 1;
        let asked = shard.asked;
        let entry = &mut shard.entries[at];
        entry.used = asked;
        Some(Arc::clone(&entry.value))
    }

    /// Keeps a value of so many bytes for a token of a namespace (its number, or hash), which ends at `until_ms`.
    pub fn insert(&self, id: TokenId, namespace: u64, value: (Arc<T>, usize), until_ms: u64, now_ms: u64) {
        let (value, bytes) = value;
        let bytes = bytes + ENTRY_BYTES;
        // One that takes a large part of a shard is not worth what it displaces.
        if until_ms <= now_ms || bytes > self.shard_bytes / LOOKED_AT {
            return;
        }
        let mut shard = self.shard(id);
        if let Some(at) = shard.index.get(&id).copied() {
            // Two requests brought it at once.
            shard.remove(at);
        }
        while shard.bytes + bytes > self.shard_bytes
            && let Some(at) = shard.least(now_ms)
        {
            if shard.entries[at].until_ms > now_ms {
                self.given_up.fetch_add(1, Relaxed);
            }
            shard.remove(at);
        }
        shard.asked += 1;
        let used = shard.asked;
        shard.add(Entry { id, namespace, until_ms, bytes, used, value });
    }

    /// The number of entries, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        let sizes = self.shards.iter().map(lock).map(|shard| (shard.entries.len(), shard.bytes));
        sizes.fold((0, 0), |(entries, bytes), (more, of)| (entries + more, bytes + of))
    }

    /// Entries that were given up before they ended, to stay within the bound.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Relaxed)
    }

    fn shard(&self, id: TokenId) -> MutexGuard<'_, Shard<T>> {
        lock(&self.shards[usize::from(id.0[0]) % SHARDS])
    }
}

fn lock<T>(shard: &Mutex<Shard<T>>) -> MutexGuard<'_, Shard<T>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Self { entries: vec![], index: HashMap::new(), held: HashMap::new(), bytes: 0, asked: 0 }
    }
}

impl<T> Shard<T> {
    fn add(&mut self, entry: Entry<T>) {
        self.bytes += entry.bytes;
        *self.held.entry(entry.namespace).or_default() += entry.bytes;
        self.index.insert(entry.id, self.entries.len());
        self.entries.push(entry);
    }

    fn remove(&mut self, at: usize) {
        let entry = self.entries.swap_remove(at);
        self.index.remove(&entry.id);
        if let Some(moved) = self.entries.get(at) {
            self.index.insert(moved.id, at);
        }
        self.bytes -= entry.bytes;
        if let Some(held) = self.held.get_mut(&entry.namespace) {
            *held -= entry.bytes;
            if *held == 0 {
                self.held.remove(&entry.namespace);
            }
        }
    }

    /// The entry that is worth least, of some.
    fn least(&mut self, now_ms: u64) -> Option<usize> {
        let random = [(); LOOKED_AT].map(|()| {
            self.asked += 1;
            mix(self.asked)
        });
        let length = self.entries.len() as u64;
        random.into_iter().filter_map(|number| Some(number.checked_rem(length)? as usize)).min_by_key(|at| {
            let entry = &self.entries[*at];
            let held = self.held.get(&entry.namespace).copied().unwrap_or_default();
            (entry.until_ms > now_ms, Reverse(held), entry.used)
        })
    }
}

/// Splitmix64's output function: as good as random for numbers in a row.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 1 << 20;

    fn id(token: impl std::fmt::Display) -> TokenId {
        TokenId::new(b"policy", token.to_string().as_bytes())
    }

    #[test]
    fn a_token_is_remembered_until_it_ends_and_for_what_it_was_verified_by() {
        let memory = Remembered::new(BYTES);
        memory.insert(id("a"), 1, (Arc::new(7), 100), 5_000, 1_000);
        assert_eq!(memory.get(id("a"), 4_999).as_deref(), Some(&7));
        assert_eq!(memory.get(id("b"), 1_000), None);
        assert_eq!(memory.get(TokenId::new(b"other", b"a"), 1_000), None, "another policy");
        assert_eq!(memory.get(id("a"), 5_000), None);
        assert_eq!(memory.size(), (0, 0), "what has ended is forgotten");
        memory.insert(id("a"), 1, (Arc::new(7), 100), 5_000, 5_000);
        assert_eq!(memory.size(), (0, 0), "it had ended before");
        for value in [8, 9] {
            memory.insert(id("a"), 1, (Arc::new(value), 100), 9_000, 5_000);
        }
        assert_eq!(memory.get(id("a"), 5_000).as_deref(), Some(&9));
        assert_eq!(memory.size(), (1, 100 + ENTRY_BYTES));
    }

    #[test]
    fn a_flood_stays_within_the_bound_and_displaces_itself() {
        let memory = Remembered::new(BYTES);
        // A neighbour that holds a tenth.
        let quiet: Vec<TokenId> = (0..BYTES / 10 / (1_000 + ENTRY_BYTES)).map(|n| id(format!("q{n}"))).collect();
        for id in &quiet {
            memory.insert(*id, 1, (Arc::new(0), 1_000), u64::MAX, 0);
        }
        for n in 0..20_000 {
            memory.insert(id(n), 2, (Arc::new(0), 1_000), u64::MAX, 0);
            assert!(n % 1_000 > 0 || memory.size().1 <= BYTES);
        }
        assert!(memory.given_up() > 18_000, "{}", memory.given_up());
        let left = quiet.iter().filter(|id| memory.get(**id, 0).is_some()).count();
        // All eight entries that are looked at are the neighbour's once in 10^8 times.
        assert_eq!(left, quiet.len());
    }

    #[test]
    fn what_has_ended_goes_first_and_what_was_asked_for_stays() {
        let memory = Remembered::new(BYTES);
        let fill = |from: u64, until: u64| {
            for n in from..from + 2_000 {
                memory.insert(id(n), 1, (Arc::new(0), 1_000), until, 0);
                memory.get(id(0), 0);
            }
        };
        memory.insert(id(0), 1, (Arc::new(0), 1_000), u64::MAX, 0);
        fill(1, 100);
        assert!(memory.get(id(0), 0).is_some(), "asked for again and again");
        let before = memory.given_up();
        for n in 10_000..10_100 {
            memory.insert(id(n), 1, (Arc::new(0), 1_000), u64::MAX, 100);
        }
        assert_eq!(memory.given_up(), before);
    }

    #[test]
    fn a_value_that_is_too_large_is_not_kept() {
        let memory = Remembered::new(BYTES);
        memory.insert(id("a"), 1, (Arc::new(0), BYTES / SHARDS / 2), u64::MAX, 0);
        assert_eq!(memory.size(), (0, 0));
    }
}
