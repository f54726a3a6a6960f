//! Names of resources, and hashes of their content.

use std::{cmp::Ordering, fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

/// The kinds of resources. A new one comes before `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // each but the last names the message of that name
pub enum Kind {
    Fleet,
    Listener,
    Certificate,
    Route,
    Cluster,
    RatePolicy,
    Consumer,
    AccessPolicy,
    /// A kind that this version does not know: its word stands in the key alone.
    Unknown,
}

impl Kind {
    /// The last of those that the protocol began with.
    const LAST_OF_THE_FIRST: Kind = Kind::RatePolicy;

    /// Every kind that is known.
    pub const ALL: [Kind; 8] = [
        Kind::Fleet,
        Kind::Listener,
        Kind::Certificate,
        Kind::Route,
        Kind::Cluster,
        Kind::RatePolicy,
        Kind::Consumer,
        Kind::AccessPolicy,
    ];

    /// The word that a key begins with.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Fleet => "Fleet",
            Kind::Listener => "Listener",
            Kind::Certificate => "Certificate",
            Kind::Route => "Route",
            Kind::Cluster => "Cluster",
            Kind::RatePolicy => "RatePolicy",
            Kind::Consumer => "Consumer",
            Kind::AccessPolicy => "AccessPolicy",
            Kind::Unknown => "Unknown",
        }
    }

    /// The feature by which a proxy announces that it knows the kind; `None`: the protocol began with it, and every proxy
    /// does. Older ones are sent nothing of it.
    pub fn feature(self) -> Option<&'static str> {
        (self > Self::LAST_OF_THE_FIRST).then_some(self.as_str())
    }

    /// The kinds that a proxy does not know which announces these features.
    pub fn unknown_to(features: &[String]) -> Vec<Kind> {
        let is_announced = |feature: &str| features.iter().any(|announced| announced == feature);
        Self::ALL.into_iter().filter(|kind| kind.feature().is_some_and(|feature| !is_announced(feature))).collect()
    }

    /// The place of its keys among those of others. Revisions are hashes of resources in the order of their keys, and an
    /// older proxy does not know in which order later kinds came: theirs are in the order of their texts alone.
    fn rank(self) -> u8 {
        (self as u8).min(Self::LAST_OF_THE_FIRST as u8 + 1)
    }

    /// The kind of object that its resources are made of. Those of another one carry that in their keys.
    pub const fn origin(self) -> &'static str {
        match self {
            Kind::Fleet | Kind::Listener => "GatewayFleet",
            Kind::Certificate => "Secret",
            Kind::Route => "ApiRoute",
            Kind::Cluster => "Service",
            Kind::RatePolicy => "RatePolicy",
            Kind::Consumer => "Consumer",
            Kind::AccessPolicy => "AccessPolicy",
            Kind::Unknown => "",
        }
    }
}

/// A resource's name within a snapshot: `Kind/namespace/name`, with a further segment for listeners, clusters, and what
/// is made of another kind of object than is usual. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    kind: Kind,
    text: Arc<str>,
}

/// The reason why a string is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no resource key (Kind/namespace/name, at most {MAX_KEY} bytes)")]
pub struct ParseKeyError(String);

/// Longest key: kind, two DNS names of 253 bytes, a listener name, an address or a kind of objects.
pub(crate) const MAX_KEY: usize = 700;

impl Key {
    /// `Kind/namespace/name`.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, text: format!("{}/{namespace}/{name}", kind.as_str()).into() }
    }

    /// The key of what an object of the kind `origin` is compiled to: `Kind/namespace/name`, and behind it the origin,
    /// unless it is [`Kind::origin`]. So two objects of one name and different kinds are two resources.
    pub fn of_object(kind: Kind, origin: &str, namespace: &str, name: &str) -> Self {
        if origin == kind.origin() {
            return Self::new(kind, namespace, name);
        }
        Self { kind, text: format!("{}/{namespace}/{name}/{origin}", kind.as_str()).into() }
    }

    /// `Listener/namespace/fleet/name`.
    pub fn listener(namespace: &str, fleet: &str, name: &str) -> Self {
        Self { kind: Kind::Listener, text: format!("Listener/{namespace}/{fleet}/{name}").into() }
    }

    /// `Cluster/namespace/name/port`; for an address backend, the address and its protocol.
    pub fn cluster(namespace: &str, name: &str, port: &str) -> Self {
        Self { kind: Kind::Cluster, text: format!("Cluster/{namespace}/{name}/{port}").into() }
    }

    /// Before all keys of a kind.
    pub(crate) fn first(kind: Kind) -> Self {
        Self { kind, text: format!("{}/", kind.as_str()).into() }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The namespace segment.
    pub fn namespace(&self) -> &str {
        self.text.split('/').nth(1).unwrap_or_default()
    }

    /// Everything behind the namespace: the name, and further segments if any.
    pub fn name(&self) -> &str {
        self.text.splitn(3, '/').nth(2).unwrap_or_default()
    }
}

impl FromStr for Key {
    type Err = ParseKeyError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = || ParseKeyError(s.chars().take(80).collect());
        let mut segments = s.split('/');
        let word = segments.next().unwrap_or_default();
        let is_word =
            word.starts_with(|c: char| c.is_ascii_uppercase()) && word.bytes().all(|b| b.is_ascii_alphanumeric());
        let kind = Kind::ALL.into_iter().find(|k| k.as_str() == word).or(is_word.then_some(Kind::Unknown));
        let kind = kind.ok_or_else(bad)?;
        let rest = segments.try_fold(0, |n, segment| (!segment.is_empty()).then_some(n + 1)).ok_or_else(bad)?;
        if s.len() > MAX_KEY || !(2..=3).contains(&rest) {
            return Err(bad());
        }
        Ok(Self { kind, text: s.into() })
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.kind.rank(), &self.text).cmp(&(other.kind.rank(), &other.text))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

/// BLAKE3 hash of a resource's encoding, or of a whole snapshot (its revision).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The hash that these bytes from the wire are; `None` unless there are 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// All 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 7 hex digits, as shown to people.
    pub fn short(&self) -> String {
        let mut hex = self.to_string();
        hex.truncate(7);
        hex
    }

    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<(Kind, &str, &str)>) {
        let got = text.parse::<Key>().ok();
        assert_eq!(got.as_ref().map(|k| (k.kind(), k.namespace(), k.name())), expect);
    }

    #[test]
    fn objects_of_one_name_have_keys_of_their_own() {
        let key = |origin| Key::of_object(Kind::Route, origin, "shop", "orders");
        assert_eq!(key("ApiRoute"), Key::new(Kind::Route, "shop", "orders"));
        assert_eq!(key("HTTPRoute").as_str(), "Route/shop/orders/HTTPRoute");
        assert_eq!(key("HTTPRoute").as_str().parse(), Ok(key("HTTPRoute")));
    }

    #[test]
    fn keys_parse() {
        check("Route/shop/orders", Some((Kind::Route, "shop", "orders")));
        check("Listener/sys/default/http", Some((Kind::Listener, "sys", "default/http")));
        check("Gadget/shop/orders", Some((Kind::Unknown, "shop", "orders")));
        check("Cluster/shop/127.0.0.1:9000/http1", Some((Kind::Cluster, "shop", "127.0.0.1:9000/http1")));
        for bad in ["", "Route", "Route/a", "Route//a", "route/a/b", "Route/a/b/c/d", "/a/b", "Gäd/a/b"] {
            check(bad, None);
        }
    }

    /// A kind has its place whether it is known or not: who does not know it computes the same revisions.
    #[test]
    fn kinds_that_came_later_are_in_the_order_of_their_words() {
        let key = |text: &str| text.parse::<Key>().unwrap();
        for other in ["Aardvark/a/b", "Zebra/a/b"] {
            let (before, consumer) = (other < "Consumer", key("Consumer/a/b"));
            assert_eq!(key(other) < consumer, before, "{other}");
            let unknown = Key { kind: Kind::Unknown, ..consumer };
            assert_eq!(key(other) < unknown, before, "{other}");
            assert!(key("RatePolicy/z/z") < key(other));
        }
        assert!(Key::first(Kind::Consumer) < key("Consumer/a/b") && key("Bee/z/z") < Key::first(Kind::Consumer));
    }

    #[test]
    fn later_kinds_are_announced() {
        assert_eq!(Kind::unknown_to(&[]).first(), Some(&Kind::Consumer));
        let features: Vec<String> = crate::check::FEATURES.iter().map(|feature| (*feature).into()).collect();
        assert_eq!(Kind::unknown_to(&features), []);
    }
}
