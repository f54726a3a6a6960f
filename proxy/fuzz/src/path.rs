//! Host and path, as they are checked before anything is decided by them. The first line is a target, the second a Host.
//!
//! - A path is refused if and only if it breaks the rule of `snapshot::path`, decided here segment by segment.
//! - What comes out is the one spelling of what went in, and its own normal form.
//! - No spelling of a path escapes the rule that is meant for it.
//! - A host that is accepted is a name or an address, with at most a port behind it.

use std::{borrow::Cow, collections::BTreeMap, net::Ipv6Addr, sync::Arc};

use http::{HeaderValue, Method, Uri, header::HOST};
use proxy::{
    Shared,
    config::{Config, SnapshotStore},
    exchange::normalise,
    fields::Fields,
    router::Query,
    telemetry::Telemetry,
};
use snapshot::{
    Entry, Key, Kind, Snapshot,
    path::{self, Rules},
    proto::{self, PathKind, Resource, resource},
    wire::Push,
};

/// Checks one input.
pub fn check(input: &[u8]) {
    let (target, field) = input.split_at(input.iter().position(|b| *b == b'\n').unwrap_or(input.len()));
    // What a request's head may hold as its target; others never come here.
    if target.is_empty() || target.len() > 8 << 10 || target.iter().any(|b| matches!(b, 0..=b' ' | 0x7f)) {
        return;
    }
    let Ok(uri) = Uri::try_from(target) else { return };
    path(&uri);
    host(&uri, field.get(1..));
}

fn path(uri: &Uri) {
    let meant = naive(uri.path());
    let rules = Rules::default();
    let Some(normal) = path::normal(uri.path(), rules) else {
        assert_eq!(meant, None, "refused");
        return;
    };
    let (decoded, spelling) = meant.expect("should be refused");
    assert_eq!(normal, spelling);
    assert_eq!(matches!(normal, Cow::Owned(_)), normal != uri.path());
    assert_eq!(path::normal(&normal, rules).as_deref(), Some(&*normal));
    let compared = path::matched(&normal, rules);

    let expect = match &decoded[..] {
        b"/exact" => "exact",
        b"/admin" => "admin",
        below if below.starts_with(b"/admin/") => "admin",
        _ => "rest",
    };
    let q = Query {
        tls: false,
        host: "any",
        path: &compared,
        query: None,
        method: &Method::GET,
        fields: &Fields::default(),
    };
    ROUTES.with(|config| {
        let found = config.ports[&80].router.find(&q).expect("every path has a rule");
        assert_eq!(&*found.rule.name, expect);
    });
}

/// The bytes that a path means to a route, and its one spelling; `None` if servers could read it differently.
fn naive(path: &str) -> Option<(Vec<u8>, String)> {
    // Each byte, and whether it was encoded.
    let mut bytes: Vec<(u8, bool)> = vec![];
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let encoded = *first == b'%';
        let byte = match encoded {
            true => u8::from_str_radix(str::from_utf8(after.get(..2).filter(|d| d[0] != b'+')?).ok()?, 16).ok()?,
            false => *first,
        };
        rest = if encoded { &after[2..] } else { after };
        bytes.push((byte, encoded));
    }
    let overlong = |pair: &[(u8, bool)]| matches!((pair[0].0, pair[1].0), (0xe0, 0x80..=0x9f) | (0xf0, 0x80..=0x8f));
    let misread = |(byte, encoded): &(u8, bool)| matches!(byte, 0 | b'\\' | 0xc0 | 0xc1) || *encoded && *byte == b'/';
    if !path.starts_with('/') || bytes.iter().any(misread) || bytes.windows(2).any(overlong) {
        return None;
    }
    let text = |segment: &[(u8, bool)]| segment.iter().map(|(byte, _)| *byte).collect::<Vec<_>>();
    let name = |segment: &[(u8, bool)]| text(segment.split(|b| *b == (b';', false)).next().unwrap_or_default());
    let (mut kept, mut directory) = (vec![], true);
    for segment in bytes[1..].split(|b| *b == (b'/', false)) {
        if name(segment).len() < segment.len() && matches!(&name(segment)[..], b"." | b"..") {
            return None;
        }
        directory = true;
        match &text(segment)[..] {
            b"" | b"." => {}
            b".." => drop(kept.pop()?),
            _ => {
                kept.push(segment);
                directory = false;
            }
        }
    }
    let end: &[(u8, bool)] = &[];
    kept.extend(directory.then_some(end));
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let plain = |byte: u8| unreserved(byte) || b"!$&'()*+,=:@[];".contains(&byte);
    let spelt = |(byte, encoded): &(u8, bool)| match if *encoded { unreserved(*byte) } else { plain(*byte) } {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    let spelling = kept.iter().map(|segment| format!("/{}", segment.iter().map(spelt).collect::<String>())).collect();
    let last = kept.len() - 1;
    // A segment of parameters alone is an empty one.
    let compared = kept.iter().enumerate().filter(|(i, segment)| *i == last || !name(segment).is_empty());
    let decoded = compared.flat_map(|(_, segment)| [&b"/"[..], &name(segment)].concat()).collect();
    Some((decoded, spelling))
}

fn host(uri: &Uri, field: Option<&[u8]>) {
    let field = field.and_then(|field| HeaderValue::from_bytes(field).ok());
    let fields: Fields = field.iter().map(|field| (HOST, field.clone())).collect();
    let Ok(host) = normalise::host(uri, &fields) else { return };
    let (name, value) = (host.name(), str::from_utf8(&host.value).expect("ASCII").to_ascii_lowercase());
    let port = value.strip_prefix(&*name).expect("the name comes first");
    let digits = port.strip_prefix(':').unwrap_or(port);
    assert!(
        port.is_empty() || port.starts_with(':') && digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit())
    );
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    assert!((1..=255).contains(&name.len()));
    match address {
        Some(address) => assert!(address.parse::<Ipv6Addr>().is_ok(), "{name}"),
        None => assert!(name.bytes().all(plain), "{name}"),
    }
    if let (Some(authority), Some(field)) = (uri.authority(), field) {
        let named = |text: &str| text.to_ascii_lowercase().trim_end_matches(":80").trim_end_matches(":443").to_owned();
        assert_eq!(named(authority.as_str()), named(field.to_str().expect("ASCII")), "two hosts in one request");
    }
    let alone: Fields = [(HOST, HeaderValue::from_bytes(&host.value).expect("a valid value"))].into_iter().collect();
    let again = normalise::host(&Uri::from_static("/"), &alone).expect("it was valid");
    assert!(again.is_field && again.value == host.value && again.name() == host.name());
}

thread_local! {
    static ROUTES: Arc<Config> = routes();
}

/// A rule for a prefix, one for a whole path, one for all others.
fn routes() -> Arc<Config> {
    let rule = |name: &str, kind: PathKind, value: &str| proto::Rule {
        name: name.into(),
        matches: vec![proto::Match {
            path: Some(proto::PathMatch { kind: kind as i32, value: value.into() }),
            ..Default::default()
        }],
        backends: vec![proto::WeightedCluster { cluster: "Cluster/ns/c/80".into(), weight: 1 }],
        ..Default::default()
    };
    let rules = vec![
        rule("rest", PathKind::Prefix, "/"),
        rule("admin", PathKind::Prefix, "/admin"),
        rule("exact", PathKind::Exact, "/exact"),
    ];
    let attachments = vec![proto::Attachment { listener: "http".into(), hostnames: vec![] }];
    let route = proto::Route { created_ms: 0, attachments, rules };
    let listener = proto::Listener { name: "http".into(), port: 80, ..Default::default() };
    let entry = |kind| Entry::new(&Resource { requires: vec![], kind: Some(kind) });
    let target: Snapshot = [
        (Key::new(Kind::Route, "ns", "r"), entry(resource::Kind::Route(route))),
        (Key::listener("ns", "f", "http"), entry(resource::Kind::Listener(listener))),
    ]
    .into_iter()
    .collect();
    let shared = Shared::new(Telemetry::default());
    let mut store = SnapshotStore::new(Arc::clone(&shared));
    let delta = target.diff(&BTreeMap::new());
    let push = Push { epoch: 1, base: None, revision: target.revision(), delta };
    let staged = store.stage(push).expect("a valid push");
    assert_eq!(store.finish(staged, &BTreeMap::new()).nacks, []);
    shared.config.load_full()
}
