//! One limit with its state: an atomic of its own when all requests share a bucket, places in a table otherwise.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{
    bucket::{Decision, TokenBucket},
    key::Key,
    table::{Table, Value},
};

/// One limit. Its namespace tells its keys from those of other limits.
#[derive(Debug)]
pub struct Limiter {
    bucket: TokenBucket,
    namespace: u64,
    /// States in the table that another rate wrote are taken over by the time at which their bucket is full.
    version: u32,
    /// State of the one bucket, when there are no keys.
    shared: AtomicU64,
}

/// What was taken, so that it can be given back.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    key: Option<Key>,
    before: Option<Value>,
    after: u64,
}

impl Limiter {
    /// A limit whose buckets are full.
    pub fn new(bucket: TokenBucket, now_us: u64) -> Self {
        static NAMESPACES: AtomicU64 = AtomicU64::new(1);
        let namespace = NAMESPACES.fetch_add(1, Ordering::Relaxed);
        let shared = AtomicU64::new(bucket.full(now_us));
        Self { bucket, namespace, version: next_version(), shared }
    }

    /// The same limit with another rate: buckets go on as full or empty as they are, in time.
    pub fn with_rate(&self, bucket: TokenBucket, now_us: u64) -> Self {
        let full_us = self.bucket.full_us(self.shared.load(Ordering::Relaxed), now_us);
        let shared = AtomicU64::new(bucket.state(full_us, now_us));
        Self { bucket, namespace: self.namespace, version: next_version(), shared }
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
        let state = match key {
            None => self.shared.load(Ordering::Relaxed),
            Some(key) => table.update(key, now_us, |value| (self.state(value, now_us), None)),
        };
        self.bucket.decide(state, now_us).0
    }

    /// Takes a token if there is one. All threads together never take more than there are.
    pub fn take(&self, table: &Table, key: Option<Key>, now_us: u64) -> (Decision, Option<Receipt>) {
        match key {
            None => self.take_shared(now_us),
            Some(key) => table.update(key, now_us, |value| self.take_keyed(key, value, now_us)),
        }
    }

    /// Gives a token back, unless another request came in between: then it stays taken, for what it was worth may be
    /// used already.
    pub fn give_back(&self, table: &Table, receipt: Receipt, now_us: u64) {
        let before = self.state(receipt.before, now_us);
        match receipt.key {
            None => {
                let _ = self.shared.compare_exchange(receipt.after, before, Ordering::Relaxed, Ordering::Relaxed);
            }
            Some(key) => table.update(key, now_us, |value| match value {
                Some(value) if value.version == self.version && value.state == receipt.after => {
                    ((), Some(self.value(before, now_us)))
                }
                _ => ((), None),
            }),
        }
    }

    fn take_shared(&self, now_us: u64) -> (Decision, Option<Receipt>) {
        let mut state = self.shared.load(Ordering::Relaxed);
        loop {
            let (decision, next) = self.bucket.decide(state, now_us);
            let Some(next) = next else { return (decision, None) };
            match self.shared.compare_exchange_weak(state, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let before = Some(Value { state, full_us: 0, version: self.version });
                    return (decision, Some(Receipt { key: None, before, after: next }));
                }
                Err(changed) => state = changed,
            }
        }
    }

    fn take_keyed(&self, key: Key, value: Option<Value>, now_us: u64) -> ((Decision, Option<Receipt>), Option<Value>) {
        let (decision, next) = self.bucket.decide(self.state(value, now_us), now_us);
        let receipt = next.map(|after| Receipt { key: Some(key), before: value, after });
        ((decision, receipt), next.map(|state| self.value(state, now_us)))
    }

    fn value(&self, state: u64, now_us: u64) -> Value {
        Value { state, full_us: self.bucket.full_us(state, now_us), version: self.version }
    }

    /// A stored state in this rate's ticks; nothing stored: full.
    fn state(&self, value: Option<Value>, now_us: u64) -> u64 {
        match value {
            Some(value) if value.version == self.version => value.state,
            Some(value) => self.bucket.state(value.full_us, now_us),
            None => self.bucket.full(now_us),
        }
    }
}

fn next_version() -> u32 {
    static VERSIONS: AtomicU32 = AtomicU32::new(1);
    VERSIONS.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, thread};

    use proptest::prelude::*;

    use super::*;

    fn limiter(rate: u64, per_ms: u64, burst: u64) -> Limiter {
        Limiter::new(TokenBucket::new(rate, per_ms, burst), 0)
    }

    fn key(table: &Table, limiter: &Limiter, name: &str) -> Key {
        let mut builder = table.key(limiter.namespace());
        builder.part(name.as_bytes());
        builder.finish()
    }

    fn takes(limiter: &Limiter, table: &Table, key: Option<Key>, times: impl IntoIterator<Item = u64>) -> usize {
        times.into_iter().filter(|now| limiter.take(table, key, *now).0.allowed).count()
    }

    #[test]
    fn ten_times_the_rate_admits_the_rate() {
        let table = Table::new(1000);
        let limiter = limiter(100, 1000, 50);
        let times = || (0..10_000).map(|i| 9_000_000 + i * 1000);
        // 10 s at 1000/s: the burst, and 100/s from then on.
        assert_eq!(takes(&limiter, &table, None, times()), 50 + 999);
        let (a, b) = (key(&table, &limiter, "a"), key(&table, &limiter, "b"));
        assert_eq!(takes(&limiter, &table, Some(a), times()), 50 + 999);
        assert_eq!(takes(&limiter, &table, Some(b), times()), 50 + 999);
    }

    #[test]
    fn threads_together_never_take_more() {
        let table = Table::new(1000);
        let limiter = limiter(1_000, 1000, 500);
        for key in [None, Some(key(&table, &limiter, "k"))] {
            let (clock, admitted) = (AtomicU64::new(5_000_000), AtomicUsize::new(0));
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..25_000 {
                            // 100,000 requests over 1 s; threads are ahead and behind of each other.
                            let now = clock.fetch_add(10, Ordering::Relaxed);
                            let taken = limiter.take(&table, key, now).0.allowed;
                            admitted.fetch_add(usize::from(taken), Ordering::Relaxed);
                        }
                    });
                }
            });
            let admitted = admitted.into_inner();
            assert!((1_485..=1_500).contains(&admitted), "{admitted} of 500 + 1000");
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let table = Table::new(1000);
        let limiter = limiter(1, 1000, 2);
        for key in [None, Some(key(&table, &limiter, "k"))] {
            let now = 1_000_000;
            for _ in 0..10 {
                let (_, receipt) = limiter.take(&table, key, now);
                limiter.give_back(&table, receipt.unwrap(), now);
            }
            assert_eq!(limiter.peek(&table, key, now).remaining, 1, "a peek tells what a take would");
            let (_, first) = limiter.take(&table, key, now);
            assert_eq!(takes(&limiter, &table, key, [now, now]), 1);
            // Another came in between: what the first took stays taken.
            limiter.give_back(&table, first.unwrap(), now);
            assert_eq!(takes(&limiter, &table, key, [now]), 0);
        }
    }

    #[test]
    fn another_rate_goes_on_with_the_state() {
        let table = Table::new(1000);
        let slow = limiter(10, 1000, 10);
        for key in [None, Some(key(&table, &slow, "k"))] {
            let now = 50_000_000;
            assert_eq!(takes(&slow, &table, key, [now; 5]), 5);
            let fast = slow.with_rate(TokenBucket::new(100, 1000, 100), now);
            assert_eq!(takes(&fast, &table, key, [now; 100]), 50);
            let same = fast.with_rate(fast.bucket().clone(), now);
            assert_eq!(takes(&same, &table, key, [now; 100]), 0);
            assert_eq!(takes(&same, &table, key, [now + 1_000_000; 200]), 100);
        }
    }

    proptest! {
        #[test]
        fn no_window_admits_more_than_burst_and_rate(
            rate in 1..200u64, burst in 1..20u64,
            gaps in proptest::collection::vec((0..30_000u64, 0..3usize), 1..300),
        ) {
            let table = Table::new(10);
            let limiter = limiter(rate, 1000, burst);
            let keys = [None, Some(key(&table, &limiter, "a")), Some(key(&table, &limiter, "b"))];
            let mut admitted = [vec![], vec![], vec![]];
            let mut now = 1_000_000;
            for (gap, which) in gaps {
                now += gap;
                if limiter.take(&table, keys[which], now).0.allowed {
                    admitted[which].push(now);
                }
            }
            for times in admitted {
                for (i, start) in times.iter().enumerate() {
                    for (j, end) in times.iter().enumerate().skip(i) {
                        let most = burst as f64 + rate as f64 * (end - start) as f64 / 1e6;
                        prop_assert!((j - i + 1) as f64 <= most + 1e-9, "{} within {} µs", j - i + 1, end - start);
                    }
                }
            }
        }
    }
}
