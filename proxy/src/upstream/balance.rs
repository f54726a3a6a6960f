//! Least-request balancing: the endpoint with the fewest requests under way.

use std::sync::{Arc, atomic::Ordering};

use super::endpoint::Endpoint;

/// Up to this many endpoints all are compared; beyond, two random ones are (Mitzenmacher, "The power of two choices").
const COMPARE_ALL: usize = 4;

/// The endpoint for a request; `None` when there is none. `random` breaks ties; `except` has just failed and is passed
/// over while others are there.
pub fn pick(endpoints: &[Arc<Endpoint>], random: u64, except: Option<u64>) -> Option<&Arc<Endpoint>> {
    let count = endpoints.len();
    let start = usize::try_from(random % count.max(1) as u64).unwrap_or(0);
    let rank = |e: &&Arc<Endpoint>| (Some(e.id) == except, e.in_flight.load(Ordering::Relaxed));
    if count <= COMPARE_ALL {
        return (0..count).map(|i| &endpoints[(start + i) % count]).min_by_key(rank);
    }
    // The other one: a different index, from the random number's upper half.
    let step = 1 + usize::try_from((random >> 32) % (count as u64 - 1)).unwrap_or(0);
    [start, (start + step) % count].map(|i| &endpoints[i]).into_iter().min_by_key(rank)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Endpoints, Protocol};

    #[test]
    fn the_least_loaded_is_picked_and_a_failed_one_passed_over() {
        let all = Endpoints::default();
        let endpoints: Vec<_> = (1..=3u16).map(|p| all.endpoint(([127, 0, 0, 1], p).into(), Protocol::Http1)).collect();
        endpoints[0].in_flight.store(2, Ordering::Relaxed);
        endpoints[2].in_flight.store(1, Ordering::Relaxed);
        for random in 0..6 {
            assert_eq!(pick(&endpoints, random, None).unwrap().address.port(), 2);
            assert_eq!(pick(&endpoints, random, Some(endpoints[1].id)).unwrap().address.port(), 3);
            assert_eq!(pick(&endpoints[..1], random, Some(endpoints[0].id)).unwrap().address.port(), 1);
        }
        assert!(pick(&[], 7, None).is_none());
    }

    #[test]
    fn ties_spread_over_all() {
        let all = Endpoints::default();
        let endpoints: Vec<_> =
            (1..=10u16).map(|p| all.endpoint(([127, 0, 0, 1], p).into(), Protocol::Http1)).collect();
        let picked: std::collections::BTreeSet<_> =
            (0..10u64).map(|i| pick(&endpoints, i | i << 32, None).unwrap().id).collect();
        assert!(picked.len() >= 8, "{picked:?}");
    }
}
