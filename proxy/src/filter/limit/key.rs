//! What a limit counts by, read from a request without allocating.

use std::net::IpAddr;

use http::HeaderName;
use limits::{Key, Table};
use snapshot::{
    check::Unfit,
    proto::{self, key_part::Part},
};

use crate::{
    filter::Ctx,
    lookup::{Lookup, decoded},
    message::RequestHead,
};

/// A part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyPart {
    /// The client's network. An IPv4 address in IPv6 form is an IPv4 address.
    ClientIp {
        /// Bits that count.
        v4: u32,
        /// Bits that count.
        v6: u32,
    },
    /// Values of a header field, all together.
    Header(HeaderName),
    /// The first parameter of that name, decoded.
    Query(Box<[u8]>),
    /// The first cookie of that name.
    Cookie(Box<[u8]>),
    /// Who calls, as an access policy knows it.
    Consumer,
}

impl KeyPart {
    pub(super) fn compile(part: &proto::KeyPart) -> Result<Self, Unfit> {
        Ok(match &part.part {
            Some(Part::ClientIp(ip)) => KeyPart::ClientIp { v4: ip.ipv4_prefix.min(32), v6: ip.ipv6_prefix.min(128) },
            Some(Part::Header(name)) => KeyPart::Header(
                HeaderName::from_bytes(name.as_bytes())
                    .map_err(|e| Unfit::new("name", "InvalidHeader", format!("{name:?} is no field name: {e}")))?,
            ),
            Some(Part::Query(name)) => KeyPart::Query(name.as_bytes().into()),
            Some(Part::Cookie(name)) => KeyPart::Cookie(name.as_bytes().into()),
            Some(Part::Consumer(_)) => KeyPart::Consumer,
            None => return Err(Unfit::new("", "UnknownKey", "a key that this version does not know")),
        })
    }
}

/// The key of a request; `None`: the limit has one bucket for all. Requests that lack a part share a bucket.
pub(super) fn key(
    table: &Table,
    namespace: u64,
    parts: &[KeyPart],
    (head, lookup): (&RequestHead, &Lookup<'_>),
    ctx: &Ctx,
) -> Option<Key> {
    if parts.is_empty() {
        return None;
    }
    let mut key = table.key(namespace);
    for part in parts {
        match part {
            KeyPart::ClientIp { v4, v6 } => match ctx.client.to_canonical() {
                IpAddr::V4(ip) => key.part(&(ip.to_bits() & mask(*v4, 32) as u32).to_be_bytes()),
                IpAddr::V6(ip) => key.part(&(ip.to_bits() & mask(*v6, 128)).to_be_bytes()),
            },
            KeyPart::Header(name) => {
                let mut values = head.fields.get_all(name).peekable();
                if values.peek().is_none() {
                    key.missing();
                }
                values.for_each(|value| key.part(value));
            }
            KeyPart::Query(name) => match lookup.parameter(name) {
                Some(value) => key.part_of(decoded(value)),
                None => key.missing(),
            },
            KeyPart::Consumer => match &ctx.identity {
                Some(consumer) => {
                    key.part(consumer.namespace.as_bytes());
                    key.part(consumer.name.as_bytes());
                }
                None => key.missing(),
            },
            KeyPart::Cookie(name) => match lookup.cookie(name) {
                Some(value) => key.part(value),
                None => key.missing(),
            },
        }
    }
    Some(key.finish())
}

/// For all keys of a request.
pub(super) fn lookup(head: &RequestHead) -> Lookup<'_> {
    Lookup::new(head.uri.query(), &head.fields)
}

/// The upper `prefix` of `bits` bits.
fn mask(prefix: u32, bits: u32) -> u128 {
    let ones = if prefix == 0 { 0 } else { u128::MAX << (bits - prefix.min(bits)) };
    if bits == 128 { ones } else { ones & ((1 << bits) - 1) }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::filter::testing::ctx;

    fn of(part: &KeyPart, client: &str, uri: &str, headers: &[(&str, &str)], table: &Table) -> Key {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let mut ctx = ctx();
        ctx.client = client.parse().unwrap();
        let head = head.into();
        key(table, 1, std::slice::from_ref(part), (&head, &lookup(&head)), &ctx).unwrap()
    }

    #[test]
    fn networks() {
        let table = Table::new(1);
        let check = |v4, v6, a: &str, b: &str, same| {
            let part = KeyPart::ClientIp { v4, v6 };
            let [a, b] = [a, b].map(|ip| of(&part, ip, "/", &[], &table));
            assert_eq!(a == b, same, "{part:?}");
        };
        check(32, 64, "192.0.2.1", "192.0.2.1", true);
        check(32, 64, "192.0.2.1", "192.0.2.2", false);
        check(24, 64, "192.0.2.1", "192.0.2.2", true);
        check(24, 64, "192.0.2.1", "192.0.3.1", false);
        check(0, 0, "192.0.2.1", "8.8.8.8", true);
        check(32, 64, "192.0.2.1", "::ffff:192.0.2.1", true);
        check(32, 64, "::ffff:192.0.2.1", "::ffff:192.0.2.2", false);
        check(32, 64, "2001:db8::1", "2001:db8::ffff:1", true);
        check(32, 64, "2001:db8::1", "2001:db8:0:1::1", false);
        check(32, 128, "2001:db8::1", "2001:db8::2", false);
        check(32, 0, "2001:db8::1", "::2", true);
    }

    #[test]
    fn fields_parameters_and_cookies() {
        let table = Table::new(1);
        let query = |uri: &str| of(&KeyPart::Query((*b"user").into()), "::1", uri, &[], &table);
        assert_eq!(query("/?user=a"), query("/?x=1&user=%61&user=b"));
        assert_ne!(query("/?user=a"), query("/?user=b"));
        assert_ne!(query("/?user="), query("/"));
        assert_eq!(query("/"), query("/?other=a"));

        let cookie = |value: &str| of(&KeyPart::Cookie((*b"id").into()), "::1", "/", &[("cookie", value)], &table);
        assert_eq!(cookie("id=a"), cookie("xid=b; id=a ; id=c"));
        assert_ne!(cookie("id=a"), cookie("id=b"));
        assert_ne!(cookie("id="), cookie("idx=1"));

        let part = KeyPart::Header(HeaderName::from_static("x-user"));
        let header = |headers: &[(&str, &str)]| of(&part, "::1", "/", headers, &table);
        assert_eq!(header(&[("x-user", "a")]), header(&[("X-User", "a"), ("x", "y")]));
        assert_ne!(header(&[("x-user", "a")]), header(&[("x-user", "a"), ("x-user", "b")]));
        assert_ne!(header(&[("x-user", "")]), header(&[]));
    }
}
