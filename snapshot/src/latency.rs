//! The histogram of load reports: log-linear, four buckets to each power of two of microseconds, so that a quantile is
//! read to within 19 %. 0..=99 covers 0 µs to 33 s; what is longer counts in the last bucket.

/// Number of buckets.
pub const BUCKETS: usize = 100;

/// The bucket of a time in microseconds.
pub fn bucket(us: u64) -> usize {
    if us < 4 {
        return us as usize;
    }
    let power = us.ilog2() as usize;
    let quarter = (us >> (power - 2)) as usize & 3;
    ((power - 1) * 4 + quarter).min(BUCKETS - 1)
}

/// The greatest time of a bucket, in microseconds.
pub fn upper_us(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let (power, quarter) = (bucket / 4 + 1, bucket as u64 % 4);
    ((5 + quarter) << (power - 2)) - 1
}

/// The quantile `q` (0 to 1) of counts by bucket, in microseconds; `None` when nothing was counted.
pub fn quantile_us(counts: &[u64], q: f64) -> Option<u64> {
    let total = counts.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
    if total == 0 {
        return None;
    }
    // At least the first request, at most the last: q = 0.99 of 10 requests is the 10th.
    let rank = ((total as f64 * q).ceil() as u64).clamp(1, total);
    let mut seen = 0u64;
    counts
        .iter()
        .position(|n| {
            seen = seen.saturating_add(*n);
            seen >= rank
        })
        .map(upper_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_tight() {
        let mut last = 0;
        for us in 0..2_000_000u64 {
            let b = bucket(us);
            assert!(b == last || b == last + 1, "{us}");
            assert!(us <= upper_us(b), "{us} in {b}");
            assert!(upper_us(b) as f64 <= us as f64 * 1.25 + 1.0, "{us} in {b}");
            last = b;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!(upper_us(BUCKETS - 1) > 33_000_000);
    }

    #[test]
    fn quantiles() {
        let mut counts = [0; BUCKETS];
        assert_eq!(quantile_us(&counts, 0.99), None);
        counts[bucket(100)] = 99;
        counts[bucket(5_000)] = 1;
        assert_eq!(quantile_us(&counts, 0.99), Some(upper_us(bucket(100))));
        assert_eq!(quantile_us(&counts, 1.0), Some(upper_us(bucket(5_000))));
    }
}
