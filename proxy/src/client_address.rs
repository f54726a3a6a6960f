//! The client's address behind other proxies, from `X-Forwarded-For` or `Forwarded` (RFC 7239).
//!
//! Each proxy adds the address that connected to it behind those that were there. So a list is read from its end: what the
//! nearest proxy wrote comes first, and the walk ends before what a client wrote itself. No entry is looked at that a
//! trusted proxy did not write, so that none of them changes how another one is read. What is no address ends the walk:
//! the last one that was read is the client's.
//!
//! Each byte is looked at once, and no more than [`MAX_HOPS`] entries are read.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderName, header::FORWARDED};
use ipnet::IpNet;
use snapshot::proto::{self, ClientAddressHeader};

use crate::{fields::Fields, forwarded::X_FORWARDED_FOR};

/// Most entries that are read of one request's list.
const MAX_HOPS: usize = 32;

/// The rules by which clients' addresses are found.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientAddress {
    syntax: Syntax,
    trust: Trust,
}

/// The field that is read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Syntax {
    XForwardedFor,
    Forwarded,
}

/// The proxies whose entries count.
#[derive(Clone, Debug, PartialEq)]
enum Trust {
    /// As many, the one that connects included.
    Hops(usize),
    /// Those of these networks.
    Networks(Box<[IpNet]>),
}

impl From<&proto::ClientAddress> for ClientAddress {
    fn from(address: &proto::ClientAddress) -> Self {
        let syntax = match address.header() {
            ClientAddressHeader::XForwardedFor => Syntax::XForwardedFor,
            ClientAddressHeader::Forwarded => Syntax::Forwarded,
        };
        let trust = match usize::try_from(address.trusted_hops) {
            Ok(hops @ 1..) => Trust::Hops(hops),
            // `check` refuses what is no network.
            _ => Trust::Networks(address.trusted_cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect()),
        };
        Self { syntax, trust }
    }
}

impl ClientAddress {
    /// The client of a request that came over a connection of `peer`.
    pub fn of(&self, peer: IpAddr, fields: &Fields) -> IpAddr {
        match self.syntax {
            Syntax::XForwardedFor => self.walk(peer, fields, &X_FORWARDED_FOR, plain_items, |item| node(item, true)),
            Syntax::Forwarded => self.walk(peer, fields, &FORWARDED, quoted_items, element),
        }
    }

    fn walk<'f, I: Iterator<Item = &'f [u8]>>(
        &self,
        peer: IpAddr,
        fields: &'f Fields,
        name: &'f HeaderName,
        items: impl Fn(&'f [u8]) -> I,
        address: impl Fn(&[u8]) -> Option<IpAddr>,
    ) -> IpAddr {
        let mut client = peer.to_canonical();
        // Lines of one name are one list (RFC 9110 section 5.3), and elements may be empty (section 5.6.1.2).
        let mut entries = fields.get_all(name).rev().flat_map(items).map(<[u8]>::trim_ascii).filter(|i| !i.is_empty());
        for hop in 0..MAX_HOPS {
            let is_proxy = match &self.trust {
                Trust::Hops(hops) => hop < *hops,
                Trust::Networks(networks) => networks.iter().any(|network| network.contains(&client)),
            };
            if !is_proxy {
                break;
            }
            match entries.next().and_then(&address) {
                Some(before) => client = before,
                None => break,
            }
        }
        client
    }
}

/// The items of a list without quotes, the last one first.
fn plain_items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.rsplit(|b| *b == b',')
}

/// The items of a list whose members may be quoted, the last one first. A quote that is not opened belongs to whatever
/// stands before it, up to the list's beginning.
fn quoted_items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let list = rest?;
        let (before, item) = split_last(list, b',');
        rest = before;
        Some(item)
    })
}

/// Splits at the last separator that is not quoted.
fn split_last(list: &[u8], separator: u8) -> (Option<&[u8]>, &[u8]) {
    let mut quoted = false;
    for (at, byte) in list.iter().enumerate().rev() {
        match byte {
            b'"' if !is_escaped(&list[..at]) => quoted = !quoted,
            _ if *byte == separator && !quoted => return (Some(&list[..at]), &list[at + 1..]),
            _ => {}
        }
    }
    (None, list)
}

/// Whether what comes behind is escaped: behind an odd number of backslashes. They are counted once, for the one quote
/// that they stand before.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1
}

/// The address of a `forwarded-element` (RFC 7239 section 4): that of its only `for`.
fn element(element: &[u8]) -> Option<IpAddr> {
    let (mut rest, mut found) = (Some(element), None);
    while let Some(list) = rest {
        let (before, pair) = split_last(list, b';');
        rest = before;
        let Some(equals) = pair.iter().position(|b| *b == b'=') else {
            if pair.trim_ascii().is_empty() {
                continue;
            }
            return None;
        };
        let (name, value) = (&pair[..equals], &pair[equals + 1..]);
        if name.trim_ascii().eq_ignore_ascii_case(b"for") && found.replace(value.trim_ascii()).is_some() {
            return None;
        }
    }
    match found? {
        [b'"', quoted @ .., b'"'] => node(quoted, false),
        // A token has neither brackets nor colons: one with a port, or of IPv6, is quoted.
        token if !token.contains(&b':') => node(token, false),
        _ => None,
    }
}

/// The address of a node, with or without a port, which may be an obfuscated one (RFC 7239 section 6). `bare`: an IPv6
/// address may be without brackets, and then has no port.
fn node(node: &[u8], bare: bool) -> Option<IpAddr> {
    let text = str::from_utf8(node).ok()?;
    if bare && let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some(IpAddr::V6(address).to_canonical());
    }
    let (address, behind) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (address, behind) = bracketed.split_once(']')?;
            (IpAddr::V6(address.parse().ok()?), behind)
        }
        None => {
            let (address, behind) = text.split_at(text.find(':').unwrap_or(text.len()));
            (IpAddr::V4(address.parse().ok()?), behind)
        }
    };
    let is_port = |port: &str| match port.strip_prefix('_') {
        Some(name) => !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
        None => (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit()),
    };
    let fit = behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port);
    fit.then(|| address.to_canonical())
}

#[cfg(test)]
mod tests;
