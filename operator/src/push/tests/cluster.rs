//! The server over TLS, against a proxy that does what a test says. The API server is a fake here.

use std::{future::ready, net::Ipv4Addr, time::Instant};

use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use planner::{Kind, ObjectRef, Plan, World, WorldObject};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use snapshot::proto::NotLeader;
use tokio::{net::TcpStream, sync::watch};
use tonic::{Code, transport::Channel};

use super::*;
use crate::{
    identity::{
        authority::{Authorities, Authority},
        certificate::{self, Peer, Signed},
        pods::Pod,
        tests::{FakeApi, leading},
    },
    leader::election::LeaderState,
};

const NAME: &str = "sluice-operator.sys.svc";
const POD: &str = "f-0";

/// An operator in a cluster with the fleet `ns/f`.
struct Cluster {
    api: FakeApi,
    identity: Identity,
    address: SocketAddr,
    lead: watch::Sender<LeaderState>,
    registry: Arc<Registry>,
    events: mpsc::Receiver<Event>,
}

/// A client certificate with its key.
type Card = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

async fn cluster(lead: LeaderState) -> Cluster {
    let api = FakeApi::default();
    api.token("good", "ns", "sluice-f", POD);
    cluster_of(api, lead).await
}

async fn cluster_of(api: FakeApi, lead: LeaderState) -> Cluster {
    let identity = leading(&api).await;
    let listener = transport::accept::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let registry = Arc::new(Registry::default());
    let (lead, leads) = watch::channel(lead);
    let (sender, events) = mpsc::channel(100);
    tokio::spawn(serve_tls_on(listener, identity.clone(), leads, Arc::clone(&registry), sender));
    Cluster { api, identity, address, lead, registry, events }
}

/// A plan in which the fleet `ns/f` is to run this.
fn plan(snapshot: Snapshot) -> Arc<Plan> {
    let manifest = serde_json::json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "GatewayFleet", "metadata": {"name": "f", "namespace": "ns"},
        "spec": {"listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]},
    });
    let id = ObjectRef { kind: Kind::GatewayFleet, namespace: "ns".into(), name: "f".into() };
    let current = crds::admit(manifest).map(Arc::new);
    let object = WorldObject {
        current,
        raw: None,
        accepted: None,
        accepted_at: None,
        generation: 1,
        created: None,
        origin: None,
    };
    let mut plan = planner::plan(&World { objects: [(id, object)].into(), ..World::default() });
    plan.fleets.get_mut(&fleet()).unwrap().snapshot = snapshot;
    Arc::new(plan)
}

fn leader() -> LeaderState {
    LeaderState::Leader { epoch: 7 }
}

impl Cluster {
    async fn channel(&self, card: Option<Card>) -> Result<Channel, String> {
        self.channel_as(card, NAME).await
    }

    async fn channel_as(&self, card: Option<Card>, name: &'static str) -> Result<Channel, String> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.identity.bundle.borrow().as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match card {
            Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tls = connector.connect(name.try_into().unwrap(), tcp).await.map_err(|e| e.to_string())?;
        let mut tls = Some(TokioIo::new(tls));
        let once =
            tower::service_fn(move |_| ready(tls.take().ok_or(std::io::Error::from(std::io::ErrorKind::BrokenPipe))));
        let endpoint = tonic::transport::Endpoint::from_static("https://operator");
        endpoint.connect_with_connector(once).await.map_err(|e| e.to_string())
    }

    /// Enrols with a token; gives the certificate and what it said of authorities.
    async fn enroll(&self, token: &str) -> Result<(Card, usize), Status> {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec().into();
        let mut client = ControlClient::new(self.channel(None).await.unwrap());
        let answer = client.enroll(EnrollRequest { token: token.into(), csr }).await?.into_inner();
        let left = answer.not_after_unix_ms as i64 - Timestamp::now().as_millisecond();
        assert!((3_590_000..=3_600_000).contains(&left), "{left}");
        let chain = answer.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        Ok(((chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into()), answer.authorities.len()))
    }

    async fn attach(&self, channel: Channel, hello: Hello) -> Result<Proxy, Status> {
        let (out, messages) = mpsc::channel(10);
        out.send(ProxyMessage { message: Some(proxy_message::Message::Hello(hello)) }).await.unwrap();
        let inbound = ControlClient::new(channel).attach(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Proxy { out, inbound, assembly: Assembly::default() })
    }

    /// Attaches with a certificate of the token `good`.
    async fn proxy(&self, hello: Hello) -> Proxy {
        let (card, _) = self.enroll("good").await.unwrap();
        self.attach(self.channel(Some(card)).await.unwrap(), hello).await.unwrap()
    }

    fn authorities(&self) -> Authorities {
        let data = self.api.secret().data.unwrap();
        Authorities::parse(&data["ca.crt"].0, &data["ca.key"].0).unwrap()
    }

    /// Whether a certificate gets its holder through to the service.
    async fn takes(&self, card: Card) -> bool {
        let Ok(channel) = self.channel(Some(card)).await else { return false };
        let Ok(mut proxy) = self.attach(channel, hello(&Snapshot::default())).await else { return false };
        let first = tokio::time::timeout(MESSAGE_TIMEOUT, proxy.inbound.message()).await.unwrap();
        matches!(first, Ok(Some(_)))
    }
}

fn card(authority: &Authority, peer: &Peer, now: Timestamp) -> Card {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let key_of = certificate::public_key(request.der()).unwrap();
    let Signed { certificate, .. } = certificate::proxy(authority, peer, &key_of, now).unwrap();
    (vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

fn peer() -> Peer {
    Peer { fleet: fleet(), pod: POD.into(), uid: "1".into() }
}

#[tokio::test]
async fn a_proxy_enrols_attaches_and_is_pushed_to() {
    let mut cluster = cluster(leader()).await;
    let content = snapshot(&[("a", "1.1.1.1:1")]);
    cluster.registry.planned(plan(content.clone()));
    cluster.registry.offer(&fleet(), Offered::to_all(Arc::new(Published::from(content.clone()))));
    let mut proxy = cluster.proxy(hello(&Snapshot::default())).await;
    assert_eq!(proxy.push().await.revision, content.revision());
    proxy.ack(content.revision(), vec![]).await;
    let attached = cluster.events.recv().await.unwrap();
    let Event::Proxy(ProxyEvent { proxy: name, fleet: of, what: ProxyWhat::Attached { outbox, .. }, .. }) = attached
    else {
        panic!("{attached:?}")
    };
    assert_eq!((&*name, &*of), (POD, &fleet()));
    let acknowledged = cluster.events.recv().await.unwrap();
    assert!(matches!(acknowledged, Event::Proxy(ProxyEvent { what: ProxyWhat::Ack { ready: true, .. }, .. })));
    drop(outbox);
}

#[tokio::test]
async fn who_can_not_enrol_is_told_why() {
    let cluster = cluster(leader()).await;
    cluster.api.token("foreign", "other", "sluice-f", POD);
    cluster.api.token("default", "ns", "default", POD);
    let refused = async |token: &str| {
        let status = cluster.enroll(token).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let (code, why) = refused("good").await;
    assert_eq!((code, why.as_str()), (Code::Unavailable, "this operator does not know yet what fleets there are"));
    cluster.registry.planned(plan(Snapshot::default()));
    cluster.enroll("good").await.unwrap();
    let (code, why) = refused("stolen").await;
    assert_eq!((code, why.as_str()), (Code::Unauthenticated, "the API server refuses the token: invalid bearer token"));
    let (code, why) = refused("foreign").await;
    let none = "service account \"sluice-f\" in namespace \"other\" is of no GatewayFleet there";
    assert_eq!((code, why.as_str()), (Code::PermissionDenied, none));
    assert_eq!(refused("default").await.0, Code::PermissionDenied);
    assert_eq!(refused("").await.0, Code::InvalidArgument);
    assert_eq!(refused(&"x".repeat(20 << 10)).await.0, Code::InvalidArgument);
    // So much is not even read.
    let (code, why) = refused(&"x".repeat(1 << 20)).await;
    assert!(code == Code::OutOfRange && why.contains("length too large"), "{code}: {why}");
    let mut client = ControlClient::new(cluster.channel(None).await.unwrap());
    let answer = client.enroll(EnrollRequest { token: "good".into(), csr: Bytes::from_static(b"x") }).await;
    assert!(answer.unwrap_err().message().starts_with("csr: "));
}

#[tokio::test]
async fn who_is_not_who_it_says_is_refused() {
    let cluster = cluster(leader()).await;
    cluster.registry.planned(plan(Snapshot::default()));
    let refused = |status: Status| (status.code(), status.message().to_owned());
    // Without a certificate, nothing is read.
    let channel = cluster.channel(None).await.unwrap();
    let status = cluster.attach(channel, hello(&Snapshot::default())).await.err().unwrap();
    let expect = "Attach needs a client certificate: enrol for one first";
    assert_eq!(refused(status), (Code::Unauthenticated, expect.to_owned()));
    let other = async |hello: Hello| {
        let mut proxy = cluster.proxy(hello).await;
        refused(proxy.message().await.unwrap_err())
    };
    let (code, why) = other(Hello { proxy: "f-1".into(), ..hello(&Snapshot::default()) }).await;
    let expect = "Hello is of proxy \"f-1\" of ns/f, but its certificate of pod \"f-0\" of ns/f";
    assert!(code == Code::PermissionDenied && why.starts_with(expect), "{why}");
    let (code, why) = other(Hello { fleet: "ns/g".into(), ..hello(&Snapshot::default()) }).await;
    let expect = "Hello is of proxy \"f-0\" of ns/g, but its certificate of pod \"f-0\" of ns/f";
    assert!(code == Code::PermissionDenied && why.starts_with(expect), "{why}");
    // Its fleet was deleted since it enrolled.
    let (card, _) = cluster.enroll("good").await.unwrap();
    cluster.registry.planned(Arc::default());
    let channel = cluster.channel(Some(card)).await.unwrap();
    let mut proxy = cluster.attach(channel, hello(&Snapshot::default())).await.unwrap();
    assert_eq!(proxy.message().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn certificates_that_are_not_taken() {
    let cluster = cluster(LeaderState::Standby { holder: Some("10.0.0.1:9443".into()) }).await;
    cluster.registry.planned(plan(Snapshot::default()));
    let (now, authorities) = (Timestamp::now(), cluster.authorities());
    let ours = authorities.signer(now).unwrap();
    assert!(cluster.takes(card(ours, &peer(), now)).await);
    assert!(!cluster.takes(card(&Authority::new(now).unwrap(), &peer(), now)).await, "of another authority");
    let past = now - SignedDuration::from_mins(61);
    assert!(!cluster.takes(card(ours, &peer(), past)).await, "ended");
    // An operator's own does not make a proxy.
    let (server, key) = certificate::server(ours, &[NAME.to_owned()], now).unwrap();
    assert!(!cluster.takes((vec![server.certificate], key)).await, "a server's");
    // And the client sees whom it dials.
    let error = cluster.channel_as(None, "other.sys.svc").await.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    for name in [NAME, "sluice-operator.sys.svc.cluster.local", "sluice-operator"] {
        cluster.channel_as(None, name).await.unwrap();
    }
    // Plaintext gets nowhere.
    let plain = tonic::transport::Endpoint::from_shared(format!("http://{}", cluster.address)).unwrap();
    let plain = async { ControlClient::new(plain.connect().await.ok()?).enroll(EnrollRequest::default()).await.ok() };
    assert!(plain.await.is_none());
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let cluster = cluster(leader()).await;
    cluster.registry.planned(plan(Snapshot::default()));
    let now = Timestamp::now();
    let begun = now - SignedDuration::from_hours(1) + SignedDuration::from_secs(3);
    let short = card(cluster.authorities().signer(now).unwrap(), &peer(), begun);
    let channel = cluster.channel(Some(short)).await.unwrap();
    let mut proxy = cluster.attach(channel, hello(&Snapshot::default())).await.unwrap();
    proxy.message().await.unwrap_err();
    let after = now.duration_until(Timestamp::now()).as_millis();
    assert!((1900..6000).contains(&after), "{after} ms");
}

/// What a pod leaves behind, such as its certificate and key in a copy of its memory, is of no use to anybody.
#[tokio::test]
async fn a_certificate_dies_with_its_pod() {
    let mut cluster = cluster(leader()).await;
    cluster.registry.planned(plan(Snapshot::default()));
    cluster.registry.offer(&fleet(), Offered::to_all(Arc::new(Published::from(Snapshot::default()))));
    let name = || ("ns".to_owned(), POD.to_owned());
    let pod = |uid: &str| Pod { fleet: "f".into(), uid: uid.into() };
    cluster.identity.pods.listed(None, [(name(), pod("1"))].into_iter());
    let (card, _) = cluster.enroll("good").await.unwrap();
    let again = || (card.0.clone(), card.1.clone_key());
    let attach = async |cluster: &Cluster| {
        let channel = cluster.channel(Some(again())).await.unwrap();
        let mut proxy = cluster.attach(channel, hello(&Snapshot::default())).await.unwrap();
        let first = proxy.message().await;
        (proxy, first)
    };
    let (mut proxy, first) = attach(&cluster).await;
    first.unwrap();
    // It goes on as long as somebody holds its outbox.
    let attached = cluster.events.recv().await;
    assert!(matches!(attached, Some(Event::Proxy(ProxyEvent { what: ProxyWhat::Attached { .. }, .. }))));
    // Others come and go.
    cluster.identity.pods.lives(("ns".into(), "f-1".into()), pod("2"));
    cluster.identity.pods.ended(&("ns".into(), "f-1".into()));
    // It is gone: what is open ends at once, and nobody gets in by it again.
    let at = Instant::now();
    cluster.identity.pods.ended(&name());
    let status = loop {
        match proxy.message().await {
            Ok(_) => {} // of the push
            Err(status) => break status,
        }
    };
    println!("the stream ended {:?} after the pod; goal: 1 s", at.elapsed());
    assert!(status.message().contains("is not there"), "{status}");
    assert!(at.elapsed() < Duration::from_secs(1));
    while !matches!(cluster.events.recv().await, Some(Event::Proxy(ProxyEvent { what: ProxyWhat::Detached, .. }))) {}
    assert!(attach(&cluster).await.1.is_err());
    // Another pod of that name is another.
    cluster.identity.pods.lives(name(), pod("2"));
    assert!(attach(&cluster).await.1.is_err());
    cluster.identity.pods.lives(name(), pod("1"));
    attach(&cluster).await.1.unwrap();
}

#[tokio::test]
async fn what_either_authority_signed_is_taken_while_they_change() {
    let days = |days: f64| Timestamp::now() - SignedDuration::from_secs((days * 86400.0) as i64);
    let (old, new) = (Authority::new(days(60.5)).unwrap(), Authority::new(days(0.5)).unwrap());
    let api = FakeApi::default();
    api.token("good", "ns", "sluice-f", POD);
    api.hold(&[&old, &new]);
    let cluster = cluster_of(api, LeaderState::Standby { holder: Some("10.0.0.1:9443".into()) }).await;
    cluster.registry.planned(plan(Snapshot::default()));
    let (now, all) = (Timestamp::now(), cluster.authorities());
    assert_eq!(all.lives().len(), 2);
    assert_eq!(all.signer(now).unwrap().certificate, old.certificate);
    assert!(cluster.takes(card(&old, &peer(), now)).await && cluster.takes(card(&new, &peer(), now)).await);
    let (given, told) = cluster.enroll("good").await.unwrap();
    assert!(cluster.takes(given).await);
    assert_eq!(told, 2, "who enrols learns the next");
}

#[tokio::test]
async fn of_one_proxy_only_so_many_connections() {
    let cluster = cluster(LeaderState::Standby { holder: Some("10.0.0.1:9443".into()) }).await;
    cluster.registry.planned(plan(Snapshot::default()));
    let now = Timestamp::now();
    let authorities = cluster.authorities();
    let card_of = |pod: &str| card(authorities.signer(now).unwrap(), &Peer { pod: pod.into(), ..peer() }, now);
    let mut open = vec![];
    for _ in 0..4 {
        let channel = cluster.channel(Some(card_of(POD))).await.unwrap();
        let mut proxy = cluster.attach(channel.clone(), hello(&Snapshot::default())).await.unwrap();
        proxy.message().await.unwrap();
        open.push((channel, proxy));
    }
    assert!(!cluster.takes(card_of(POD)).await, "a fifth");
    let mut proxy = cluster
        .attach(
            cluster.channel(Some(card_of("f-1"))).await.unwrap(),
            Hello { proxy: "f-1".into(), ..hello(&Snapshot::default()) },
        )
        .await
        .unwrap();
    proxy.message().await.unwrap();
    open.pop();
    // What was closed counts no more.
    let mut tries = 0;
    while !cluster.takes(card_of(POD)).await {
        tries += 1;
        assert!(tries < 100);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn strangers_take_no_place_of_others() {
    let cluster = cluster(LeaderState::Standby { holder: Some("10.0.0.1:9443".into()) }).await;
    cluster.registry.planned(plan(Snapshot::default()));
    let now = Timestamp::now();
    let mut proxy = cluster.proxy(hello(&Snapshot::default())).await;
    proxy.message().await.unwrap();
    // As many as there are slots: some say nothing at all, the others are through with their handshake.
    let mut silent = vec![];
    for _ in 0..200 {
        silent.push(TcpStream::connect(cluster.address).await.unwrap());
    }
    let mut idle = vec![];
    for _ in 0..56 {
        idle.push(cluster.channel(None).await.unwrap());
    }
    // Who comes now gets in all the same, and proxies always do: the oldest of them go.
    cluster.enroll("good").await.unwrap();
    assert!(cluster.takes(card(cluster.authorities().signer(now).unwrap(), &peer(), now)).await);
    let mut ended = vec![];
    silent[0].readable().await.unwrap();
    assert_eq!(silent[0].try_read_buf(&mut ended).unwrap(), 0);
    let mut client = ControlClient::new(idle.pop().unwrap());
    let answer = client.enroll(EnrollRequest::default()).await.unwrap_err();
    assert_eq!(answer.code(), Code::InvalidArgument, "the latest are still there: {answer}");
}

fn not_leader(holder: &str) -> Message {
    Message::NotLeader(NotLeader { holder: holder.into() })
}

#[tokio::test]
async fn a_standby_names_the_leader() {
    let cluster = cluster(LeaderState::Standby { holder: Some("10.0.0.1:9443".into()) }).await;
    cluster.registry.planned(plan(Snapshot::default()));
    let mut proxy = cluster.proxy(hello(&Snapshot::default())).await;
    assert_eq!(proxy.message().await.unwrap(), not_leader("10.0.0.1:9443"));
}

#[tokio::test]
async fn without_a_leader_only_who_has_nothing_gets_something() {
    let mut cluster = cluster(LeaderState::Standby { holder: None }).await;
    let content = snapshot(&[("a", "1.1.1.1:1")]);
    cluster.registry.planned(plan(content.clone()));
    let message = async |hello: Hello| cluster.proxy(hello).await.message().await.unwrap();
    assert_eq!(message(hello(&content)).await, not_leader(""));
    assert_eq!(message(Hello { epoch: 3, ..hello(&Snapshot::default()) }).await, not_leader(""));
    assert_eq!(message(Hello { ready: true, ..hello(&Snapshot::default()) }).await, not_leader(""));
    let mut proxy = cluster.proxy(hello(&Snapshot::default())).await;
    let push = proxy.push_of(0).await;
    assert_eq!((push.base, push.revision, push.delta), (None, content.revision(), content.diff(&Default::default())));
    proxy.ack_of(0, content.revision(), vec![]).await;
    // Once: what comes later is for a leader to say.
    cluster.registry.planned(plan(snapshot(&[("a", "2.2.2.2:2")])));
    let more = tokio::time::timeout(Duration::from_millis(200), proxy.inbound.message()).await;
    assert!(more.is_err(), "{more:?}");
    // This operator leads: the proxy is to dial again, and brings what the loop has to know.
    cluster.lead.send_replace(leader());
    assert_eq!(proxy.message().await.unwrap(), not_leader(""));
    assert!(cluster.events.try_recv().is_err(), "a standby's loop hears nothing");
    let next = snapshot(&[("a", "3.3.3.3:3")]);
    cluster.registry.offer(&fleet(), Offered::to_all(Arc::new(Published::from(next.clone()))));
    let mut proxy = cluster.proxy(hello(&content)).await;
    let push = proxy.push().await;
    assert_eq!((push.epoch, push.base, push.revision), (7, Some(content.revision()), next.revision()));
}

#[tokio::test]
async fn a_standby_that_knows_nothing_gives_nothing() {
    let cluster = cluster(LeaderState::Standby { holder: None }).await;
    let now = Timestamp::now();
    let card = card(cluster.authorities().signer(now).unwrap(), &peer(), now);
    let channel = cluster.channel(Some(card)).await.unwrap();
    let mut proxy = cluster.attach(channel, hello(&Snapshot::default())).await.unwrap();
    assert_eq!(proxy.message().await.unwrap_err().code(), Code::Unavailable);
}
