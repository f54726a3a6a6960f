//! Addresses as backends in a cluster: only what the fleet allows, and never what is the proxy's own machine.
//!
//! An address goes past every ReferenceGrant and every Service that guards what it leads to, and the proxy has no
//! NetworkPolicy of the route's namespace: so the fleet's owner says which there may be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The reason why an address can't be a backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAllowed {
    #[error("{address} is {what}, which is no backend in a cluster: use a Service")]
    Never { address: IpAddr, what: &'static str },
    #[error(
        "{address} is in none of spec.backends.allowedAddresses of {fleet} ({allowed}): have it allowed there, or use a Service"
    )]
    ByFleet { address: IpAddr, fleet: String, allowed: String },
}

/// Addresses where clouds give their machines an identity and credentials, besides link-local ones: AWS and Google by
/// IPv6, Oracle by both, Alibaba, Azure.
const METADATA_ADDRESSES: [IpAddr; 7] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// The check for addresses that no fleet can allow.
pub(super) fn never(address: IpAddr) -> Result<(), NotAllowed> {
    what_never(address).map_or(Ok(()), |what| Err(NotAllowed::Never { address, what }))
}

/// The name of the range of an address that is never a backend.
pub(super) fn what_never(address: IpAddr) -> Option<&'static str> {
    // `::ffff:127.0.0.1` is 127.0.0.1 to a socket.
    match address.to_canonical() {
        IpAddr::V4(v4) => never_v4(v4),
        IpAddr::V6(v6) => match v6.segments() {
            _ if METADATA_ADDRESSES.contains(&v6.into()) => Some("an address of a cloud's metadata"),
            _ if v6.is_loopback() => Some("a loopback address"),
            _ if v6.is_unspecified() => Some("the unspecified address"),
            _ if v6.is_multicast() => Some("a multicast address"),
            [first, ..] if first & 0xffc0 == 0xfe80 => Some("a link-local address"),
            _ => held(v6).and_then(never_v4),
        },
    }
}

/// The address without what hides it: a socket takes `::ffff:a.b.c.d` for a.b.c.d, and some networks send to it what
/// is for an address that holds it.
pub(super) fn bare(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => held(v6).map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 => v4,
    }
}

/// The IPv4 address that one of IPv6 holds: `::a.b.c.d`, of NAT64 `64:ff9b::a.b.c.d` and `64:ff9b:1::a.b.c.d`, of 6to4
/// `2002:ab:cd::`.
fn held(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => Some(embedded(high, low)),
        _ => None,
    }
}

/// Whether a fleet's networks hold an address.
pub(super) fn allowed(address: IpAddr, networks: &[IpNet], fleet: &str) -> Result<(), NotAllowed> {
    if is_in(address, networks) {
        return Ok(());
    }
    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
    let allowed = if networks.is_empty() { "none is allowed".to_owned() } else { networks.join(", ") };
    Err(NotAllowed::ByFleet { address, fleet: fleet.to_owned(), allowed })
}

/// Whether one of the networks holds an address.
pub(super) fn is_in(address: IpAddr, networks: &[IpNet]) -> bool {
    let canonical = address.to_canonical();
    networks.iter().any(|network| network.contains(&canonical))
}

fn never_v4(address: Ipv4Addr) -> Option<&'static str> {
    if METADATA_ADDRESSES.contains(&address.into()) {
        Some("an address of a cloud's metadata")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.octets()[0] == 0 {
        // RFC 1122 3.2.1.3: this host on this network; Linux connects 0.0.0.0 to itself.
        Some("the unspecified address")
    } else if address.is_link_local() {
        // Where clouds keep the credentials of their machines.
        Some("a link-local address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_broadcast() {
        Some("the broadcast address")
    } else {
        None
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, networks: &[&str], expect: &str) {
        let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
        let address = address.parse().unwrap();
        let got = never(address).and_then(|()| allowed(address, &networks, "GatewayFleet ns/f"));
        let got = got.err().map(|why| why.to_string()).unwrap_or_default();
        assert!(got.contains(expect) && got.is_empty() == expect.is_empty(), "{address}: {got:?}");
    }

    #[test]
    fn what_is_never_a_backend() {
        let all = ["0.0.0.0/0", "::/0"];
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1"] {
            check(loopback, &all, "is a loopback address");
        }
        for link_local in ["169.254.169.254", "fe80::1", "febf::1", "::ffff:169.254.0.1", "64:ff9b::169.254.169.254"] {
            check(link_local, &all, "is a link-local address");
        }
        for unspecified in ["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0"] {
            check(unspecified, &all, "is the unspecified address");
        }
        for multicast in ["224.0.0.1", "239.255.255.255", "ff02::1", "::ffff:224.0.0.1"] {
            check(multicast, &all, "is a multicast address");
        }
        for metadata in ["fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "::ffff:192.0.0.192"] {
            check(metadata, &all, "is an address of a cloud's metadata");
        }
        for hidden in ["2002:a9fe:a9fe::1", "64:ff9b:1::169.254.169.254", "64:ff9b::169.254.169.254"] {
            check(hidden, &all, "is a link-local address");
        }
        check("2002:7f00:1::", &all, "is a loopback address");
        check("255.255.255.255", &all, "is the broadcast address");
        for good in ["10.0.0.1", "128.0.0.1", "fd00::1", "fec0::1", "2001:db8::1", "::ffff:10.0.0.1"] {
            check(good, &all, "");
        }
    }

    #[test]
    fn what_a_fleet_allows() {
        let networks = ["10.20.0.0/16", "fd00:20::/64"];
        check("10.20.255.255", &networks, "");
        check("::ffff:10.20.0.1", &networks, "");
        check("fd00:20::1", &networks, "");
        check("10.21.0.0", &networks, "of GatewayFleet ns/f (10.20.0.0/16, fd00:20::/64): have it allowed");
        check("fd00:21::1", &networks, "is in none of");
        check("10.20.0.1", &[], "(none is allowed)");
        // Host bits mean nothing.
        check("10.20.9.9", &["10.20.1.1/16"], "");
        check("10.0.0.1", &["::/0"], "is in none of");
    }
}
