//! After scale-out, connections move: which proxies carry more than their share, and by how much.
//!
//! A kept connection never reaches a new replica by itself. A proxy that carries clearly more than the mean is told the
//! share of its load that is too much, and retires connections that carry about as much.

use std::collections::BTreeMap;

/// A proxy at up to this much of the mean is left alone: 120 % with four proxies is 30 % of the load instead of 25 %.
const CLEARLY_MORE: f64 = 1.2;
/// Below so many requests a second and proxy, or so many connections, shares are chance.
const FEWEST_RATE: f64 = 10.0;
const FEWEST_CONNECTIONS: f64 = 4.0;

/// The load of one proxy: what the decision reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Requests per second over the last windows; `None`: not known yet.
    pub rate: Option<f64>,
    /// Client connections open.
    pub connections: u32,
}

/// The excess (0 to 1) of each Ready proxy that carries clearly more than the mean; empty when balanced.
///
/// Requests decide when there are enough of them, else connections: those of an idle fleet may become busy at any time.
/// While one proxy's load is not known, nothing is.
pub fn excess(shares: &BTreeMap<String, Share>) -> BTreeMap<String, f64> {
    let Some(rates) = shares.values().map(|share| share.rate).collect::<Option<Vec<f64>>>() else {
        return BTreeMap::new();
    };
    let proxies = shares.len() as f64;
    let mean_rate = rates.iter().sum::<f64>() / proxies;
    let mean_connections = shares.values().map(|share| f64::from(share.connections)).sum::<f64>() / proxies;
    let (own, mean): (fn(&Share) -> f64, f64) = if mean_rate >= FEWEST_RATE {
        (|share| share.rate.unwrap_or(0.0), mean_rate)
    } else if mean_connections >= FEWEST_CONNECTIONS {
        (|share| f64::from(share.connections), mean_connections)
    } else {
        return BTreeMap::new();
    };
    // With one proxy, own is the mean. A proxy at twice the mean sheds half: 1 - 1/2.
    let carries_more = shares.iter().filter(|(_, share)| own(share) > CLEARLY_MORE * mean);
    carries_more.map(|(name, share)| (name.clone(), 1.0 - mean / own(share))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(shares: &[(Option<f64>, u32)], expect: &[(usize, f64)]) {
        let name = |i: usize| format!("p{i}");
        let shares = shares.iter().enumerate();
        let shares = shares.map(|(i, (rate, connections))| (name(i), Share { rate: *rate, connections: *connections }));
        let got = excess(&shares.collect());
        assert_eq!(got, expect.iter().map(|(i, e)| (name(*i), *e)).collect());
    }

    #[test]
    fn who_carries_too_much() {
        check(&[], &[]);
        check(&[(Some(1000.0), 64)], &[]);
        check(&[(Some(1000.0), 64), (Some(0.0), 0)], &[(0, 0.5)]);
        check(&[(Some(4000.0), 64), (Some(0.0), 0), (Some(0.0), 0), (Some(0.0), 0)], &[(0, 0.75)]);
        check(&[(Some(590.0), 9), (Some(410.0), 1)], &[]);
        check(&[(Some(620.0), 1), (Some(380.0), 9)], &[(0, 1.0 - 500.0 / 620.0)]);
        // Not known yet.
        check(&[(Some(1000.0), 64), (None, 0)], &[]);
        // Few requests: connections decide; few of both: chance.
        check(&[(Some(1.0), 60), (Some(2.0), 0), (Some(0.0), 0)], &[(0, 1.0 - 20.0 / 60.0)]);
        check(&[(Some(9.0), 3), (Some(0.0), 0)], &[]);
        check(&[(Some(f64::NAN), 3), (Some(0.0), 0)], &[]);
    }
}
