//! Whose a request is behind other proxies: limits, the services that filters ask and what backends are told go by one
//! address, and no spelling of a client's own makes it another one.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
};

use proxy::memory::Limit;
use snapshot::{
    Key, Kind,
    proto::{self, ClientAddressHeader, ClientIp, KeyPart, filter::Filter, key_part::Part, resource},
};
use support::{Client, HOST, OK, Proxy, Request, Upstream, content, entry, field, http2, http2_request, request};

/// A proxy that finds clients by these rules, has one request of each, and what its backend is asked.
fn limited(rules: Option<&proto::ClientAddress>) -> (Proxy, Arc<Mutex<Vec<String>>>) {
    serving(rules, None)
}

/// The same; with a filter, the backend is the service that it asks, too.
fn serving(rules: Option<&proto::ClientAddress>, filter: Option<&Filter>) -> (Proxy, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&asked);
    let upstream = Upstream::start(move |mut stream| {
        let mut read = vec![];
        while let Some(Request { head, .. }) = request(&mut stream, &mut read, &Mutex::default()) {
            log.lock().unwrap().push(head.to_lowercase());
            stream.write_all(OK).unwrap();
        }
    });
    let proxy = Proxy::serving(Limit::find(None), upstream.address, |port| {
        let mut content = content(port, upstream.address, proto::Limits::default(), |rule| {
            rule.filters = filter.iter().map(|filter| proto::Filter { filter: Some((*filter).clone()) }).collect();
        });
        let fleet =
            proto::Fleet { client_address: rules.cloned(), connection_max_age_ms: 600_000, ..proto::Fleet::default() };
        content.insert(Key::new(Kind::Fleet, "ns", "f"), entry(resource::Kind::Fleet(fleet)));
        let part = Part::ClientIp(ClientIp { ipv4_prefix: 32, ipv6_prefix: 64 });
        let limit = proto::Limit {
            name: "a".into(),
            key: vec![KeyPart { part: Some(part) }],
            token_bucket: Some(proto::TokenBucket { rate: 1, per_ms: 3_600_000, burst: 1 }),
            ..proto::Limit::default()
        };
        let targets = vec![proto::PolicyTarget::default()];
        let policy = proto::RatePolicy { targets, limits: vec![limit], unavailable: String::new() };
        content.insert(Key::new(Kind::RatePolicy, "ns", "p"), entry(resource::Kind::RatePolicy(policy)));
        content
    });
    (proxy, asked)
}

fn hops(header: ClientAddressHeader, trusted_hops: u32) -> proto::ClientAddress {
    proto::ClientAddress { header: header.into(), trusted_hops, trusted_cidrs: vec![] }
}

/// The status of a request with these fields.
fn ask(client: &mut Client, fields: &str) -> u16 {
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n").as_bytes());
    client.response(false).unwrap().0
}

#[test]
fn without_rules_it_is_whoever_connects() {
    let (proxy, asked) = limited(None);
    let mut client = proxy.connect();
    assert_eq!(ask(&mut client, "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n"), 200);
    assert_eq!(ask(&mut client, "X-Forwarded-For: 192.0.2.2\r\nForwarded: for=192.0.2.2\r\n"), 429);
    let asked = asked.lock().unwrap();
    assert_eq!(field(&asked[0], "x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
}

#[test]
fn each_client_behind_a_proxy_has_its_own_limit_whatever_it_writes() {
    for (header, name) in
        [(ClientAddressHeader::XForwardedFor, "X-Forwarded-For"), (ClientAddressHeader::Forwarded, "Forwarded")]
    {
        let (proxy, asked) = limited(Some(&hops(header, 1)));
        let mut client = proxy.connect();
        let written = |address: &str| match header {
            ClientAddressHeader::Forwarded => format!("for=\"{address}\""),
            ClientAddressHeader::XForwardedFor => address.to_owned(),
        };
        let (one, same) = (written("192.0.2.1"), written("192.0.2.1:4711"));
        assert_eq!(ask(&mut client, &format!("{name}: {one}\r\n")), 200);
        assert_eq!(ask(&mut client, &format!("{name}: {}\r\n", written("[2001:db8::1]:80"))), 200);
        for lie in [
            format!("{name}: {same}\r\n"),
            format!("{name}: 6.6.6.6, {one}\r\n"),
            format!("{name}: for=6.6.6.6, {one}\r\n"),
            format!("{name}: for=\"6.6.6.6, {one}\r\n"),
            format!("{name}: \"\\, {one}\r\n"),
            format!("{name}: 6.6.6.6\r\n{}:\t{one} \t\r\n", name.to_uppercase()),
            format!("{name}: 6.6.6.6\r\n{name}: {one},, ,\r\n{name}:\r\n"),
            // Of its connection alone, it says.
            format!("{name}: {one}\r\nConnection: {name}\r\n"),
            format!("{name}: {one}\r\nX-Real-IP: 6.6.6.6\r\nForwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n"),
            format!("{name}: {}\r\n", written("[2001:db8::2]")),
        ] {
            assert_eq!(ask(&mut client, &lie), 429, "{lie}");
        }
        // A line that is folded is no line at all.
        let mut other = proxy.connect();
        assert_eq!(ask(&mut other, &format!("{name}: 6.6.6.6,\r\n {one}\r\n")), 400);
        // By HTTP/2 they are the same clients.
        let asks = |value: String| {
            proxy.runtime.block_on(async {
                let mut sender = http2(&proxy).await;
                let request = http2_request("GET", "/").header(name, value).body(()).unwrap();
                sender.send_request(request, true).unwrap().0.await.unwrap().status().as_u16()
            })
        };
        assert_eq!([asks(one), asks(written("192.0.2.2"))], [429, 200]);
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 3);
        // Backends are told who connected, behind what was there.
        assert!(field(&asked[0], "x-forwarded-for").unwrap().ends_with("127.0.0.1"), "{}", asked[0]);
    }
}

#[test]
fn networks_say_who_is_a_proxy() {
    let rules = |cidrs: &[&str]| {
        let trusted_cidrs = cidrs.iter().map(|cidr| (*cidr).to_owned()).collect();
        proto::ClientAddress { header: 0, trusted_hops: 0, trusted_cidrs }
    };
    let (proxy, _) = limited(Some(&rules(&["127.0.0.0/8", "10.0.0.0/8"])));
    let mut client = proxy.connect();
    assert_eq!(ask(&mut client, "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.2\r\n"), 200);
    assert_eq!(ask(&mut client, "X-Forwarded-For: 6.6.6.7, 192.0.2.1, 10.0.0.3, 10.0.0.2\r\n"), 429);
    // The last that is known, for all whom that one does not name.
    assert_eq!(ask(&mut client, "X-Forwarded-For: unknown, 10.0.0.2\r\n"), 200);
    assert_eq!(ask(&mut client, "X-Forwarded-For: _somebody, 10.0.0.2\r\n"), 429);
    // Who connects from elsewhere is a client.
    let (proxy, _) = limited(Some(&rules(&["10.0.0.0/8"])));
    let mut client = proxy.connect();
    assert_eq!(ask(&mut client, "X-Forwarded-For: 192.0.2.1\r\n"), 200);
    assert_eq!(ask(&mut client, "X-Forwarded-For: 192.0.2.2\r\n"), 429);
}

#[test]
fn services_are_told_the_client_alone() {
    let auth = proto::ExternalAuth {
        cluster: "Cluster/ns/c/80".into(),
        path: "/check".into(),
        timeout_ms: 5000,
        ..proto::ExternalAuth::default()
    };
    let (proxy, asked) = serving(Some(&hops(ClientAddressHeader::XForwardedFor, 1)), Some(&Filter::ExternalAuth(auth)));
    assert_eq!(ask(&mut proxy.connect(), "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n"), 200);
    let asked = asked.lock().unwrap();
    let told: Vec<_> = asked.iter().map(|head| field(head, "x-forwarded-for").unwrap()).collect();
    assert!(asked[0].starts_with("get /check/"), "{}", asked[0]);
    assert_eq!(told, ["192.0.2.1", "6.6.6.6, 192.0.2.1, 127.0.0.1"]);
}
