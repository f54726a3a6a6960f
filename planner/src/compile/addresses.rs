//! Addresses as backends in a cluster: only what the fleet allows, and never what is the proxy's own machine.
//!
//! An address goes past every ReferenceGrant and every Service that guards what it leads to, and the proxy has no
//! NetworkPolicy of the route's namespace: so the fleet's owner says which there may be.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// Why an address can't be a backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAllowed {
    #[error("{address} is {what}, which is no backend in a cluster: use a Service")]
    Never { address: IpAddr, what: &'static str },
    #[error(
        "{address} is in none of spec.backends.allowedAddresses of {fleet} ({allowed}): have it allowed there, or use a Service"
    )]
    ByFleet { address: IpAddr, fleet: String, allowed: String },
}

/// What no fleet can allow.
pub(super) fn never(address: IpAddr) -> Result<(), NotAllowed> {
    // `::ffff:127.0.0.1` is 127.0.0.1 to a socket.
    let what = match address.to_canonical() {
        IpAddr::V4(v4) => never_v4(v4),
        IpAddr::V6(v6) => match v6.segments() {
            _ if v6.is_loopback() => Some("a loopback address"),
            _ if v6.is_unspecified() => Some("the unspecified address"),
            _ if v6.is_multicast() => Some("a multicast address"),
            [first, ..] if first & 0xffc0 == 0xfe80 => Some("a link-local address"),
            // `::a.b.c.d` and `64:ff9b::a.b.c.d` hold an IPv4 address that some networks send to.
            [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => never_v4(embedded(high, low)),
            _ => None,
        },
    };
    what.map_or(Ok(()), |what| Err(NotAllowed::Never { address, what }))
}

/// Whether a fleet's networks hold an address.
pub(super) fn allowed(address: IpAddr, networks: &[IpNet], fleet: &str) -> Result<(), NotAllowed> {
    let canonical = address.to_canonical();
    if networks.iter().any(|network| network.contains(&canonical)) {
        return Ok(());
    }
    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
    let allowed = if networks.is_empty() { "none is allowed".to_owned() } else { networks.join(", ") };
    Err(NotAllowed::ByFleet { address, fleet: fleet.to_owned(), allowed })
}

fn never_v4(address: Ipv4Addr) -> Option<&'static str> {
    if address.is_loopback() {
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
