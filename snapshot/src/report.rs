//! What proxies tell, held to the sizes that operators take.

use prost::Message as _;

use crate::proto::{Hello, Nack};

/// Largest `Hello`. It has what the proxy holds (20,000 resources of 100 bytes: 2 MB) and five minutes of load (a window a
/// second, each with 50 bytes for each policy: 1000 policies make 15 MB).
pub const MAX_HELLO: usize = 16 << 20;
/// Largest message of a proxy after `Hello`. An `Ack` in which each of 10,000 routes is refused has some 3 MB.
pub const MAX_REPORT: usize = 4 << 20;
/// Room for the rest of a message.
const SPARE: usize = 4096;

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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::proto::{Ack, Held, LoadWindow, PolicyCount};

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
}
