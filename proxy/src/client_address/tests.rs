use http::HeaderValue;
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

const PEER: &str = "10.0.0.1";

fn rules(forwarded: bool, hops: u32, cidrs: &[&str]) -> ClientAddress {
    ClientAddress::from(&proto::ClientAddress {
        header: forwarded.into(),
        trusted_hops: hops,
        trusted_cidrs: cidrs.iter().map(|cidr| (*cidr).to_owned()).collect(),
    })
}

fn fields(name: &HeaderName, lines: &[impl AsRef<[u8]>]) -> Fields {
    lines.iter().map(|line| (name.clone(), HeaderValue::from_bytes(line.as_ref()).unwrap())).collect()
}

#[track_caller]
fn check(rules: &ClientAddress, lines: &[&str], expect: &str) {
    let name = if rules.syntax == Syntax::Forwarded { FORWARDED } else { X_FORWARDED_FOR };
    let client = rules.of(PEER.parse().unwrap(), &fields(&name, lines));
    assert_eq!(client, expect.parse::<IpAddr>().unwrap(), "{lines:?}");
}

#[test]
fn hops_are_counted_from_the_end() {
    let one = rules(false, 1, &[]);
    check(&one, &[], PEER);
    check(&one, &["192.0.2.1"], "192.0.2.1");
    check(&one, &["6.6.6.6, 192.0.2.1"], "192.0.2.1");
    check(&one, &["6.6.6.6", "192.0.2.1"], "192.0.2.1");
    check(&one, &["192.0.2.1 , ", ",, "], "192.0.2.1");
    let three = rules(false, 3, &[]);
    check(&three, &["6.6.6.6, 192.0.2.1, 10.0.0.3", "10.0.0.2"], "192.0.2.1");
    // Whoever connected past the first proxy is known by what the others saw.
    check(&three, &["192.0.2.1, 10.0.0.2"], "192.0.2.1");
    check(&three, &["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2");
}

#[test]
fn proxies_are_those_of_the_networks() {
    let rules = rules(false, 0, &["10.0.0.0/8", "fd00::/8"]);
    check(&rules, &["6.6.6.6, 192.0.2.1, fd00::1, 10.0.0.2"], "192.0.2.1");
    check(&rules, &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
    check(&rules, &["192.0.2.1, nobody, ::ffff:10.0.0.2"], "10.0.0.2");
    let outside = rules.of("192.0.2.9".parse().unwrap(), &fields(&X_FORWARDED_FOR, &["192.0.2.1"]));
    assert_eq!(outside.to_string(), "192.0.2.9", "who connects from elsewhere is a client");
    let mapped = rules.of("::ffff:10.0.0.1".parse().unwrap(), &fields(&X_FORWARDED_FOR, &["192.0.2.1"]));
    assert_eq!(mapped.to_string(), "192.0.2.1");
    // Beyond the bound the walk ends, wherever it is.
    let long = vec!["10.1.1.1"; 20_000].join(",");
    check(&rules, &[&format!("192.0.2.1,{long}")], "10.1.1.1");
}

#[test]
fn nodes_as_proxies_write_them() {
    let one = rules(false, 1, &[]);
    for (entry, expect) in [
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:DB8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:1", "192.0.2.1"),
    ] {
        check(&one, &[entry], expect);
    }
    for garbage in [
        "unknown",
        "_hidden",
        "-",
        "192.0.2",
        "192.0.2.1.1",
        "192.0.2.01",
        "192.0.2.1:",
        "192.0.2.1:x",
        "192.0.2.1:123456",
        "0xc0000201",
        "[192.0.2.1]",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]4711",
        "fe80::1%eth0",
        "\"192.0.2.1\"",
        "192.0.2.1 192.0.2.2",
        "for=192.0.2.1",
        "192.0.2.1;192.0.2.2",
        "localhost",
    ] {
        check(&one, &["192.0.2.9", garbage], PEER);
    }
}

#[test]
fn elements_of_rfc_7239() {
    let one = rules(true, 1, &[]);
    for (line, expect) in [
        ("for=192.0.2.43", "192.0.2.43"),
        ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ("by=203.0.113.43 ; FOR = \"192.0.2.60:_port\" ;", "192.0.2.60"),
        ("for=\"[2001:db8::1]\", for=192.0.2.43", "192.0.2.43"),
        ("host=\"a,b;for=6.6.6.6\";for=192.0.2.1", "192.0.2.1"),
        ("for=192.0.2.1;host=\"a\\\\\"", "192.0.2.1"),
        ("for=192.0.2.1;host=\"a\\\"b,;\"", "192.0.2.1"),
        // What a client left open is no part of what the proxy wrote.
        ("for=\"6.6.6.6, for=192.0.2.1", "192.0.2.1"),
        ("for=6.6.6.6\\, for=\"192.0.2.1\"", "192.0.2.1"),
    ] {
        check(&one, &[line], expect);
    }
    for garbage in [
        "for=unknown",
        "for=_hidden",
        "for=\"_SEVKISEK\"",
        "proto=https",
        "192.0.2.1",
        "for=192.0.2.1;for=192.0.2.1",
        "for=192.0.2.1:80",
        "for=2001:db8::1",
        "for=[2001:db8::1]",
        "for=\"2001:db8::1\"",
        "for=\"192.0.2.1",
        "for=192.0.2.1\"",
        "for='192.0.2.1'",
        "for=192.0.2.1;x",
    ] {
        check(&one, &["for=192.0.2.9", garbage], PEER);
    }
}

/// What a client may write: lines of a field, with all that means something in it.
fn lies() -> impl Strategy<Value = Vec<String>> {
    let word = select(vec![
        "6.6.6.6",
        "10.0.0.9",
        "[::1]",
        "::1",
        ":80",
        "\"",
        "\\",
        "\\\"",
        ",",
        ";",
        " ",
        "\t",
        "for=",
        "FOR=",
        "for=\"",
        "by=",
        "unknown",
        "_x",
        "=",
        "é",
        "10.0.0.2, 6.6.6.6",
        "\"for=6.6.6.6\"",
        "X",
    ]);
    vec(vec(word, 0..12).prop_map(|words| words.concat().trim().to_owned()), 0..4)
}

/// How a proxy spells an address in its entry.
fn spelt(address: IpAddr, forwarded: bool, style: u8) -> String {
    let port = [":4711", ""][usize::from(style & 1)];
    let node = match (address, forwarded) {
        (IpAddr::V6(v6), false) if style & 1 == 1 => v6.to_string(),
        (IpAddr::V6(v6), _) => format!("[{v6}]{port}"),
        (IpAddr::V4(v4), _) => format!("{v4}{port}"),
    };
    if !forwarded {
        return if style & 2 == 0 { node } else { node.to_ascii_uppercase() };
    }
    let name = ["for", "For", "FOR", "fOr"][usize::from(style >> 1 & 3)];
    let pair =
        if node.contains(':') || style & 8 == 0 { format!("{name}=\"{node}\"") } else { format!("{name}={node}") };
    match style >> 4 & 3 {
        0 => pair,
        1 => format!("{pair};proto=https"),
        2 => format!("by=\"_a\\\",for=6.6.6.6\"; {pair}"),
        _ => format!("{pair} ; host=\"a,b\""),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever a client writes, and however the proxies spell theirs, or fold them into lines: the client is who connected to
    /// the first proxy.
    #[test]
    fn no_client_chooses_its_address(
        lies in lies(),
        proxies in vec((any::<u8>(), any::<u8>(), select(vec![",", ", ", " ,\t", ",,", "\n"])), 1..5),
        client in prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)],
        forwarded in any::<bool>(),
        by_count in any::<bool>(),
    ) {
        let client = client.to_canonical();
        let mut lines = lies;
        let mut seen = client;
        for (number, style, separator) in &proxies {
            let entry = spelt(seen, forwarded, *style);
            match lines.last_mut() {
                Some(line) if *separator != "\n" => *line = format!("{line}{separator}{entry}"),
                _ => lines.push(entry),
            }
            seen = IpAddr::from([10, 9, 9, *number]);
        }
        let hops = u32::try_from(proxies.len()).unwrap();
        let rules = if by_count { rules(forwarded, hops, &[]) } else { rules(forwarded, 0, &["10.9.9.0/24"]) };
        prop_assume!(by_count || !"10.9.9.0/24".parse::<IpNet>().unwrap().contains(&client));
        let name = if forwarded { FORWARDED } else { X_FORWARDED_FOR };
        prop_assert_eq!(rules.of(seen, &fields(&name, &lines)), client, "{:?}", lines);
        // The other field is nobody's.
        let other = if forwarded { X_FORWARDED_FOR } else { FORWARDED };
        prop_assert_eq!(rules.of(seen, &fields(&other, &lines)), seen);
    }

    #[test]
    fn any_bytes_end_somewhere(bytes in vec(any::<u8>(), 0..200), forwarded in any::<bool>(), hops in 1..16u32) {
        let line = bytes.into_iter().filter(|b| *b == b'\t' || *b >= b' ' && *b != 0x7f).collect::<Vec<_>>();
        let name = if forwarded { FORWARDED } else { X_FORWARDED_FOR };
        rules(forwarded, hops, &[]).of(PEER.parse().unwrap(), &fields(&name, &[line]));
    }
}
