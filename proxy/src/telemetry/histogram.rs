//! A histogram of times, for metrics.

use std::time::Duration;

use super::sharded::Counter;

/// Upper bounds of the buckets in µs; what is longer counts in one more.
pub(crate) const BOUNDS_US: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000,
];

/// Counts of one thread by bucket, and the sum.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Histogram {
    counts: [Counter; BOUNDS_US.len() + 1],
    sum_us: Counter,
}

/// The content of a histogram at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) counts: Vec<u64>,
    pub(crate) sum_us: u64,
}

impl Histogram {
    pub(crate) fn observe(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[bucket].count();
        self.sum_us.add(us);
    }
}

impl<'a> FromIterator<&'a Histogram> for Counts {
    fn from_iter<I: IntoIterator<Item = &'a Histogram>>(histograms: I) -> Self {
        let mut total = Counts { counts: vec![0; BOUNDS_US.len() + 1], sum_us: 0 };
        for histogram in histograms {
            total.counts.iter_mut().zip(&histogram.counts).for_each(|(sum, n)| *sum += n.get());
            total.sum_us += histogram.sum_us.get();
        }
        total
    }
}

impl Counts {
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_buckets() {
        let (a, b) = (Histogram::default(), Histogram::default());
        for (us, histogram) in [(0, &a), (500, &a), (501, &b), (30_000_000, &a), (30_000_001, &b)] {
            histogram.observe(Duration::from_micros(us));
        }
        let total: Counts = [&a, &b].into_iter().collect();
        assert_eq!((total.counts[0], total.counts[1], total.counts[14], total.counts[15]), (2, 1, 1, 1));
        assert_eq!((total.count(), total.sum_us), (5, 60_001_002));
    }
}
