//! Limits that change, against a bucket of plain numbers that is told of each change.
//!
//! The kind: any sequence of takes, gives back and changes of rate, period and burst, up, down and back and forth, for
//! one bucket and for many, asked by whoever holds the limit's first version or its last. What the oracle admits is
//! admitted, nothing else is, and `Retry-After` and the reset are its own, to the µs and the ticks that changes lose.

#![allow(clippy::unwrap_used)]

use std::{collections::HashMap, sync::Arc};

use limits::{Decision, Key, Limiter, Receipt, Table, TokenBucket};
use proptest::{collection::vec, prelude::*};

/// A rate, its period in ms, and a burst.
type Limit = (u64, u64, u64);

/// Tokens in a bucket. It keeps them when the limit changes, as far as they fit.
#[derive(Clone, Copy)]
struct Oracle {
    tokens: f64,
    /// Of these, what changes may have lost: a tick each, which is less than what the new rate brings in a µs.
    lost: f64,
    at_us: u64,
}

impl Oracle {
    fn full((_, _, burst): Limit, now_us: u64) -> Self {
        Self { tokens: burst as f64, lost: 0.0, at_us: now_us }
    }

    fn pass(&mut self, limit: Limit, now_us: u64) {
        self.tokens += per_us(limit) * (now_us - self.at_us) as f64;
        self.at_us = now_us;
        self.fit(limit);
    }

    fn change(&mut self, (from, to): (Limit, Limit), now_us: u64) {
        self.pass(from, now_us);
        self.lost += per_us(to).min(1.0);
        self.fit(to);
    }

    /// What is full has lost nothing.
    fn fit(&mut self, (_, _, burst): Limit) {
        let over = (self.tokens - burst as f64).max(0.0);
        self.tokens -= over;
        self.lost = (self.lost - over).max(0.0);
    }

    /// Whether that may be the decision; the token is taken if it was.
    fn agrees(&mut self, limit: Limit, decision: Decision) -> Result<(), String> {
        let Decision { allowed, remaining, retry_after_us, reset_us } = decision;
        let (most, least) = (self.tokens + ERROR, self.tokens - self.lost - ERROR);
        let (most, least) = if allowed { (most - 1.0, least - 1.0) } else { (most, least) };
        let us = |tokens: f64| (tokens / per_us(limit)).max(0.0);
        let mut wrong = vec![];
        // Of a decision at the very edge there may be both.
        if if allowed { most < 0.0 } else { least >= 1.0 } {
            wrong.push("allowed");
        }
        if allowed {
            self.tokens = (self.tokens - 1.0).max(0.0);
            if (remaining as f64) > most || (remaining as f64) < least.floor() {
                wrong.push("remaining");
            }
        } else if remaining > 0 || !about(retry_after_us, us(1.0 - most), us(1.0 - least)) {
            wrong.push("retry after");
        }
        if !about(reset_us, us(limit.2 as f64 - most), us(limit.2 as f64 - least)) {
            wrong.push("reset");
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!("{wrong:?}: {decision:?} for {} to {} tokens of {limit:?}", self.tokens - self.lost, self.tokens))
    }
}

/// Of floating point.
const ERROR: f64 = 1e-7;

fn per_us((rate, per_ms, _): Limit) -> f64 {
    rate as f64 / (per_ms as f64 * 1e3)
}

/// A whole number of µs, rounded up.
fn about(us: u64, least: f64, most: f64) -> bool {
    (us as f64) >= least - 0.1 && (us as f64) <= most * (1.0 + 1e-9) + 1.1
}

#[derive(Clone, Debug)]
enum Step {
    Take {
        key: usize,
        times: usize,
        former: bool,
    },
    GiveBack {
        former: bool,
    },
    Pass(u64),
    Change(Limit),
    /// To the limit before the last change.
    Back,
}

fn limit() -> impl Strategy<Value = Limit> {
    let per_ms = prop_oneof![Just(1000), Just(60_000), Just(3_600_000), 1..100_000u64];
    let rate = prop_oneof![Just(1), 1..20u64, 1..5_000u64];
    (rate, per_ms, prop_oneof![Just(1), 1..10u64, 1..200u64])
}

fn step() -> impl Strategy<Value = Step> {
    let pass = prop_oneof![Just(1), 0..1_000u64, 0..100_000u64, 0..20_000_000u64, 0..5_000_000_000u64];
    let take = (0..KEYS, prop_oneof![Just(1), 1..4usize, 1..300usize], any::<bool>());
    prop_oneof![
        4 => take.prop_map(|(key, times, former)| Step::Take { key, times, former }),
        1 => any::<bool>().prop_map(|former| Step::GiveBack { former }),
        3 => pass.prop_map(Step::Pass),
        2 => limit().prop_map(Step::Change),
        1 => Just(Step::Back),
    ]
}

/// The first is none: all requests share a bucket.
const KEYS: usize = 4;

struct World {
    table: Table,
    limiters: Vec<Arc<Limiter>>,
    limits: Vec<Limit>,
    keys: [Option<Key>; KEYS],
    oracles: HashMap<usize, Oracle>,
    /// The last take, of which key, and what its bucket would hold without it.
    taken: Option<(Receipt, usize, Oracle)>,
    /// Changes since then.
    changes: usize,
    now_us: u64,
}

impl World {
    fn new(first: Limit) -> Self {
        let (table, now_us) = (Table::new(1000), 1 << 40);
        let limiter = Arc::new(Limiter::new(bucket(first), now_us));
        let key = |i: usize| {
            let mut builder = table.key(limiter.namespace());
            builder.part(&i.to_le_bytes());
            (i > 0).then(|| builder.finish())
        };
        let (keys, oracles) = (std::array::from_fn(key), HashMap::from([(0, Oracle::full(first, now_us))]));
        let (limiters, limits) = (vec![limiter], vec![first]);
        Self { table, limiters, limits, keys, oracles, taken: None, changes: 0, now_us }
    }

    fn run(&mut self, step: &Step) -> Result<(), String> {
        let limit = *self.limits.last().unwrap();
        match *step {
            Step::Pass(us) => self.now_us += us,
            Step::Change(to) => self.change(to),
            Step::Back => self.change(self.limits[self.limits.len().saturating_sub(2)]),
            Step::Take { key, times, former } => {
                let limiter = if former { self.limiters.first() } else { self.limiters.last() }.unwrap();
                let now_us = self.now_us;
                // What was never asked for begins full.
                let oracle = self.oracles.entry(key).or_insert_with(|| Oracle::full(limit, now_us));
                oracle.pass(limit, now_us);
                for _ in 0..times {
                    let (peeked, before) = (limiter.peek(&self.table, self.keys[key], now_us), *oracle);
                    let (decision, receipt) = limiter.take(&self.table, self.keys[key], now_us);
                    if peeked != decision || decision.allowed != receipt.is_some() {
                        return Err(format!("peeked {peeked:?}, took {decision:?}"));
                    }
                    oracle.agrees(limit, decision)?;
                    if let Some(receipt) = receipt {
                        (self.taken, self.changes) = (Some((receipt, key, before)), 0);
                    }
                }
            }
            Step::GiveBack { former } => {
                let Some((receipt, key, untaken)) = self.taken.take() else { return Ok(()) };
                let limiter = if former { self.limiters.first() } else { self.limiters.last() }.unwrap();
                limiter.give_back(&self.table, receipt, self.now_us);
                // Over two changes it stays taken.
                if self.changes < 2 {
                    self.oracles.insert(key, untaken);
                }
            }
        }
        Ok(())
    }

    fn change(&mut self, to: Limit) {
        let from = *self.limits.last().unwrap();
        let limiter = self.limiters.last().unwrap();
        let successor = Arc::new(limiter.successor(bucket(to)));
        Limiter::supersede(&self.table, &[(Arc::clone(limiter), Arc::clone(&successor))], self.now_us);
        let untaken = self.taken.iter_mut().map(|(_, _, oracle)| oracle);
        self.oracles.values_mut().chain(untaken).for_each(|oracle| oracle.change((from, to), self.now_us));
        self.changes += 1;
        self.limiters.push(successor);
        self.limits.push(to);
    }
}

fn bucket((rate, per_ms, burst): Limit) -> TokenBucket {
    TokenBucket::new(rate, per_ms, burst)
}

fn check(first: Limit, steps: &[Step]) -> Result<(), String> {
    let mut world = World::new(first);
    // Each has its place while none is full: a full bucket may be forgotten when another key comes.
    for key in 0..KEYS {
        world.run(&Step::Take { key, times: 1, former: false })?;
    }
    for (i, step) in steps.iter().enumerate() {
        world.run(step).map_err(|e| format!("step {i}, {step:?}: {e}"))?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn any_changes(first in limit(), steps in vec(step(), 1..80)) {
        check(first, &steps).map_err(TestCaseError::fail)?;
    }
}

/// What a bucket admits at once, of one for all and of one for each key; each step is a time to pass, and another
/// limit.
#[track_caller]
fn admits(first: Limit, used: usize, steps: &[(u64, Limit)], then_us: u64, expect: usize) {
    for key in [0, 1] {
        let mut world = World::new(first);
        world.run(&Step::Take { key, times: used, former: false }).unwrap();
        for (us, limit) in steps {
            world.run(&Step::Pass(*us)).unwrap();
            world.change(*limit);
        }
        world.now_us += then_us;
        let limiter = world.limiters.last().unwrap();
        let take = |_: &usize| limiter.take(&world.table, world.keys[key], world.now_us).0.allowed;
        assert_eq!((0..2_000).filter(take).count(), expect, "{first:?} {used} {steps:?}");
    }
}

const HOURLY: Limit = (1, 3_600_000, 1);
const FAST: Limit = (100, 1000, 100);
const SECOND: u64 = 1_000_000;

#[test]
fn raised_it_admits_what_the_new_rate_brings() {
    admits(HOURLY, 1, &[(0, FAST)], 0, 0);
    admits(HOURLY, 1, &[(0, FAST)], 10_000, 1);
    admits(HOURLY, 1, &[(0, FAST)], SECOND, 100);
    admits(HOURLY, 1, &[(600 * SECOND, FAST)], SECOND / 2, 50);
    // What the old rate brought before counts.
    admits(HOURLY, 1, &[(1800 * SECOND, FAST)], 5_000, 1);
}

#[test]
fn cut_it_holds_no_more_than_the_new_burst() {
    admits(FAST, 1, &[(0, HOURLY)], 0, 1);
    admits(FAST, 100, &[(0, HOURLY)], 0, 0);
    admits(FAST, 100, &[(0, HOURLY)], 3599 * SECOND, 0);
    admits(FAST, 100, &[(0, HOURLY)], 3601 * SECOND, 1);
    admits(FAST, 40, &[(0, (100, 1000, 7))], 0, 7);
}

#[test]
fn back_and_forth_nothing_is_gained() {
    let often: Vec<(u64, Limit)> = (0..100).map(|i| (0, if i % 2 == 0 { HOURLY } else { FAST })).collect();
    admits(FAST, 100, &often, 0, 0);
    admits(HOURLY, 1, &[(0, FAST), (20_000, HOURLY), (0, FAST)], 0, 1);
    // Full as it was by the small burst, it is not full by the large one.
    admits(FAST, 100, &[(0, HOURLY), (7200 * SECOND, FAST)], 0, 1);
    // Each rate counts for as long as it was in force.
    admits(FAST, 100, &[(100_000, (10, 1000, 100)), (SECOND, FAST), (50_000, HOURLY)], 0, 1);
    admits(FAST, 100, &[(100_000, (10, 1000, 100)), (SECOND, FAST)], 50_000, 25);
}

#[test]
fn burst_and_period_by_themselves() {
    admits((10, 1000, 10), 10, &[(0, (10, 1000, 1000))], 0, 0);
    admits((10, 1000, 10), 10, &[(0, (10, 1000, 1000))], 100 * SECOND, 1000);
    admits((10, 1000, 10), 6, &[(0, (10, 1000, 5))], 0, 4);
    admits((10, 1000, 10), 2, &[(0, (10, 1000, 5))], 0, 5);
    admits((10, 1000, 10), 10, &[(0, (10, 60_000, 10))], 12 * SECOND, 2);
    admits((10, 60_000, 10), 10, &[(6 * SECOND, (10, 1000, 10))], 200_000, 3);
}

#[test]
fn a_key_that_was_never_seen_begins_full_by_the_present_limit() {
    let mut world = World::new(HOURLY);
    world.run(&Step::Take { key: 1, times: 1, former: false }).unwrap();
    world.change(FAST);
    world.run(&Step::Take { key: 2, times: 101, former: true }).unwrap();
    assert!(world.oracles[&2].tokens < 1.0 && world.oracles[&1].tokens < 1.0);
}
