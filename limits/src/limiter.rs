//! One limit with its state: an atomic of its own when all requests share a bucket, places in a table otherwise.
//!
//! A limit that changes is another `Limiter` over the same buckets. Each bucket keeps its tokens, as far as they fit,
//! as of the moment of the change, and fills as the new limit says from then on. Only one of them decides at any
//! moment: those that hold a former one are led on to the one in force.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use crate::{
    bucket::{Decision, TokenBucket},
    key::Key,
    table::{Table, Value},
};

/// In place of a shared bucket's state: another limiter has it.
const MOVED: u64 = u64::MAX;
/// Longest that a full bucket's place is held because its burst was larger before.
const MOST_HELD_US: u64 = 600_000_000;

/// One limit. Its namespace tells its keys from those of other limits.
#[derive(Debug)]
pub struct Limiter {
    bucket: TokenBucket,
    namespace: u64,
    /// Which limiter wrote a state in the table.
    version: u32,
    /// The largest burst that it ever had. A bucket that is full by a smaller one is no new one: its place is held for
    /// as long as the rate takes to bring the rest, lest a limit that is cut and raised again fills used-up buckets.
    largest: u64,
    held_us: u64,
    /// Another one decides. Requests see it under the lock of their key's shard.
    superseded: AtomicBool,
    /// State of the one bucket, when there are no keys.
    shared: AtomicU64,
    /// What this limit was before it changed.
    former: Option<Former>,
    /// Of this one and its former ones, the one in force; none: there is but one. Locked for slow paths alone.
    in_force: Arc<Mutex<Weak<Limiter>>>,
}

/// A limit before a change.
#[derive(Debug)]
struct Former {
    bucket: TokenBucket,
    version: u32,
    /// When the change took effect.
    until_us: AtomicU64,
}

/// What was taken, so that it can be given back.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    key: Option<Key>,
    before: u64,
    after: u64,
    /// Whose ticks these are.
    version: u32,
}

/// A limiter that was superseded decides nothing.
struct Superseded;

impl Limiter {
    /// A limit whose buckets are full.
    pub fn new(bucket: TokenBucket, now_us: u64) -> Self {
        static NAMESPACES: AtomicU64 = AtomicU64::new(1);
        let namespace = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let shared = AtomicU64::new(storable(bucket.full(now_us)));
        let (version, largest, superseded) = (next_version(), bucket.burst(), AtomicBool::new(false));
        let in_force = Arc::default();
        Self { bucket, namespace, version, largest, held_us: 0, superseded, shared, former: None, in_force }
    }

    /// The same limit with another rate or burst, for [`Limiter::supersede`]: it decides nothing before.
    pub fn successor(&self, bucket: TokenBucket) -> Self {
        let former = Former { bucket: self.bucket.clone(), version: self.version, until_us: AtomicU64::new(0) };
        let shared = AtomicU64::new(storable(bucket.full(0)));
        let largest = self.largest.max(bucket.burst());
        let held_us = bucket.brings_us(largest - bucket.burst()).min(MOST_HELD_US);
        let (version, superseded, former) = (next_version(), AtomicBool::new(false), Some(former));
        let (namespace, in_force) = (self.namespace, Arc::clone(&self.in_force));
        Self { bucket, namespace, version, largest, held_us, superseded, shared, former, in_force }
    }

    /// Puts limits in force in place of those that they are successors of, together with the states of all keys. Costs
    /// one way through the table, however many change; requests pass meanwhile, and none is decided by both.
    pub fn supersede(table: &Table, changes: &[(Arc<Self>, Arc<Self>)], now_us: u64) {
        // One after the other: a state in the table is never older than the former limit.
        let _one = table.changes();
        let mut by_version = HashMap::with_hasher(foldhash::fast::RandomState::default());
        for (former, successor) in changes {
            if former.hand_over(successor, now_us) {
                by_version.insert(former.version, &**successor);
            }
        }
        // Whoever locks a shard after this has seen that the former one is superseded: none of its states follow.
        table.replace(|value| {
            let successor = by_version.get(&value.version)?;
            Some(successor.value(successor.state(Some(value), now_us), now_us))
        });
    }

    /// Its rate and burst.
    pub fn bucket(&self) -> &TokenBucket {
        &self.bucket
    }

    /// The namespace of its keys.
    pub fn namespace(&self) -> u64 {
        self.namespace
    }

    /// What a request would be told now; nothing is taken.
    pub fn peek(&self, table: &Table, key: Option<Key>, now_us: u64) -> Decision {
        self.in_force(|limiter| {
            let state = match key {
                None => limiter.load()?,
                Some(key) => table
                    .update(key, now_us, |value| (limiter.decides().map(|()| limiter.state(value, now_us)), None))?,
            };
            Ok(limiter.bucket.decide(state, now_us).0)
        })
    }

    /// Takes a token if there is one. All threads together never take more than there are.
    pub fn take(&self, table: &Table, key: Option<Key>, now_us: u64) -> (Decision, Option<Receipt>) {
        // Two functions: what the table's side has on its stack costs the other one nothing.
        match key {
            None => self.in_force(|limiter| limiter.take_shared(now_us)),
            Some(key) => self.take_of(table, key, now_us),
        }
    }

    /// Gives a token back, unless another request came in between: then it stays taken, for what it was worth may be
    /// used already.
    pub fn give_back(&self, table: &Table, receipt: Receipt, now_us: u64) {
        self.in_force(|limiter| {
            // What the one in force took is unknown to a former one.
            let Some((before, after)) = limiter.own(&receipt) else { return limiter.decides() };
            match receipt.key {
                None => match limiter.shared.compare_exchange(after, before, Ordering::Relaxed, Ordering::Relaxed) {
                    Err(MOVED) => Err(Superseded),
                    _ => Ok(()),
                },
                Some(key) => table.update(key, now_us, |value| {
                    let untouched = value.is_some() && limiter.state(value, now_us) == after;
                    let given = untouched.then(|| limiter.value(before, now_us));
                    let decides = limiter.decides();
                    let given = given.filter(|_| decides.is_ok());
                    (decides, given)
                }),
            }
        });
    }

    /// Has the one in force work: nearly always this one.
    #[inline(always)]
    fn in_force<R>(&self, work: impl Fn(&Self) -> Result<R, Superseded>) -> R {
        work(self).unwrap_or_else(|Superseded| self.led_on(work))
    }

    #[cold]
    fn led_on<R>(&self, work: impl Fn(&Self) -> Result<R, Superseded>) -> R {
        loop {
            // The lock is held until the state has moved.
            let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
            // A limit that nobody has any more admits as one that begins.
            let in_force = in_force.unwrap_or_else(|| Arc::new(Self::new(self.bucket.clone(), 0)));
            if let Ok(result) = work(&in_force) {
                return result;
            }
        }
    }

    /// Whether this was the one in force.
    fn hand_over(&self, successor: &Arc<Self>, now_us: u64) -> bool {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let is_former = successor.former.as_ref().filter(|former| former.version == self.version);
        let Some(former) = is_former.filter(|_| !self.superseded.load(Ordering::Relaxed)) else { return false };
        let state = self.shared.swap(MOVED, Ordering::Relaxed);
        former.until_us.store(now_us, Ordering::Relaxed);
        successor.shared.store(storable(successor.bucket.converted(&self.bucket, state, now_us)), Ordering::Relaxed);
        *in_force = Arc::downgrade(successor);
        self.superseded.store(true, Ordering::Release);
        true
    }

    fn decides(&self) -> Result<(), Superseded> {
        if self.superseded.load(Ordering::Acquire) { Err(Superseded) } else { Ok(()) }
    }

    fn load(&self) -> Result<u64, Superseded> {
        Some(self.shared.load(Ordering::Relaxed)).filter(|state| *state != MOVED).ok_or(Superseded)
    }

    #[inline(always)]
    fn take_shared(&self, now_us: u64) -> Result<(Decision, Option<Receipt>), Superseded> {
        let mut state = self.load()?;
        loop {
            let (decision, next) = self.bucket.decide(state, now_us);
            let Some(next) = next.map(storable) else { return Ok((decision, None)) };
            match self.shared.compare_exchange_weak(state, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let receipt = Receipt { key: None, before: state, after: next, version: self.version };
                    return Ok((decision, Some(receipt)));
                }
                Err(MOVED) => return Err(Superseded),
                Err(changed) => state = changed,
            }
        }
    }

    #[inline(never)]
    fn take_of(&self, table: &Table, key: Key, now_us: u64) -> (Decision, Option<Receipt>) {
        self.in_force(|limiter| table.update(key, now_us, |value| limiter.take_keyed(key, value, now_us)))
    }

    #[inline(always)]
    #[allow(clippy::type_complexity)] // what `Table::update` is given: the result, and what is kept
    fn take_keyed(
        &self,
        key: Key,
        value: Option<Value>,
        now_us: u64,
    ) -> (Result<(Decision, Option<Receipt>), Superseded>, Option<Value>) {
        if self.decides().is_err() {
            return (Err(Superseded), None);
        }
        let before = self.state(value, now_us);
        let (decision, next) = self.bucket.decide(before, now_us);
        let receipt = next.map(|after| Receipt { key: Some(key), before, after, version: self.version });
        (Ok((decision, receipt)), next.map(|state| self.value(state, now_us)))
    }

    fn value(&self, state: u64, now_us: u64) -> Value {
        let free_us = self.bucket.full_us(state, now_us).saturating_add(self.held_us);
        Value { state, free_us, version: self.version }
    }

    /// A stored state in this limit's ticks; nothing stored: full.
    fn state(&self, value: Option<Value>, now_us: u64) -> u64 {
        match value {
            Some(value) => self.converted(value.state, value.version),
            None => None,
        }
        // Of another version there are none: see `supersede`.
        .unwrap_or_else(|| self.bucket.full(now_us))
    }

    /// A receipt's states in this limit's ticks. What was taken before the change before the last one stays taken.
    fn own(&self, receipt: &Receipt) -> Option<(u64, u64)> {
        let own = |state| {
            let converted = self.converted(state, receipt.version)?;
            // As the state itself was stored.
            Some(if receipt.key.is_none() { storable(converted) } else { converted })
        };
        Some((own(receipt.before)?, own(receipt.after)?))
    }

    fn converted(&self, state: u64, version: u32) -> Option<u64> {
        if version == self.version {
            return Some(state);
        }
        let former = self.former.as_ref().filter(|former| former.version == version)?;
        Some(self.bucket.converted(&former.bucket, state, former.until_us.load(Ordering::Relaxed)))
    }
}

/// A shared bucket's state: a tick later than what has another meaning.
fn storable(state: u64) -> u64 {
    state.wrapping_add(u64::from(state == MOVED))
}

fn next_version() -> u32 {
    static VERSIONS: AtomicU32 = AtomicU32::new(1);
    VERSIONS.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
