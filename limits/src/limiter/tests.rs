//! Takes and gives back, of one thread and many, and while the limit changes.

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

fn change(table: &Table, limiter: &Arc<Limiter>, rate: u64, per_ms: u64, burst: u64, now: u64) -> Arc<Limiter> {
    let successor = Arc::new(limiter.successor(TokenBucket::new(rate, per_ms, burst)));
    Limiter::supersede(table, &[(Arc::clone(limiter), Arc::clone(&successor))], now);
    successor
}

#[test]
fn a_limit_that_was_raised_blocks_nobody_by_the_old_rate() {
    for keyed in [false, true] {
        let table = Table::new(1000);
        let slow = Arc::new(limiter(1, 3_600_000, 1));
        let key = keyed.then(|| key(&table, &slow, "k"));
        let now = 50_000_000;
        assert_eq!(takes(&slow, &table, key, [now, now]), 1);
        let fast = change(&table, &slow, 100, 1000, 100, now + 1_000_000);
        // Whoever holds the former limit is told the same.
        for limiter in [&slow, &fast] {
            let d = limiter.peek(&table, key, now + 1_000_000);
            // The old rate brought a 3600th of a token.
            assert_eq!((d.allowed, d.remaining, d.retry_after_us), (false, 0, 9_998));
        }
        assert_eq!(takes(&fast, &table, key, [now + 1_500_000; 100]), 50);
        assert_eq!(takes(&slow, &table, key, [now + 1_600_000; 100]), 10);
        assert_eq!(takes(&fast, &table, key, [now + 3_600_000; 200]), 100);
    }
}

#[test]
fn places_are_held_until_their_buckets_are_full_by_the_new_rate() {
    // It takes more room only when there is no place in what it has.
    let table = Table::new(1 << 16);
    let fast = Arc::new(limiter(100, 1000, 1));
    let keys: Vec<_> = (0..3000).map(|i| key(&table, &fast, &format!("used {i}"))).collect();
    let now = 50_000_000;
    keys.iter().for_each(|key| assert!(fast.take(&table, Some(*key), now).0.allowed));
    let slow = change(&table, &fast, 1, 3_600_000, 1, now);
    // By the old rate they would be full, and their places free, 10 ms later.
    for i in 0..3000 {
        let other = key(&table, &slow, &format!("other {i}"));
        assert!(slow.take(&table, Some(other), now + 1_000_000).0.allowed);
    }
    assert_eq!(keys.iter().filter(|key| slow.take(&table, Some(**key), now + 1_000_000).0.allowed).count(), 0);
    // Raised again, they are free as soon as they are full, and nobody is given up.
    let fast = change(&table, &slow, 100, 1000, 1, now + 1_000_000);
    for i in 0..6000 {
        let other = key(&table, &fast, &format!("more {i}"));
        assert!(fast.take(&table, Some(other), now + 2_000_000).0.allowed);
    }
    assert_eq!(table.evicted(), 0);
}

#[test]
fn cut_and_raised_again_it_fills_nothing_though_others_need_places() {
    let table = Table::new(1 << 16);
    let fast = Arc::new(limiter(100, 1000, 100));
    let keys: Vec<_> = (0..3000).map(|i| key(&table, &fast, &format!("used {i}"))).collect();
    let now = 50_000_000;
    keys.iter().for_each(|key| assert_eq!(takes(&fast, &table, Some(*key), [now; 100]), 100));
    let small = change(&table, &fast, 100, 1000, 1, now);
    // By the small burst all are full.
    let now = now + 500_000;
    (0..3000).for_each(|i| _ = small.take(&table, Some(key(&table, &small, &format!("other {i}"))), now));
    let fast = change(&table, &small, 100, 1000, 100, now);
    assert_eq!(keys.iter().map(|key| takes(&fast, &table, Some(*key), [now; 100])).max(), Some(1));
    assert_eq!(table.evicted(), 0);
}

#[test]
fn what_nobody_has_any_more_is_a_limit_that_begins() {
    let table = Table::new(1000);
    let former = Arc::new(limiter(1, 1000, 2));
    drop(change(&table, &former, 5, 1000, 5, 1_000_000));
    for key in [None, Some(key(&table, &former, "k"))] {
        assert!(former.take(&table, key, 1_000_000).0.allowed);
    }
}

/// However often a limit changes while threads take from it, by its former self or the present one: each token is taken
/// once, and none is lost.
#[test]
fn threads_take_each_token_once_while_it_changes() {
    const TOKENS: u64 = 300_000;
    for keyed in [false, true] {
        let table = Table::new(100_000);
        let first = Arc::new(limiter(1, 3_600_000, TOKENS));
        // Others in the table, so that a change takes time.
        (0..20_000).for_each(|i| _ = first.take(&table, Some(key(&table, &first, &i.to_string())), 5_000_000));
        let key = keyed.then(|| key(&table, &first, "k"));
        let (latest, taking) = (Mutex::new(Arc::clone(&first)), AtomicUsize::new(3));
        let (admitted, changes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for i in 0..3 {
                let (admitted, taking, latest, table) = (&admitted, &taking, &latest, &table);
                let mut limiter = Arc::clone(&first);
                scope.spawn(move || {
                    for n in 0..150_000 {
                        // One goes on with the first.
                        if i > 0 && n % 100 == 0 {
                            limiter = latest.lock().unwrap().clone();
                        }
                        let taken = limiter.take(table, key, 5_000_000).0.allowed;
                        admitted.fetch_add(taken.into(), Ordering::Relaxed);
                    }
                    taking.fetch_sub(1, Ordering::Relaxed);
                });
            }
            while taking.load(Ordering::Relaxed) > 0 {
                let limiter = latest.lock().unwrap().clone();
                let rate = 1 + changes.fetch_add(1, Ordering::Relaxed) as u64 % 2;
                *latest.lock().unwrap() = change(&table, &limiter, rate, 3_600_000, TOKENS, 5_000_000);
            }
        });
        // Part of a tick is lost with a change, and with it the last token.
        let (admitted, changes) = (admitted.into_inner() as u64, changes.into_inner());
        assert!((TOKENS - 1..=TOKENS).contains(&admitted), "{admitted} over {changes} changes");
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
