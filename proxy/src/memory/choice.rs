//! Who is ended when memory is scarce.
//!
//! Not the largest connection: who opens 2,000 of 100 KiB would have each honest upload of 200 KiB ended before its
//! own. So clients are compared by all that they hold, and of the one that holds most its largest connection goes; then
//! again, with what is left. Clients that share an address (behind a load balancer that hides them) are one: of those
//! the largest connections go first.

use std::{
    collections::{BinaryHeap, HashMap},
    net::IpAddr,
};

/// Connections, by index, that hold at least `wanted` bytes together, if all of them do. `each`: whose it is, what it
/// holds.
pub(super) fn of_most(each: &[(IpAddr, usize)], wanted: usize) -> Vec<usize> {
    let mut clients: HashMap<IpAddr, (usize, BinaryHeap<(usize, usize)>)> = HashMap::new();
    for (i, (client, held)) in each.iter().enumerate().filter(|(_, (_, held))| *held > 0) {
        let (sum, connections) = clients.entry(*client).or_default();
        *sum += held;
        connections.push((*held, i));
    }
    let mut order: BinaryHeap<(usize, IpAddr)> = clients.iter().map(|(client, (sum, _))| (*sum, *client)).collect();
    let (mut chosen, mut freed) = (vec![], 0);
    while freed < wanted
        && let Some((sum, client)) = order.pop()
    {
        let Some((held, i)) = clients.get_mut(&client).and_then(|(_, connections)| connections.pop()) else { continue };
        chosen.push(i);
        freed += held;
        order.push((sum - held, client));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    #[track_caller]
    fn check(each: &[(u8, usize)], wanted: usize, expect: &[usize]) {
        let each: Vec<_> = each.iter().map(|(n, held)| (client(*n), *held)).collect();
        assert_eq!(of_most(&each, wanted), expect);
    }

    #[test]
    fn sums_count_and_not_the_largest_connection() {
        check(&[(1, 200), (2, 90), (2, 80), (2, 70)], 50, &[1]);
        check(&[(1, 200), (2, 90), (2, 80), (2, 70)], 120, &[1, 0]);
        check(&[(1, 10), (1, 30), (1, 20)], 45, &[1, 2]);
        check(&[(1, 10)], 0, &[]);
        check(&[(1, 0), (2, 0)], 10, &[]);
        check(&[(1, 5)], 1000, &[0]);
    }

    proptest! {
        /// Enough is freed, nobody is ended in vain, and nobody is ended who holds less than one that stays as a whole.
        #[test]
        fn whoever_holds_most_goes_first(
            each in proptest::collection::vec((0..5u8, 0..1000usize), 0..40),
            wanted in 0..5000usize,
        ) {
            let each: Vec<_> = each.into_iter().map(|(n, held)| (client(n), held)).collect();
            let chosen = of_most(&each, wanted);
            let freed: usize = chosen.iter().map(|i| each[*i].1).sum();
            prop_assert!(freed >= wanted.min(each.iter().map(|(_, held)| held).sum()));
            let Some(last) = chosen.last() else { return Ok(()) };
            prop_assert!(freed - each[*last].1 < wanted);
            // Just before the last one was chosen, its client held at least as much as every other.
            let left = |of: IpAddr| -> usize {
                let gone = &chosen[..chosen.len() - 1];
                each.iter().enumerate().filter(|(i, (c, _))| *c == of && !gone.contains(i)).map(|(_, (_, h))| h).sum()
            };
            prop_assert!(each.iter().all(|(other, _)| left(*other) <= left(each[*last].0)));
        }
    }
}
