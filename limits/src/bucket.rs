//! The token bucket as GCRA: a bucket's whole state is the time at which it will be full.
//!
//! That time is counted in ticks that are chosen so that one token takes a whole number of them: with rate/period in
//! lowest terms r/p (tokens per µs), a µs is r ticks and a token p ticks. So nothing is ever rounded, and nothing drifts.
//! Ticks wrap around: only differences are looked at.

/// Most ticks of a µs, in bits: ticks wrap after 2^44 µs (half a year), and a token of a rate up to 10^9/s has ≥ 1000.
const TICK_BITS: u32 = 20;
/// Largest capacity in ticks, in bits: it and [`SKEW_US`] fit in half of the range.
const CAPACITY_BITS: u32 = 62;
/// How far apart the `now` of two threads can be.
const SKEW_US: u64 = 10_000_000;

/// `rate` tokens each `per_ms`, at most `burst` saved up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    rate: u64,
    per_ms: u64,
    burst: u64,
    /// Ticks of a µs, times 2^shift.
    ticks: u64,
    /// 0 but for extreme rates and bursts, where ticks are 2^shift times as long and tokens are rounded up to them.
    shift: u32,
    /// Ticks of a token.
    token: u64,
}

/// What a limit says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The request may go on.
    pub allowed: bool,
    /// Tokens that are left.
    pub remaining: u64,
    /// µs until a token is there; 0 when one is.
    pub retry_after_us: u64,
    /// µs until the bucket is full again.
    pub reset_us: u64,
}

impl TokenBucket {
    /// Zeros count as 1: validation refuses them before.
    pub fn new(rate: u64, per_ms: u64, burst: u64) -> Self {
        let (rate, per_ms, burst) = (rate.max(1), per_ms.max(1), burst.max(1));
        let per_us = u128::from(per_ms) * 1000;
        let divisor = gcd(u128::from(rate), per_us);
        let (ticks, token) = (u128::from(rate) / divisor, per_us / divisor);
        let too_fine = bits(ticks).saturating_sub(TICK_BITS);
        let too_large = (bits(token) + bits(u128::from(burst))).saturating_sub(CAPACITY_BITS);
        let shift = too_fine.max(too_large);
        // Rounded up: an extreme limit admits a little less, never more.
        let token = token.div_ceil(1 << shift);
        // A burst of 2^62 tokens of one tick each still fits; what is larger than fits is never reached by requests.
        let burst = burst.min((1 << CAPACITY_BITS) / u64::try_from(token).unwrap_or(u64::MAX).max(1));
        Self { rate, per_ms, burst, ticks: ticks as u64, shift, token: token as u64 }
    }

    /// Tokens each period.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// The period.
    pub fn per_ms(&self) -> u64 {
        self.per_ms
    }

    /// Most tokens saved up.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// What a request would be told, and the state that would follow; `None`: it takes nothing.
    pub(crate) fn decide(&self, state: u64, now_us: u64) -> (Decision, Option<u64>) {
        let debt = self.debt(state, now_us);
        let capacity = self.capacity();
        match capacity.checked_sub(self.token).and_then(|most| debt.checked_sub(most + 1)) {
            // debt + token ≤ capacity
            None => {
                let debt = debt + self.token;
                let (remaining, reset_us) = ((capacity - debt) / self.token, self.us(debt));
                let decision = Decision { allowed: true, remaining, retry_after_us: 0, reset_us };
                (decision, Some(self.tick(now_us).wrapping_add(debt)))
            }
            Some(over) => {
                let (retry_after_us, reset_us) = (self.us(over + 1), self.us(debt));
                (Decision { allowed: false, remaining: 0, retry_after_us, reset_us }, None)
            }
        }
    }

    /// µs in which the rate brings so many tokens.
    pub(crate) fn brings_us(&self, tokens: u64) -> u64 {
        let us = u128::from(tokens) * u128::from(self.per_ms) * 1000 / u128::from(self.rate);
        u64::try_from(us).unwrap_or(u64::MAX)
    }

    /// When a bucket in that state is full, in µs, rounded up.
    pub(crate) fn full_us(&self, state: u64, now_us: u64) -> u64 {
        now_us.saturating_add(self.us(self.debt(state, now_us)))
    }

    /// The state that holds as many tokens as a bucket of another limit did in `state` at `at_us`, and at most as many
    /// as fit. It does not depend on when it is asked for. Part of a tick is lost: a change never adds to what there
    /// is.
    pub(crate) fn converted(&self, from: &Self, state: u64, at_us: u64) -> u64 {
        let (debt, most) = (from.debt(state, at_us), self.capacity());
        let debt = match from.capacity().checked_sub(debt) {
            Some(level) => {
                let level = u128::from(level) * u128::from(self.token) / u128::from(from.token);
                most - u64::try_from(level).unwrap_or(u64::MAX).min(most)
            }
            // Threads whose `now` is later than the change took what the other limit had only then.
            None => {
                let ahead = u128::from(debt - from.capacity()) * u128::from(self.token);
                most + ahead.div_ceil(u128::from(from.token)).min(self.skew()) as u64
            }
        };
        self.tick(at_us).wrapping_add(debt)
    }

    /// The state of a bucket that is full, also for threads whose `now` is somewhat earlier.
    pub(crate) fn full(&self, now_us: u64) -> u64 {
        self.tick(now_us.saturating_sub(SKEW_US))
    }

    /// Ticks until the bucket is full. What is further ahead than can be is long past: ticks wrap.
    fn debt(&self, state: u64, now_us: u64) -> u64 {
        let debt = state.wrapping_sub(self.tick(now_us));
        if u128::from(debt) <= u128::from(self.capacity()) + self.skew() { debt } else { 0 }
    }

    /// Ticks that the `now` of two threads can be apart.
    fn skew(&self) -> u128 {
        (u128::from(SKEW_US) * u128::from(self.ticks)) >> self.shift
    }

    /// Ticks from full to empty.
    fn capacity(&self) -> u64 {
        self.burst * self.token
    }

    fn tick(&self, now_us: u64) -> u64 {
        ((u128::from(now_us) * u128::from(self.ticks)) >> self.shift) as u64
    }

    /// Ticks as µs, rounded up.
    fn us(&self, ticks: u64) -> u64 {
        if self.shift == 0 {
            return ticks.div_ceil(self.ticks);
        }
        u64::try_from((u128::from(ticks) << self.shift).div_ceil(u128::from(self.ticks))).unwrap_or(u64::MAX)
    }
}

fn bits(n: u128) -> u32 {
    128 - n.leading_zeros()
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(bucket: &TokenBucket, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut state = 0;
        let mut admitted = vec![];
        for now in times {
            if let (_, Some(next)) = bucket.decide(state, now) {
                state = next;
                admitted.push(now);
            }
        }
        admitted
    }

    #[test]
    fn the_burst_then_the_rate_exactly() {
        let bucket = TokenBucket::new(100, 1000, 20);
        // 1000 rps for 10 s: ten times the rate.
        let admitted = run(&bucket, (0..10_000).map(|i| 5_000_000 + i * 1000));
        assert_eq!(admitted.len(), 20 + 999);
    }

    #[test]
    fn no_drift_at_rates_that_do_not_divide() {
        // 7 each 3 s for a day and more, asked each 10 ms: nothing is lost to rounding.
        let bucket = TokenBucket::new(7, 3000, 5);
        let admitted = run(&bucket, (0..=9_000_000).map(|i| i * 10_000));
        assert_eq!(admitted.len(), 5 + 210_000);
    }

    #[test]
    fn what_is_told_is_true() {
        let bucket = TokenBucket::new(10, 1000, 3);
        let mut state = 0;
        let mut told = vec![];
        for now in [0, 0, 0, 0, 99_999, 100_000] {
            let (d, next) = bucket.decide(state, now);
            state = next.unwrap_or(state);
            told.push((d.allowed, d.remaining, d.retry_after_us, d.reset_us));
        }
        let expect = [
            (true, 2, 0, 100_000),
            (true, 1, 0, 200_000),
            (true, 0, 0, 300_000),
            (false, 0, 100_000, 300_000),
            (false, 0, 1, 200_001),
            (true, 0, 0, 300_000),
        ];
        assert_eq!(told, expect);
    }

    #[test]
    fn an_idle_bucket_is_full_after_any_time() {
        for rate in [1, 100, 999_983, 1 << 40] {
            let bucket = TokenBucket::new(rate, 1000, 10);
            for year in 0..20 {
                for days in [1, 100, 200, 365] {
                    let start = 3_600_000_000 + year * 31_557_600_000_000;
                    let state = run(&bucket, [start; 20]).len();
                    assert_eq!(state, 10);
                    let (_, next) = bucket.decide(0, start);
                    let later = start + days * 86_400_000_000;
                    assert_eq!(bucket.decide(next.unwrap(), later).0.remaining, 9, "{rate} {year} {days}");
                }
            }
        }
    }

    #[test]
    fn an_earlier_now_finds_an_exhausted_bucket_exhausted() {
        let bucket = TokenBucket::new(1000, 1000, 2);
        let mut state = 0;
        for _ in 0..2 {
            state = bucket.decide(state, 10_000_000).1.unwrap();
        }
        for earlier in [0, 1, 1000, 5_000_000] {
            assert!(!bucket.decide(state, 10_000_000 - earlier).0.allowed, "{earlier} µs");
        }
    }

    #[test]
    fn tokens_are_kept_by_another_limit() {
        let now = 7_000_000;
        let check = |from: (u64, u64, u64), taken: usize, to: (u64, u64, u64), told: (bool, u64, u64)| {
            let bucket = |(rate, per_ms, burst)| TokenBucket::new(rate, per_ms, burst);
            let (from, to) = (bucket(from), bucket(to));
            let state = (0..taken).fold(from.full(now), |state, _| from.decide(state, now).1.unwrap());
            let (d, _) = to.decide(to.converted(&from, state, now), now);
            assert_eq!((d.allowed, d.remaining, d.retry_after_us), told, "{from:?} {taken} {to:?}");
        };
        // 5 of 10: they are 5 of 100, of 7, and all of 3.
        check((10, 1000, 10), 5, (100, 1000, 100), (true, 4, 0));
        check((10, 1000, 10), 5, (10, 1000, 7), (true, 4, 0));
        check((10, 1000, 10), 5, (10, 60_000, 3), (true, 2, 0));
        // What is used up is used up, and comes back as fast as the new rate has it.
        check((1, 3_600_000, 1), 1, (100, 1000, 100), (false, 0, 10_000));
        check((100, 1000, 100), 100, (1, 3_600_000, 1), (false, 0, 3_600_000_000));
        check((10, 1000, 10), 10, (10, 1000, 1000), (false, 0, 100_000));
        // Ticks of very different lengths.
        check((1, 31_536_000_000, 3), 1, (1 << 39, 1000, 1 << 40), (true, 1, 0));
        check((1 << 39, 1000, 1 << 40), 0, (1, 31_536_000_000, 3), (true, 2, 0));
    }

    #[test]
    fn takes_of_threads_ahead_of_the_change_count() {
        let (from, to) = (TokenBucket::new(1000, 1000, 2), TokenBucket::new(10, 1000, 2));
        let now = 20_000_000;
        let state = (0..3).fold(from.full(now), |state, i| from.decide(state, now + i * 500).1.unwrap());
        // One more than there were at `now`: 3 tokens in 1 ms, of 2 and what that ms brought.
        assert_eq!(to.decide(to.converted(&from, state, now), now).0.retry_after_us, 200_000);
        // However far that is ahead, it is no longer than clocks are apart.
        let (d, _) = to.decide(to.converted(&from, state, now - 9_000_000), now - 9_000_000);
        assert_eq!((d.allowed, d.retry_after_us), (false, 10_100_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        /// Never more than `burst + rate * window` in any window, and never less than what a fluid bucket would admit.
        #[test]
        fn admits_what_an_exact_bucket_admits(
            rate in 1..5_000u64,
            per_ms in 1..100_000u64,
            burst in 1..50u64,
            gaps in proptest::collection::vec(prop_oneof![Just(0), 0..2_000u64, 0..2_000_000u64], 1..200),
            start in 0..1u64 << 50,
        ) {
            let bucket = TokenBucket::new(rate, per_ms, burst);
            prop_assert_eq!(bucket.shift, 0);
            let (rate, per_us, burst) = (u128::from(rate), u128::from(per_ms) * 1000, u128::from(burst));
            // The reference: level in tokens times per_us.
            let (mut level, mut last) = (burst * per_us, start);
            let (mut state, mut now) = (0, start);
            for gap in gaps {
                now += gap;
                level = (level + u128::from(now - last) * rate).min(burst * per_us);
                last = now;
                let expect = level >= per_us;
                let (decision, next) = bucket.decide(state, now);
                prop_assert_eq!(decision.allowed, expect);
                prop_assert_eq!(decision.allowed, next.is_some());
                if expect {
                    level -= per_us;
                }
                state = next.unwrap_or(state);
                prop_assert_eq!(u128::from(decision.remaining), level / per_us);
                prop_assert_eq!(u128::from(decision.reset_us), (burst * per_us - level).div_ceil(rate));
                let missing = if expect { 0 } else { (per_us - level).div_ceil(rate) };
                prop_assert_eq!(u128::from(decision.retry_after_us), missing);
            }
        }

        /// Whatever validation lets pass: no panic, the burst at once, and at most one in a million less than the rate.
        #[test]
        fn extremes(
            rate in 0..40u32, rate_low in any::<u64>(),
            per_ms in 1..=366 * 86_400_000u64,
            burst in prop_oneof![1..100u64, 1..=1u64 << 40],
            now in 0..1u64 << 56,
        ) {
            let rate = (1 << rate) + rate_low % (1 << rate);
            let bucket = TokenBucket::new(rate, per_ms, burst);
            prop_assert!(bucket.capacity() <= 1 << CAPACITY_BITS);
            prop_assert_eq!(bucket.burst(), burst);
            let (first, next) = bucket.decide(bucket.full(now), now);
            prop_assert!(first.allowed);
            prop_assert_eq!(first.remaining, burst - 1);
            // A token takes what it should, or a little longer, as far as such a rate can be told from none.
            let exact = u128::from(per_ms) * 1000;
            let ours = (u128::from(bucket.token) << bucket.shift) * u128::from(rate) / u128::from(bucket.ticks);
            prop_assert!(ours >= exact, "{} ticks for a token", bucket.token);
            if u128::from(rate) <= exact * 1000 {
                prop_assert!((ours - exact) as f64 <= exact as f64 / 500.0, "{ours} for {exact}");
            }
            let full = bucket.full_us(next.unwrap(), now);
            prop_assert!(full > now);
            prop_assert_eq!(bucket.decide(next.unwrap(), full).0.remaining, burst - 1);
        }
    }
}
