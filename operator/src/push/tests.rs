use std::path::PathBuf;

use bytes::Bytes;
use planner::FleetRef;
use snapshot::{
    Delta, Entry, FORMAT_VERSION, Hash, Key, Kind, Snapshot,
    proto::{
        AccessPolicy, Ack, Cluster, Consumer, Endpoint, Held, Hello, Label, Nack, OperatorMessage, PolicyTarget,
        ProxyMessage, Rebalance, Resource, control_client::ControlClient, operator_message::Message, proxy_message,
        resource,
    },
    wire::{Assembly, Push},
};

use super::*;
use crate::reconcile::event::{ProxyEvent, ProxyWhat};

mod cluster;
mod worth;

const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

struct Server {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    registry: Arc<Registry>,
    events: mpsc::Receiver<Event>,
}

/// One proxy, as far as the protocol goes.
struct Proxy {
    out: mpsc::Sender<ProxyMessage>,
    inbound: Streaming<OperatorMessage>,
    assembly: Assembly,
}

fn fleet() -> FleetRef {
    FleetRef { namespace: "ns".into(), name: "f".into() }
}

/// Clusters by name, each with one address.
fn snapshot(clusters: &[(&str, &str)]) -> Snapshot {
    let entry = |address: &str| {
        let endpoints = vec![Endpoint { address: address.into(), ..Endpoint::default() }];
        let kind = resource::Kind::Cluster(Cluster { protocol: 0, endpoints });
        Entry::new(&Resource { requires: vec![], kind: Some(kind) })
    };
    clusters.iter().map(|(name, address)| (key(name), entry(address))).collect()
}

fn key(name: &str) -> Key {
    Key::cluster("ns", name, "80")
}

fn hello(held: &Snapshot) -> Hello {
    let bytes = |hash: Hash| Bytes::copy_from_slice(hash.as_bytes());
    Hello {
        format_version: FORMAT_VERSION,
        proxy: "f-0".into(),
        fleet: "ns/f".into(),
        held: held.held().into_iter().map(|(k, h)| Held { key: k.to_string(), hash: bytes(h) }).collect(),
        ..Hello::default()
    }
}

impl Server {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("c.sock");
        let registry = Arc::new(Registry::default());
        let (sender, events) = mpsc::channel(100);
        let serving = (socket.clone(), Arc::clone(&registry));
        tokio::spawn(
            async move { serve(&serving.0, crate::leader::election::sole_leader(7), serving.1, sender).await },
        );
        while !socket.exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Self { _dir: dir, socket, registry, events }
    }

    fn publish(&self, snapshot: &Snapshot) -> Hash {
        let published = Published::from(snapshot.clone());
        let revision = published.revision;
        self.registry.offer(&fleet(), Offered::to_all(Arc::new(published)));
        revision
    }

    async fn attach(&self, hello: Hello) -> Proxy {
        let (out, messages) = mpsc::channel(10);
        out.send(ProxyMessage { message: Some(proxy_message::Message::Hello(hello)) }).await.unwrap();
        let endpoint = tonic::transport::Endpoint::from_shared(format!("unix:{}", self.socket.display())).unwrap();
        let mut client = ControlClient::new(endpoint.connect().await.unwrap());
        let inbound = client.attach(ReceiverStream::new(messages)).await.unwrap().into_inner();
        Proxy { out, inbound, assembly: Assembly::default() }
    }

    async fn event(&mut self) -> ProxyWhat {
        let event = tokio::time::timeout(MESSAGE_TIMEOUT, self.events.recv()).await.unwrap().unwrap();
        let Event::Proxy(ProxyEvent { what, fleet: of, proxy, .. }) = event else { panic!("{event:?}") };
        assert_eq!((&*of, &*proxy), (&fleet(), "f-0"));
        what
    }
}

impl Proxy {
    async fn message(&mut self) -> Result<Message, Status> {
        let message = tokio::time::timeout(MESSAGE_TIMEOUT, self.inbound.message()).await.unwrap()?;
        Ok(message.unwrap().message.unwrap())
    }

    async fn push(&mut self) -> Push {
        self.push_of(7).await
    }

    async fn push_of(&mut self, epoch: u64) -> Push {
        loop {
            let message = self.message().await.unwrap();
            if let Some(push) = self.assembly.accept(message).unwrap() {
                assert_eq!(push.epoch, epoch);
                return push;
            }
        }
    }

    async fn ack(&self, revision: Hash, nacks: Vec<Nack>) {
        self.ack_of(7, revision, nacks).await;
    }

    async fn ack_of(&self, epoch: u64, revision: Hash, nacks: Vec<Nack>) {
        let revision = Bytes::copy_from_slice(revision.as_bytes());
        let ack = Ack { epoch, revision, nacks, ready: true };
        self.out.send(ProxyMessage { message: Some(proxy_message::Message::Ack(ack)) }).await.unwrap();
    }

    async fn refused(&mut self) -> String {
        let status = self.message().await.unwrap_err();
        status.message().to_owned()
    }
}

#[tokio::test]
async fn one_push_at_a_time_and_only_the_newest() {
    let mut server = Server::start().await;
    let mut proxy = server.attach(hello(&Snapshot::default())).await;
    let attached = server.event().await;
    assert!(matches!(attached, ProxyWhat::Attached { .. }));
    let first = snapshot(&[("a", "1.1.1.1:1"), ("b", "1.1.1.1:1")]);
    server.publish(&first);
    let push = proxy.push().await;
    assert_eq!((push.base, push.revision, &push.delta), (None, first.revision(), &first.diff(&Default::default())));
    // Two more while the first is in flight: the second of them is skipped.
    server.publish(&snapshot(&[("a", "2.2.2.2:2"), ("b", "2.2.2.2:2")]));
    let third = snapshot(&[("a", "1.1.1.1:1"), ("c", "3.3.3.3:3")]);
    server.publish(&third);
    proxy.ack(first.revision(), vec![]).await;
    let ProxyWhat::Ack { published, ready, .. } = server.event().await else { panic!() };
    assert_eq!((published.revision, ready), (first.revision(), true));
    let push = proxy.push().await;
    assert_eq!((push.base, push.revision), (Some(first.revision()), third.revision()));
    assert_eq!(push.delta, third.diff(&first.held()));
    proxy.ack(third.revision(), vec![]).await;
    server.event().await;
    // The same content again is not sent; what comes next is a message of another kind.
    server.publish(&third);
    let rebalance = Message::Rebalance(Rebalance { excess: 0.5, over_ms: 1000 });
    let ProxyWhat::Attached { outbox, .. } = attached else { panic!() };
    outbox.send(OperatorMessage { message: Some(rebalance.clone()) }).await.unwrap();
    assert_eq!(proxy.message().await.unwrap(), rebalance);
    drop(proxy);
    assert!(matches!(server.event().await, ProxyWhat::Detached));
}

#[tokio::test]
async fn one_that_has_all_of_it_acknowledges_an_empty_push() {
    let mut server = Server::start().await;
    let content = snapshot(&[("a", "1.1.1.1:1")]);
    server.publish(&content);
    let mut proxy = server.attach(hello(&content)).await;
    let ProxyWhat::Attached { outbox, .. } = server.event().await else { panic!() };
    let push = proxy.push().await;
    assert_eq!(
        (push.base, push.revision, push.delta),
        (Some(content.revision()), content.revision(), Delta::default())
    );
    // Without anyone to send it messages, a stream is one that another has replaced.
    drop(outbox);
    assert!(proxy.refused().await.contains("another stream"));
}

#[tokio::test]
async fn a_refused_resource_is_not_taken_for_held() {
    let mut server = Server::start().await;
    let good = snapshot(&[("a", "1.1.1.1:1"), ("b", "1.1.1.1:1")]);
    server.publish(&good);
    let mut proxy = server.attach(hello(&Snapshot::default())).await;
    let _attached = server.event().await;
    proxy.push().await;
    proxy.ack(good.revision(), vec![]).await;
    server.event().await;
    let bad = snapshot(&[("a", "9.9.9.9:9"), ("b", "1.1.1.1:1"), ("c", "9.9.9.9:9")]);
    server.publish(&bad);
    proxy.push().await;
    let nack = |name: &str| {
        let hash = bad.entry(&key(name)).unwrap().hash();
        Nack { key: key(name).to_string(), hash: Bytes::copy_from_slice(hash.as_bytes()), ..Nack::default() }
    };
    proxy.ack(bad.revision(), vec![nack("a"), nack("c")]).await;
    let ProxyWhat::Ack { nacks, .. } = server.event().await else { panic!() };
    assert_eq!(nacks.len(), 2);
    // It holds what it had before, so going back needs nothing but the commit.
    server.publish(&good);
    let push = proxy.push().await;
    assert_eq!((push.base, push.revision, push.delta), (Some(good.revision()), good.revision(), Delta::default()));
}

#[tokio::test]
async fn what_could_not_be_served_at_first_is_acknowledged_later() {
    let mut server = Server::start().await;
    let (first, second) = (snapshot(&[("a", "1.1.1.1:1")]), snapshot(&[("a", "1.1.1.1:1"), ("b", "2.2.2.2:2")]));
    server.publish(&first);
    let mut proxy = server.attach(hello(&Snapshot::default())).await;
    let _attached = server.event().await;
    proxy.push().await;
    let hash = first.entry(&key("a")).unwrap().hash();
    let nack = Nack { key: key("a").to_string(), hash: Bytes::copy_from_slice(hash.as_bytes()), ..Nack::default() };
    proxy.ack(first.revision(), vec![nack.clone()]).await;
    server.event().await;
    proxy.ack(first.revision(), vec![]).await;
    let ProxyWhat::Ack { nacks, .. } = server.event().await else { panic!() };
    assert_eq!(nacks, []);
    // So it holds all of it.
    server.publish(&second);
    let push = proxy.push().await;
    assert_eq!((push.base, push.delta), (Some(first.revision()), second.diff(&first.held())));
    // Another word on the first that crosses the second is no news, and no reason to end the stream.
    proxy.ack(first.revision(), vec![]).await;
    proxy.ack(second.revision(), vec![]).await;
    let ProxyWhat::Ack { published, .. } = server.event().await else { panic!() };
    assert_eq!(published.revision, second.revision());
}

/// It may say the same once more, and is heard.
#[tokio::test]
async fn what_is_asked_for_again_is_acknowledged_again() {
    let mut server = Server::start().await;
    let content = snapshot(&[("a", "1.1.1.1:1"), ("b", "2.2.2.2:2")]);
    server.publish(&content);
    let mut proxy = server.attach(hello(&Snapshot::default())).await;
    let _attached = server.event().await;
    proxy.push().await;
    let hash = content.entry(&key("a")).unwrap().hash();
    let nack = Nack { key: key("a").to_string(), hash: Bytes::copy_from_slice(hash.as_bytes()), ..Nack::default() };
    proxy.ack(content.revision(), vec![nack.clone()]).await;
    server.event().await;
    let published = Arc::new(Published::from(content.clone()));
    server.registry.offer(&fleet(), Offered { again: 1, ..Offered::to_all(published) });
    let push = proxy.push().await;
    assert_eq!((push.revision, push.delta.puts.len()), (content.revision(), 1));
    proxy.ack(content.revision(), vec![nack]).await;
    let ProxyWhat::Ack { nacks, .. } = server.event().await else { panic!() };
    assert_eq!(nacks.len(), 1);
}

#[tokio::test]
async fn strangers_are_refused() {
    let server = Server::start().await;
    let other = Hello { format_version: FORMAT_VERSION + 1, ..hello(&Snapshot::default()) };
    assert!(server.attach(other).await.refused().await.contains("speaks format"));
    let later = Hello { epoch: 8, ..hello(&Snapshot::default()) };
    assert!(server.attach(later).await.refused().await.contains("later operator"));
    let lost = Hello { fleet: "f".into(), ..hello(&Snapshot::default()) };
    assert!(server.attach(lost).await.refused().await.contains("no namespace/name"));
    let mut bad = hello(&snapshot(&[("a", "1.1.1.1:1")]));
    bad.held[0].hash = Bytes::from_static(b"x");
    assert!(server.attach(bad).await.refused().await.contains("has no hash"));
}

#[tokio::test]
async fn an_acknowledgement_of_something_else_ends_the_stream() {
    let mut server = Server::start().await;
    server.publish(&snapshot(&[("a", "1.1.1.1:1")]));
    let mut proxy = server.attach(hello(&Snapshot::default())).await;
    let _attached = server.event().await;
    proxy.push().await;
    proxy.ack(Hash::of(b"x"), vec![]).await;
    assert!(proxy.refused().await.contains("not pushed last"));
    assert!(matches!(server.event().await, ProxyWhat::Detached));
}

/// Two clusters, and a consumer, which is of a kind that the protocol did not begin with.
fn with_consumer(label: &str) -> Snapshot {
    let labels = vec![Label { name: "tier".into(), value: label.into() }];
    let kind = resource::Kind::Consumer(Consumer { labels, credentials: vec![] });
    let mut content = snapshot(&[("a", "1.1.1.1:1"), ("b", "1.1.1.1:1")]);
    content.insert(Key::new(Kind::Consumer, "ns", "c"), Entry::new(&Resource { requires: vec![], kind: Some(kind) }));
    content
}

#[tokio::test]
async fn a_kind_is_sent_to_proxies_that_know_it() {
    let mut server = Server::start().await;
    let content = with_consumer("gold");
    server.publish(&content);
    let features = vec!["Consumer".into(), "Unheard-of".into()];
    let mut proxy = server.attach(Hello { features, ..hello(&Snapshot::default()) }).await;
    let ProxyWhat::Attached { hello: said, outbox: _outbox } = server.event().await else { panic!() };
    assert_eq!(said.features, ["Consumer"]);
    let push = proxy.push().await;
    assert_eq!((push.revision, push.delta), (content.revision(), content.diff(&Default::default())));
}

/// It gets the rest, and the loop hears that this was taken; what it has beyond that of a newer operator is taken away.
#[tokio::test]
async fn an_older_proxy_is_sent_what_it_knows() {
    let mut server = Server::start().await;
    let (content, rest) = (with_consumer("gold"), snapshot(&[("a", "1.1.1.1:1"), ("b", "1.1.1.1:1")]));
    server.publish(&content);
    let mut said = hello(&rest);
    let newer = Held { key: "Gadget/ns/x".into(), hash: Bytes::from_static(&[7; 32]) };
    said.held.push(newer);
    let mut proxy = server.attach(said).await;
    let _attached = server.event().await;
    let push = proxy.push().await;
    assert_eq!((push.revision, push.delta.puts.len()), (rest.revision(), 0));
    assert_eq!(push.delta.deletes, ["Gadget/ns/x".parse().unwrap()]);
    proxy.ack(rest.revision(), vec![]).await;
    let ProxyWhat::Ack { published, .. } = server.event().await else { panic!() };
    assert_eq!(published.revision, content.revision());
    // What changes for others alone comes to nothing, and is acknowledged all the same.
    let next = with_consumer("silver");
    server.publish(&next);
    let push = proxy.push().await;
    assert_eq!((push.base, push.revision, push.delta), (Some(rest.revision()), rest.revision(), Delta::default()));
    proxy.ack(rest.revision(), vec![]).await;
    let ProxyWhat::Ack { published, .. } = server.event().await else { panic!() };
    assert_eq!(published.revision, next.revision());
}

/// What such a policy guards is closed to it, never open; what it only counts is not.
#[tokio::test]
async fn what_an_older_proxy_cannot_guard_is_closed() {
    let mut server = Server::start().await;
    let rest = snapshot(&[("a", "1.1.1.1:1")]);
    let mut content = rest.clone();
    for (name, audit) in [("p", false), ("counted", true)] {
        let targets = vec![PolicyTarget { route: format!("Route/ns/{name}"), rule: "r".into() }];
        let policy = resource::Kind::AccessPolicy(AccessPolicy { targets, audit, ..AccessPolicy::default() });
        let entry = Entry::new(&Resource { requires: vec![], kind: Some(policy) });
        content.insert(Key::new(Kind::AccessPolicy, "ns", name), entry);
    }
    server.publish(&content);
    let mut proxy = server.attach(hello(&rest)).await;
    let _attached = server.event().await;
    let push = proxy.push().await;
    assert_eq!(push.delta.puts.len(), 1, "{:?}", push.delta);
    let (key, entry) = push.delta.puts.first_key_value().unwrap();
    assert_eq!(key.as_str(), "RatePolicy/ns/p/AccessPolicy");
    let Some(resource::Kind::RatePolicy(closed)) = entry.kind() else { panic!() };
    assert_eq!((&*closed.targets[0].route, &*closed.targets[0].rule), ("Route/ns/p", "r"));
    assert_eq!(closed.unavailable, "the proxy is older than AccessPolicy/ns/p");
    assert_eq!(key.as_str().parse(), Ok(key.clone()));
}
