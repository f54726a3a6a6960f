use bytes::Bytes;
use planner::rollout::Care;
use snapshot::{Entry, proto::resource};
use tokio::sync::mpsc;

use super::*;
use crate::{fleet::Proxy, push::Offered};

/// A fleet at a time that is told, with what its proxies were sent.
struct Bench {
    state: FleetState,
    start: Instant,
    mail: BTreeMap<String, mpsc::Receiver<OperatorMessage>>,
}

impl Bench {
    fn new() -> Self {
        Self { state: FleetState::default(), start: Instant::now(), mail: BTreeMap::new() }
    }

    /// Another process begins under this name, and attaches.
    fn attach(&mut self, name: &str, session: u64, pid: u32, ready: bool) {
        let mut observation = self.state.observation.clone();
        observation.proxies.insert(name.into(), Proxy { pid: Some(pid), draining: false, pod_ready: None });
        observation.replicas = observation.proxies.len() as u32;
        self.state.observed(observation);
        self.hello(name, session, pid, ready);
    }

    fn hello(&mut self, name: &str, session: u64, pid: u32, ready: bool) {
        let (outbox, mail) = mpsc::channel(10);
        let hello = Hello { pid, ready, ..Hello::default() };
        self.state.take(session, name, ProxyWhat::Attached { hello: Box::new(hello), outbox }, Millis(0));
        self.mail.insert(name.into(), mail);
    }

    fn load(&mut self, name: &str, session: u64, second: u64, rate: u64) {
        let window =
            LoadWindow { start_unix_ms: second * 1000, duration_ms: 1000, admitted: rate, ..LoadWindow::default() };
        self.state.take(session, name, ProxyWhat::Load(window), Millis(second * 1000 + 1000));
    }

    /// What a proxy is told to retire at this second: share and time.
    fn rebalance(&mut self, name: &str, second: u64) -> Option<(f64, u32)> {
        self.state.rebalance(self.start + Duration::from_secs(second), Millis(second * 1000));
        let message = self.mail.get_mut(name)?.try_recv().ok()?;
        let Some(Message::Rebalance(Rebalance { excess, over_ms })) = message.message else { panic!("{message:?}") };
        Some((excess, over_ms))
    }
}

#[test]
fn connections_move_after_growth_and_only_then() {
    let mut bench = Bench::new();
    bench.attach("a", 1, 1, true);
    bench.load("a", 1, 9, 1000);
    assert_eq!(bench.rebalance("a", 10), None, "one proxy carries all there is");
    bench.attach("b", 2, 2, true);
    assert_eq!(bench.rebalance("a", 10), None, "the load of the new one is not known yet");
    bench.load("b", 2, 10, 0);
    assert_eq!(bench.rebalance("a", 11), None, "not compared again within 2 s");
    assert_eq!(bench.rebalance("a", 12), Some((0.5, 8000)));
    bench.load("a", 1, 17, 800);
    bench.load("b", 2, 17, 200);
    assert_eq!(bench.rebalance("a", 18), Some((1.0 - 500.0 / 800.0, 3000)));
    bench.load("a", 1, 99, 1000);
    bench.load("b", 2, 99, 0);
    assert_eq!(bench.rebalance("a", 100), None, "long after the growth");
    assert_eq!(bench.rebalance("b", 100), None);
}

#[test]
fn another_process_of_the_same_name_begins_anew() {
    let mut bench = Bench::new();
    bench.attach("a", 1, 1, true);
    bench.load("a", 1, 9, 1000);
    assert_eq!(bench.state.totals(Millis(10_000)).rps, 1000.0);
    bench.attach("a", 2, 7, false);
    assert_eq!(bench.state.totals(Millis(10_000)).rps, 0.0);
    // The end of the former's stream, and a window that was on its way, are no news.
    bench.load("a", 1, 10, 1000);
    bench.state.take(1, "a", ProxyWhat::Detached, Millis(0));
    assert_eq!(bench.state.totals(Millis(10_000)).rps, 0.0);
    assert!(bench.state.proxies()[0].admin.is_some());
}

#[test]
fn a_stranger_under_the_same_name_takes_no_place() {
    let mut bench = Bench::new();
    bench.attach("a", 1, 1, true);
    bench.hello("a", 2, 99, true);
    assert_eq!(bench.state.ready(), 1);
    assert!(bench.mail["a"].is_closed(), "its stream ends");
    bench.load("a", 1, 9, 1000);
    assert_eq!(bench.state.totals(Millis(10_000)).rps, 1000.0);
}

/// By what it announces: statuses say what it is not sent.
#[test]
fn a_proxy_that_is_older_is_known_by_what_it_lacks() {
    let mut bench = Bench::new();
    let unknown = |bench: &Bench| bench.state.view(Millis(0)).proxies[0].unknown.clone();
    bench.attach("a", 1, 1, true);
    assert!(unknown(&bench).contains(&Kind::Consumer));
    let features = snapshot::check::FEATURES.iter().map(|feature| (*feature).to_owned()).collect();
    let hello = Hello { pid: 1, features, ..Hello::default() };
    let what = ProxyWhat::Attached { hello: Box::new(hello), outbox: mpsc::channel(1).0 };
    bench.state.take(2, "a", what, Millis(0));
    assert_eq!(unknown(&bench), []);
}

#[test]
fn a_proxy_that_is_gone_is_forgotten() {
    let mut bench = Bench::new();
    bench.attach("a", 1, 1, true);
    bench.load("a", 1, 9, 1000);
    assert_eq!((bench.state.ready(), bench.state.replicas().current), (1, 1));
    // A stream that breaks says nothing of the process: what it did still counts.
    bench.state.take(1, "a", ProxyWhat::Detached, Millis(0));
    assert_eq!((bench.state.ready(), bench.state.totals(Millis(10_000)).rps), (0, 1000.0));
    bench.state.observed(Observation::default());
    assert!(bench.state.is_empty() && bench.state.loads.is_empty());
}

#[test]
fn a_pod_is_ready_when_kubernetes_says_so() {
    let mut bench = Bench::new();
    let pod = |ready| Proxy { pid: None, draining: false, pod_ready: Some(ready) };
    let proxies = [("connected", pod(true)), ("cut-off", pod(true)), ("starting", pod(false))];
    let proxies = proxies.map(|(name, pod)| (name.to_owned(), pod)).into();
    bench.state.observed(Observation { replicas: 3, proxies, ..Observation::default() });
    bench.hello("connected", 1, 1, true);
    bench.hello("starting", 2, 2, true);
    let ready = |proxies: &[ProxyView]| proxies.iter().map(|p| (p.name.clone(), p.ready)).collect::<Vec<_>>();
    let expect = [("connected", true), ("cut-off", true), ("starting", false)].map(|(n, r)| (n.to_owned(), r));
    assert_eq!(ready(&bench.state.view(Millis(0)).proxies), expect);
    // To the scaler count those that it hears of.
    assert_eq!(bench.state.replicas().ready, 2);
}

fn route(rule: &str) -> (Key, Entry) {
    let rules = vec![snapshot::proto::Rule { name: rule.into(), ..Default::default() }];
    let route = resource::Kind::Route(snapshot::proto::Route { rules, ..Default::default() });
    let resource = snapshot::proto::Resource { requires: vec![], kind: Some(route) };
    ("Route/a/b".parse().unwrap(), Entry::new(&resource))
}

fn nack((key, entry): &(Key, Entry)) -> Nack {
    let hash = Bytes::copy_from_slice(entry.hash().as_bytes());
    Nack { key: key.to_string(), hash, message: "no".into(), ..Nack::default() }
}

impl Bench {
    /// Wants this, and moves on as a turn does; gives back what a proxy is offered then.
    fn turn(&mut self, desired: &Snapshot, now: u64) -> Option<Offered> {
        let fleet = FleetRef { namespace: "ns".into(), name: "f".into() };
        let is_new = self.state.published.is_none();
        if self.state.settle(desired, Millis(now)) || is_new {
            let published = self.state.publishable(&fleet, desired);
            self.state.published = Some(Arc::new(Published::from(published)));
        }
        let care = Care { percent: 1, ..Care::default() };
        self.state.roll(care, Millis(now))
    }

    fn ack(&mut self, name: &str, session: u64, content: &Snapshot, nacks: &[Nack]) {
        let published = Arc::new(Published::from(content.clone()));
        let ack = ProxyWhat::Ack { published, nacks: nacks.to_vec(), ready: true };
        self.state.take(session, name, ack, Millis(0));
    }
}

/// The nacks of a `Hello` stand for what is to be pushed alone, and for who says them.
#[test]
fn what_a_proxy_says_when_it_dials_counts_for_itself() {
    let (good, made_up) = (route("good"), route("made-up"));
    let desired: Snapshot = [good.clone()].into_iter().collect();
    let say = |bench: &mut Bench, name: &str, session, pid, nacks: Vec<Nack>| {
        bench.attach(name, session, pid, true);
        let hello = Hello { pid, nacks, ready: true, ..Hello::default() };
        let what = ProxyWhat::Attached { hello: Box::new(hello), outbox: mpsc::channel(1).0 };
        bench.state.take(session + 10, name, what, Millis(0));
    };
    let mut bench = Bench::new();
    bench.attach("c", 3, 3, true);
    say(&mut bench, "a", 1, 1, vec![nack(&made_up), nack(&good)]);
    bench.turn(&desired, 0);
    assert_eq!(bench.state.published.as_ref().unwrap().snapshot, desired, "one refuses it");
    assert_eq!(bench.state.disagreeing().keys().collect::<Vec<_>>(), [&good.0]);
    say(&mut bench, "b", 2, 2, vec![nack(&good)]);
    bench.turn(&desired, 0);
    assert!(bench.state.rolled_back.contains_key(&good.0), "a second does too");
    // Made up alone, it is none at all.
    let mut bench = Bench::new();
    say(&mut bench, "a", 1, 1, vec![nack(&made_up)]);
    bench.turn(&desired, 0);
    assert!(bench.state.ledger.refused.is_empty() && bench.state.refusals().is_empty());
}

/// One proxy that refuses everything, and what its fleet runs then.
#[test]
fn a_refusal_is_of_one_proxy_until_a_second_agrees() {
    let (first, second) = (route("1"), route("2"));
    let [one, two] = [&first, &second].map(|content| [content.clone()].into_iter().collect::<Snapshot>());
    let mut bench = Bench::new();
    for (i, name) in ["a", "b", "c"].iter().enumerate() {
        bench.attach(name, i as u64, i as u32, true);
    }
    let names = ["a", "b", "c"];
    bench.turn(&one, 0);
    for (i, name) in names.iter().enumerate() {
        bench.ack(name, i as u64, &one, &[]);
    }
    bench.turn(&one, 20);
    assert_eq!(bench.state.stable(), Some(one.revision()));

    // The next content goes to one, who refuses it; then to another, who does not; then to all.
    bench.state.published = Some(Arc::new(Published::from(two.clone())));
    let offered = bench.turn(&two, 40).unwrap();
    let (content, canaries) = offered.canaries.unwrap();
    assert_eq!((content.revision, canaries.len(), offered.all.unwrap().revision), (two.revision(), 1, one.revision()));
    let at = |name: &str| names.iter().position(|n| *n == name).unwrap() as u64;
    let hostile = canaries.first().unwrap().clone();
    bench.ack(&hostile, at(&hostile), &two, &[nack(&second)]);
    let (_, canaries) = bench.turn(&two, 60).unwrap().canaries.unwrap();
    let witness = canaries.iter().find(|name| **name != hostile).unwrap().clone();
    bench.ack(&witness, at(&witness), &two, &[]);
    let offered = bench.turn(&two, 80).unwrap();
    assert!(offered.all.unwrap().revision == two.revision() && offered.canaries.is_none());
    let refusals = bench.state.refusals();
    assert_eq!((refusals.len(), refusals[0].scope, &refusals[0].proxies), (1, Scope::Proxy, &vec![hostile.clone()]));
    assert!(bench.state.rolled_back.is_empty());
    assert_eq!(bench.state.view(Millis(0)).disagreeing[&second.0].len(), 1);
    // Forgotten, it is asked again, and takes it.
    assert!(!bench.state.forget_refusal(&second.0));
    assert_eq!(bench.turn(&two, 100).unwrap().again, 1);
    bench.ack(&hostile, at(&hostile), &two, &[]);
    bench.turn(&two, 120);
    assert!(bench.state.refusals().is_empty() && bench.state.dissenters().is_empty());
}

#[test]
fn a_port_that_one_proxy_lacks_is_that_proxys_trouble() {
    let mut bench = Bench::new();
    bench.attach("a", 1, 1, true);
    bench.attach("b", 2, 2, true);
    let listener = snapshot::proto::Listener { port: 8080, ..Default::default() };
    let resource = snapshot::proto::Resource { requires: vec![], kind: Some(resource::Kind::Listener(listener)) };
    let (key, entry): (Key, _) = ("Listener/ns/f/http".parse().unwrap(), Entry::new(&resource));
    let desired: Snapshot = [(key.clone(), entry.clone())].into_iter().collect();
    let fleet = FleetRef { namespace: "ns".into(), name: "f".into() };
    let nack = Nack {
        key: key.to_string(),
        hash: Bytes::copy_from_slice(entry.hash().as_bytes()),
        field: "port".into(),
        reason: "PortUnavailable".into(),
        message: "port 8080 does not open".into(),
    };
    let published = Arc::new(Published::from(desired.clone()));
    let mut ack = |name: &str, session, nacks: &[Nack]| {
        let (published, nacks) = (Arc::clone(&published), nacks.to_vec());
        let ack = ProxyWhat::Ack { published, nacks, ready: true };
        bench.state.take(session, name, ack, Millis(0));
        bench.state.settle(&desired, Millis(0));
        let revisions = bench.state.proxies().into_iter().map(|p| p.revision.is_some()).collect::<Vec<_>>();
        assert_eq!(bench.state.publishable(&fleet, &desired), desired, "every other proxy goes on serving it");
        revisions
    };
    assert_eq!(ack("b", 2, &[]), [false, true]);
    assert_eq!(ack("a", 1, std::slice::from_ref(&nack)), [false, true], "a has not what is published");
    assert_eq!(ack("a", 1, &[]), [true, true], "it tried again by itself");
    let hello = Hello { pid: 1, nacks: vec![nack], ..Hello::default() };
    let what = ProxyWhat::Attached { hello: Box::new(hello), outbox: mpsc::channel(1).0 };
    bench.state.take(3, "a", what, Millis(0));
    bench.state.settle(&desired, Millis(0));
    assert_eq!(bench.state.publishable(&fleet, &desired), desired);
}

#[test]
fn a_listener_that_is_not_served_says_why() {
    let mut bench = Bench::new();
    let listener = |port, certificate: &str| {
        let certificates: Vec<String> = (!certificate.is_empty()).then(|| certificate.to_owned()).into_iter().collect();
        let listener =
            snapshot::proto::Listener { port, tls: !certificates.is_empty(), certificates, ..Default::default() };
        Entry::new(&snapshot::proto::Resource { requires: vec![], kind: Some(resource::Kind::Listener(listener)) })
    };
    let key = |text: &str| text.parse::<Key>().unwrap();
    let certificate = resource::Kind::Certificate(snapshot::proto::Certificate::default());
    let certificate = Entry::new(&snapshot::proto::Resource { requires: vec![], kind: Some(certificate) });
    let refused = (key("Certificate/ns/bad"), certificate.hash());
    let desired: Snapshot = [
        (key("Listener/ns/f/open"), listener(80, "")),
        (key("Listener/ns/f/taken"), listener(81, "")),
        (key("Listener/ns/f/good"), listener(443, "Certificate/ns/good")),
        (key("Listener/ns/f/bad"), listener(444, "Certificate/ns/bad")),
        (key("Certificate/ns/good"), certificate.clone()),
        (key("Certificate/ns/bad"), certificate),
    ]
    .into_iter()
    .collect();
    let nack = Nack { field: "tls.key".into(), message: "does not fit".into(), ..Nack::default() };
    let refusal = publish::Refusal { nack, by: std::collections::BTreeSet::new(), since: Millis(0), tries: 0 };
    bench.state.ledger.refused.insert(refused, refusal);
    let problem =
        crate::fleet::Problem { port: Some(81), reason: "PortUnavailable", message: "port 81 is in use".into() };
    bench.state.observed(Observation { problems: vec![problem], ..Observation::default() });
    let fleet = FleetRef { namespace: "ns".into(), name: "f".into() };
    let published = bench.state.publishable(&fleet, &desired);
    assert_eq!(published.len(), 4);
    let expect = [
        (key("Listener/ns/f/bad"), "Certificate/ns/bad: tls.key: does not fit".to_owned()),
        (key("Listener/ns/f/taken"), "port 81 is in use".to_owned()),
    ];
    assert_eq!(bench.state.view(Millis(0)).withheld, expect.into_iter().collect());
    bench.state.ledger.refused.clear();
    bench.state.observed(Observation::default());
    assert_eq!(bench.state.publishable(&fleet, &desired), desired);
    assert!(bench.state.view(Millis(0)).withheld.is_empty());
}
