//! Reports of proxies, held to the sizes that operators take.

use bytes::Bytes;
use prost::Message as _;

use crate::{
    key::MAX_KEY,
    latency,
    proto::{Hello, LatencyCount, LoadWindow, Nack},
};

/// Largest `Hello`. It has what the proxy holds (20,000 resources of 100 bytes: 2 MB) and five minutes of load (a window a
/// second, each with 50 bytes for each policy: 1000 policies make 15 MB).
pub const MAX_HELLO: usize = 16 << 20;
/// Largest message of a proxy after `Hello`. An `Ack` in which each of 10,000 routes is refused has some 3 MB.
pub const MAX_REPORT: usize = 4 << 20;
/// Room for the rest of a message.
const SPARE: usize = 4096;

/// Most policies of one window that are counted: as many as a fleet has routes.
pub const MAX_POLICIES: usize = 10_000;
/// Most refusals of one proxy that are taken up; the others are once these are settled.
pub const MAX_NACKS: usize = 4096;
/// Longest text of a refusal, in bytes: what went wrong is said at its beginning.
const MAX_MESSAGE_BYTES: usize = 512;
const MAX_FIELD_BYTES: usize = 256;
const MAX_REASON_BYTES: usize = 64;
/// Size of a hash.
const HASH: usize = 32;

/// Bounds of plausible reports, which no process exceeds: longest window (one that was stopped for an hour), requests a
/// millisecond, threads, memory, open connections. Products of them and sums over thousands of proxies fit into 64 bits.
const MAX_WINDOW_MS: u32 = 3_600_000;
const REQUESTS_PER_MS: u64 = 1_000;
const MAX_WORKERS: u32 = 1_024;
const MAX_MEMORY_BYTES: u64 = 1 << 44;
const MAX_OPEN_CONNECTIONS: u32 = 1 << 24;
/// The latest time that is plausible, in milliseconds since 1970: in the year 10889.
const LATEST_MS: u64 = 1 << 48;

/// Leaves out of a `Hello` what it can do without, until it is no larger than [`MAX_HELLO`]: first what each policy counted,
/// then all load. A proxy that says nothing of what it holds is sent all of it anew.
pub fn fit_hello(mut hello: Hello) -> Hello {
    let omissions: [fn(&mut Hello); 3] = [
        |hello| hello.windows.iter_mut().for_each(|window| window.policies.clear()),
        |hello| hello.windows.clear(),
        |hello| {
            hello.held.clear();
            hello.revision.clear();
        },
    ];
    hello.nacks = fit_nacks(hello.nacks);
    for omit in omissions {
        if hello.encoded_len() + SPARE <= MAX_HELLO {
            break;
        }
        omit(&mut hello);
    }
    hello
}

/// The first of the nacks, as many as [`MAX_REPORT`] has room for. The others are told once these are rolled back.
pub fn fit_nacks(mut nacks: Vec<Nack>) -> Vec<Nack> {
    let mut left = MAX_REPORT - SPARE;
    let fits = nacks.iter().take_while(|nack| {
        // With its tag and length.
        let size = nack.encoded_len() + 8;
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    });
    let count = fits.count();
    nacks.truncate(count);
    nacks
}

/// Holds a window to what one process can have done, so that nothing that is made of it overflows, and the claims of one
/// proxy are no more than such. `None`: it tells of no time at all.
pub fn plausible(mut window: LoadWindow) -> Option<LoadWindow> {
    if window.duration_ms == 0 {
        return None;
    }
    window.duration_ms = window.duration_ms.min(MAX_WINDOW_MS);
    window.start_unix_ms = window.start_unix_ms.min(LATEST_MS);
    let ms = u64::from(window.duration_ms);
    let most = ms * REQUESTS_PER_MS;
    let LoadWindow { admitted, limited, shed, errors, failed, .. } = &mut window;
    for count in [admitted, limited, shed, errors, failed] {
        *count = (*count).min(most);
    }
    window.workers = window.workers.clamp(1, MAX_WORKERS);
    window.cpu_us = window.cpu_us.min(ms * 1_000 * u64::from(window.workers));
    window.memory_bytes = window.memory_bytes.min(MAX_MEMORY_BYTES);
    (window.in_flight, window.connections) =
        (window.in_flight.min(MAX_OPEN_CONNECTIONS), window.connections.min(MAX_OPEN_CONNECTIONS));
    window.added_latency = histogram(&window.added_latency, most);
    window.policies.truncate(MAX_POLICIES);
    window.policies.shrink_to_fit();
    for policy in &mut window.policies {
        policy.checked = policy.checked.min(most);
        policy.limited = policy.limited.min(policy.checked);
    }
    Some(window)
}

/// Each bucket once, with at most so many.
fn histogram(counts: &[LatencyCount], most: u64) -> Vec<LatencyCount> {
    let mut sums = [0u64; latency::BUCKETS];
    for LatencyCount { bucket, count } in counts {
        if let Some(sum) = sums.get_mut(*bucket as usize) {
            *sum = sum.saturating_add(*count).min(most);
        }
    }
    let counts = (0..).zip(sums).filter(|(_, count)| *count > 0);
    counts.map(|(bucket, count)| LatencyCount { bucket, count }).collect()
}

/// Holds what a proxy says of a refused resource to what is shown of it: so many, with texts of so much, on one line.
pub fn plausible_nacks(mut nacks: Vec<Nack>) -> Vec<Nack> {
    // No key is longer, no hash has another size.
    nacks.retain(|nack| nack.key.len() <= MAX_KEY && nack.hash.len() == HASH);
    nacks.truncate(MAX_NACKS);
    nacks.shrink_to_fit();
    for Nack { field, reason, message, hash, .. } in &mut nacks {
        // A part of the message, which would be kept with it.
        *hash = Bytes::copy_from_slice(hash);
        for (text, longest) in [(field, MAX_FIELD_BYTES), (reason, MAX_REASON_BYTES), (message, MAX_MESSAGE_BYTES)] {
            if text.len() > longest || text.contains(char::is_control) {
                *text = text.chars().filter(|c| !c.is_control()).collect();
                text.truncate((0..=longest.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
                text.shrink_to_fit();
            }
        }
    }
    nacks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::{Ack, Held, PolicyCount};

    fn hello(held: usize, policies: usize) -> Hello {
        let policy = |i: usize| PolicyCount { policy: format!("RatePolicy/ns/{i:030}"), checked: 1 << 20, limited: 3 };
        let window = LoadWindow { admitted: 7, policies: (0..policies).map(policy).collect(), ..LoadWindow::default() };
        let resource = |i: usize| Held { key: format!("Route/ns/{i:0200}"), hash: Bytes::from_static(&[7; 32]) };
        Hello {
            held: (0..held).map(resource).collect(),
            revision: Bytes::from_static(&[7; 32]),
            windows: vec![window; 300],
            epoch: 3,
            ready: true,
            ..Hello::default()
        }
    }

    #[track_caller]
    fn check(held: usize, policies: usize, expect: (usize, usize, usize)) {
        let fit = fit_hello(hello(held, policies));
        let counted = fit.windows.first().map_or(0, |window| window.policies.len());
        assert_eq!((fit.held.len(), fit.windows.len(), counted), expect);
        assert_eq!((fit.revision.is_empty(), fit.epoch, fit.ready), (expect.0 == 0, 3, true));
        assert!(fit.encoded_len() <= MAX_HELLO);
    }

    #[test]
    fn a_hello_leaves_out_what_it_can_do_without() {
        check(20_000, 500, (20_000, 300, 500));
        check(20_000, 2000, (20_000, 300, 0));
        check(67_361, 0, (67_361, 0, 0));
        check(80_000, 10, (0, 0, 0));
    }

    #[test]
    fn nacks_are_told_as_far_as_there_is_room() {
        let nack = Nack { key: "Route/ns/r".into(), message: "m".repeat(1000), ..Nack::default() };
        let ack = |count: usize| Ack { nacks: fit_nacks(vec![nack.clone(); count]), ..Ack::default() };
        assert_eq!(ack(1000).nacks.len(), 1000);
        let much = ack(10_000);
        assert!((4000..4200).contains(&much.nacks.len()), "{}", much.nacks.len());
        assert!(much.encoded_len() <= MAX_REPORT);
    }

    #[test]
    fn what_is_said_of_a_refusal_is_short() {
        let long = |c: &str| c.repeat(5_000);
        let hash = Bytes::from(vec![7; 5_000]).slice(..32);
        let nack = Nack { field: long("é"), reason: long("R"), message: long("a\nb"), hash, ..Nack::default() };
        assert_eq!(plausible_nacks(vec![Nack { hash: Bytes::new(), ..nack.clone() }]), []);
        let nacks = plausible_nacks(vec![nack; MAX_NACKS + 1]);
        assert_eq!(nacks.len(), MAX_NACKS);
        let Nack { field, reason, message, .. } = &nacks[0];
        assert_eq!((field.len(), reason.len(), message.len()), (MAX_FIELD_BYTES, MAX_REASON_BYTES, MAX_MESSAGE_BYTES));
        assert!(message.starts_with("abab") && message.capacity() < 1024);
    }

    proptest! {
        #[test]
        fn no_claim_is_more_than_a_process_can_do(
            start: u64, ms: u32, counts: [u64; 8], small: [u32; 3], latency in proptest::collection::vec((0..130u32, any::<u64>()), 0..300),
        ) {
            let [admitted, limited, shed, errors, cpu_us, memory_bytes, checked, over] = counts;
            let [workers, in_flight, connections] = small;
            let window = LoadWindow {
                start_unix_ms: start, duration_ms: ms, admitted, limited, shed, errors, cpu_us, workers, memory_bytes,
                in_flight, connections,
                added_latency: latency.into_iter().map(|(bucket, count)| LatencyCount { bucket, count }).collect(),
                policies: vec![PolicyCount { policy: "p".into(), checked, limited: over }; 3],
                draining: false,
                failed: errors,
            };
            let Some(window) = plausible(window) else {
                prop_assert_eq!(ms, 0);
                return Ok(());
            };
            let (ms, most) = (u64::from(window.duration_ms), u64::from(window.duration_ms) * 1_000);
            prop_assert!(window.start_unix_ms.checked_add(ms).is_some_and(|end| i64::try_from(end).is_ok()));
            prop_assert!([window.admitted, window.limited, window.shed, window.errors].iter().all(|n| *n <= most));
            prop_assert!(window.cpu_us <= ms * 1_000 * u64::from(window.workers) && window.workers <= MAX_WORKERS);
            prop_assert!(window.added_latency.len() <= latency::BUCKETS);
            // Sums over every window of five minutes of 4096 proxies.
            let sum: u64 = window.added_latency.iter().map(|n| n.count).sum();
            prop_assert!(sum.checked_mul(300 * 4096).is_some());
            prop_assert!(window.policies.iter().all(|p| p.limited <= p.checked && p.checked <= most));
        }

        /// What a sound proxy says stays as it is.
        #[test]
        fn a_sound_window_is_not_changed(admitted in 0..100_000u64, bucket in 0..100u32, workers in 1..64u32) {
            let window = LoadWindow {
                start_unix_ms: 1_700_000_000_000, duration_ms: 1000, admitted, workers, cpu_us: 1_000_000,
                memory_bytes: 1 << 30, connections: 5000, in_flight: 10,
                added_latency: vec![LatencyCount { bucket, count: admitted.max(1) }],
                policies: vec![PolicyCount { policy: "RatePolicy/a/b".into(), checked: 20, limited: 10 }],
                ..LoadWindow::default()
            };
            prop_assert_eq!(plausible(window.clone()), Some(window));
        }
    }
}
