//! Sets of networks: whether an address is in one of them takes a binary search, however many there are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Networks as the first and last address of each, in order. None overlaps another.
#[derive(Debug, Default)]
pub(super) struct Networks {
    v4: Box<[(Ipv4Addr, Ipv4Addr)]>,
    v6: Box<[(Ipv6Addr, Ipv6Addr)]>,
}

impl Networks {
    /// Whether an address is in one of them. An IPv4 address in IPv6 form is an IPv4 address.
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => contain(&self.v4, address),
            IpAddr::V6(address) => contain(&self.v6, address),
        }
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6) = (vec![], vec![]);
        for network in networks {
            match network {
                IpNet::V4(network) => v4.push((network.network(), network.broadcast())),
                IpNet::V6(network) => v6.push((network.network(), network.broadcast())),
            }
        }
        Self { v4: disjoint(v4), v6: disjoint(v6) }
    }
}

fn contain<A: Ord + Copy>(ranges: &[(A, A)], address: A) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).is_some_and(|at| address <= ranges[at].1)
}

/// Of two networks that overlap one is within the other, and is left out.
fn disjoint<A: Ord + Copy>(mut ranges: Vec<(A, A)>) -> Box<[(A, A)]> {
    ranges.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut last: Option<A> = None;
    ranges.retain(|(_, end)| {
        let is_within = last.is_some_and(|last| *end <= last);
        last = if is_within { last } else { Some(*end) };
        !is_within
    });
    ranges.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(of: &[&str]) -> Networks {
        of.iter().map(|network| network.parse::<IpNet>().unwrap()).collect()
    }

    #[test]
    fn families_and_edges() {
        let set = networks(&["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32", "255.255.255.255/32"]);
        for (address, expect) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.1.2.3", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("255.255.255.255", true),
            ("::ffff:10.0.0.1", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("::", false),
        ] {
            assert_eq!(set.contain(address.parse().unwrap()), expect, "{address}");
        }
        assert!(networks(&["0.0.0.0/0", "::/0"]).contain("::1".parse().unwrap()));
        assert!(!networks(&["0.0.0.0/0"]).contain("::1".parse().unwrap()));
        assert!(!networks(&[]).contain("10.0.0.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn as_asking_each(
            of in proptest::collection::vec((any::<u8>(), any::<u8>(), 0u8..=32), 0..40),
            address in (any::<u8>(), any::<u8>()),
        ) {
            let network = |(a, b, length): &(u8, u8, u8)| {
                IpNet::new(Ipv4Addr::new(10, *a, *b, 0).into(), *length).unwrap().trunc()
            };
            let all: Vec<IpNet> = of.iter().map(network).collect();
            let address = IpAddr::from(Ipv4Addr::new(10, address.0, address.1, 0));
            let expect = all.iter().any(|network| network.contains(&address));
            prop_assert_eq!(all.into_iter().collect::<Networks>().contain(address), expect);
        }
    }
}
