mod kept;
mod told;

use std::sync::Mutex;

use planner::{FleetPlan, Kind, ObjectRef};
use serde_json::{Value, json};
use snapshot::Hash;

use super::*;
use crate::{
    fleet::{Observation, Problem, Proxy, ProxyReport},
    reconcile::event::ProxyWhat,
    source::SourceObject,
    state::store::FolderStore,
};

/// Has what it is told to have, and notes what it was asked for.
#[derive(Clone, Default)]
pub(super) struct FakeFleet(pub(super) Arc<Mutex<Fake>>);

#[derive(Default)]
pub(super) struct Fake {
    observed: BTreeMap<FleetRef, Observation>,
    asked: Vec<(FleetRef, u32, Vec<u16>)>,
    pub(super) outlives: bool,
}

impl Fleet for FakeFleet {
    fn ensure(&mut self, plan: &FleetPlan, _signs: &BTreeMap<String, ProxyReport>) {
        self.0.lock().unwrap().asked.push((plan.fleet.clone(), plan.replicas, plan.ports.clone()));
    }

    fn observe(&self) -> BTreeMap<FleetRef, Observation> {
        self.0.lock().unwrap().observed.clone()
    }

    fn outlives_operator(&self) -> bool {
        self.0.lock().unwrap().outlives
    }
}

pub(super) struct Bench {
    pub(super) reconciler: Reconciler<FakeFleet>,
    pub(super) fleet: FakeFleet,
    _dir: tempfile::TempDir,
}

pub(super) fn fleet_ref() -> FleetRef {
    FleetRef { namespace: "sys".into(), name: "default".into() }
}

pub(super) fn fleet_manifest() -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "GatewayFleet",
        "metadata": {"name": "default", "namespace": "sys"},
        "spec": {
            "listeners": [
                {"name": "http", "protocol": "HTTP", "port": 8080, "allowedRoutes": {"namespaces": {"from": "All"}}},
                {"name": "more", "protocol": "HTTP", "port": 8081},
            ],
            "scaling": {"minReplicas": 1, "maxReplicas": 4},
        },
    })
}

pub(super) fn route_manifest(path: &str) -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ApiRoute", "metadata": {"name": "r", "namespace": "shop"},
        "spec": {"rules": [{"matches": [{"path": {"value": path}}], "backendRefs": [{"address": "127.0.0.1:9000"}]}]},
    })
}

/// What a source says of these manifests.
pub(super) fn observed(manifests: &[Value]) -> Event {
    let object = |value: &Value| {
        let text = |key: &str| value["metadata"][key].as_str().unwrap().to_owned();
        let kind: Kind = serde_json::from_value(value["kind"].clone()).unwrap();
        let id = ObjectRef { kind, namespace: text("namespace"), name: text("name") };
        let current = crds::admit(value.clone()).map(Arc::new);
        let raw = current.is_err().then(|| Arc::new(value.clone()));
        let content = Hash::of(value.to_string().as_bytes());
        (id, SourceObject { current, raw, generation: 1, content, origin: None, creation: None })
    };
    let objects = manifests.iter().map(object).collect();
    Event::WorldChanged(Observed { objects, ..Observed::default() }.into())
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, persisted) = FolderStore::open(dir.path());
        Self::with(dir, StateStore::Folder(store), persisted, crate::leader::election::sole_leader(1))
    }

    pub(super) fn with(
        dir: tempfile::TempDir,
        store: StateStore,
        persisted: PersistedState,
        lead: LeaderWatch,
    ) -> Self {
        let fleet = FakeFleet::default();
        let context = Context {
            lead,
            events: mpsc::channel(1).1,
            fleet: fleet.clone(),
            registry: Arc::default(),
            persisted,
            store,
            recorder: EventRecorder::nowhere(),
            statuses: status::Writer::to_files(dir.path().join("status"), status::FILES),
            view: view::Shared::default(),
            in_force: Some(tokio::sync::watch::Sender::new(None)),
            default_fleet: tokio::sync::watch::channel(default_fleet::State::default()).1,
        };
        Self { reconciler: Reconciler::new(context), fleet, _dir: dir }
    }

    pub(super) fn observe(&self, replicas: u32, problems: Vec<Problem>) {
        let proxies = (0..replicas).map(|i| (format!("default-{i}"), Proxy::default())).collect();
        let observation = Observation { replicas, proxies, addresses: vec![], problems, unknown: false };
        self.fleet.0.lock().unwrap().observed.insert(fleet_ref(), observation);
    }

    /// One reconciliation after this event, and after what is planned for it; what the fleet was asked for in it.
    pub(super) async fn turn(&mut self, event: Event) -> Vec<(u32, Vec<u16>)> {
        self.reconciler.take(event);
        self.reconciler.reconcile().await;
        while self.reconciler.planning.is_under_way() {
            self.reconciler.planning.is_made().await;
            self.fleet.0.lock().unwrap().asked.clear();
            self.reconciler.reconcile().await;
        }
        let asked = std::mem::take(&mut self.fleet.0.lock().unwrap().asked);
        asked.into_iter().map(|(_, replicas, ports)| (replicas, ports)).collect()
    }

    /// Keys that are published.
    pub(super) fn published(&self) -> Vec<String> {
        let published = &self.reconciler.states[&fleet_ref()].published;
        published.iter().flat_map(|p| p.snapshot.iter().map(|(key, _)| key.to_string())).collect()
    }
}

/// What a proxy's stream brings.
pub(super) fn said(name: &str, what: ProxyWhat) -> Event {
    Event::Proxy(ProxyEvent { session: 1, fleet: Arc::new(fleet_ref()), proxy: name.into(), what, room: None })
}

/// A proxy dials, and acknowledges what is published.
pub(super) async fn attached(bench: &mut Bench, name: &str) {
    let published = Arc::clone(bench.reconciler.states[&fleet_ref()].published.as_ref().unwrap());
    let event = |what| said(name, what);
    let (outbox, _mail) = mpsc::channel(1);
    bench.reconciler.take(event(ProxyWhat::Attached { hello: Box::default(), outbox }));
    bench.turn(event(ProxyWhat::Ack { published, nacks: vec![], ready: true })).await;
}

/// Changes of a namespace whose plans took much wait; another's do not, and take them with them.
#[tokio::test]
async fn changes_wait_for_what_their_namespace_owes() {
    let route = |namespace: &str, path: &str| {
        let mut route = route_manifest(path);
        route["metadata"]["namespace"] = namespace.into();
        route
    };
    let routes = |bench: &Bench| bench.reconciler.plan.as_ref().unwrap().parents.len();
    let mut bench = Bench::new();
    bench.turn(observed(&[fleet_manifest()])).await;
    let changed = pace::Changed { all: 1, endpoints: 0 };
    let causes = pace::Causes::from([("busy".to_owned(), changed)]);
    bench.reconciler.planning.pace.charge(&causes, Duration::from_secs(600), Instant::now());
    bench.turn(observed(&[fleet_manifest(), route("busy", "/a")])).await;
    bench.turn(Event::Tick).await;
    assert_eq!(routes(&bench), 0, "it owes");
    bench.turn(observed(&[fleet_manifest(), route("busy", "/a"), route("quiet", "/b")])).await;
    assert_eq!(routes(&bench), 2, "{:?}", bench.published());
    bench.turn(observed(&[fleet_manifest(), route("quiet", "/b")])).await;
    assert_eq!(routes(&bench), 2);
    bench.reconciler.planning.pace = pace::Pace::default();
    bench.turn(Event::Tick).await;
    assert_eq!(routes(&bench), 1, "paid back, it needs no event");
}

const ALL: [&str; 5] = [
    "Fleet/sys/default",
    "Listener/sys/default/http",
    "Listener/sys/default/more",
    "Route/shop/r",
    "Cluster/shop/127.0.0.1:9000/HTTP1",
];

#[track_caller]
fn same(got: &[String], expect: &[&str]) {
    let lower = |key: &str| key.to_lowercase();
    let got: std::collections::BTreeSet<_> = got.iter().map(|key| lower(key)).collect();
    assert_eq!(got, expect.iter().map(|key| lower(key)).collect());
}

#[tokio::test]
async fn nothing_is_done_before_the_source_was_read() {
    let mut bench = Bench::new();
    bench.observe(3, vec![]);
    assert_eq!(bench.turn(Event::Tick).await, []);
}

#[tokio::test]
async fn an_adopted_fleet_keeps_its_size() {
    let mut bench = Bench::new();
    bench.observe(3, vec![]);
    let asked = bench.turn(observed(&[fleet_manifest(), route_manifest("/a")])).await;
    assert_eq!(asked, [(3, vec![8080, 8081])]);
    same(&bench.published(), &ALL);
    // A fleet that is deleted leaves.
    assert_eq!(bench.turn(observed(&[])).await, [(0, vec![])]);
    // With its last proxy gone, it is forgotten.
    bench.fleet.0.lock().unwrap().observed.clear();
    bench.turn(Event::Tick).await;
    assert!(bench.reconciler.states.is_empty());
}

#[tokio::test]
async fn what_was_accepted_stays_while_it_is_broken() {
    let mut bench = Bench::new();
    bench.turn(observed(&[fleet_manifest(), route_manifest("/a")])).await;
    let revision = |bench: &Bench| bench.reconciler.states[&fleet_ref()].published.as_ref().unwrap().revision;
    let before = revision(&bench);
    bench.turn(observed(&[fleet_manifest(), route_manifest("no path")])).await;
    assert_eq!(revision(&bench), before);
    bench.turn(observed(&[fleet_manifest(), route_manifest("/b")])).await;
    assert_ne!(revision(&bench), before);
}

#[tokio::test]
async fn a_listener_is_published_once_its_port_is_open() {
    let mut bench = Bench::new();
    let problem = Problem { port: Some(8081), reason: "PortInUse", message: "port 8081 is used".into() };
    bench.observe(1, vec![problem]);
    bench.turn(observed(&[fleet_manifest(), route_manifest("/a")])).await;
    same(&bench.published(), &[ALL[0], ALL[1], ALL[3], ALL[4]]);
    let view = bench.reconciler.context.view.view().unwrap().world();
    assert_eq!(view["problems"][0]["field"], "spec.listeners[1].port");
    bench.observe(1, vec![]);
    bench.turn(Event::Tick).await;
    same(&bench.published(), &ALL);
    assert_eq!(bench.reconciler.context.view.view().unwrap().world()["problems"], json!([]));
}

#[tokio::test]
async fn at_the_end_everything_leaves() {
    let mut bench = Bench::new();
    bench.observe(2, vec![]);
    bench.turn(observed(&[fleet_manifest()])).await;
    assert_eq!(bench.turn(Event::Shutdown).await, [(0, vec![])], "no port either");
    assert!(bench.reconciler.leaving);
}

#[tokio::test]
async fn readiness_is_that_of_the_least_number_on_what_is_published() {
    let mut bench = Bench::new();
    bench.observe(1, vec![]);
    bench.turn(observed(&[fleet_manifest()])).await;
    let lacks = bench.reconciler.context.view.view().unwrap().not_ready();
    assert_eq!(lacks, ["fleet sys/default: 0 of 1 proxies are Ready on what is published"]);
    let published = Arc::clone(bench.reconciler.states[&fleet_ref()].published.as_ref().unwrap());
    let (outbox, _mail) = mpsc::channel(1);
    let event = |what| said("default-0", what);
    bench.reconciler.take(event(ProxyWhat::Attached { hello: Box::default(), outbox }));
    let ack = ProxyWhat::Ack { published, nacks: vec![], ready: true };
    bench.turn(event(ack)).await;
    assert!(bench.reconciler.context.view.view().unwrap().not_ready().is_empty());
    bench.turn(event(ProxyWhat::Detached)).await;
    assert_eq!(bench.reconciler.context.view.view().unwrap().not_ready().len(), 1);
}

#[tokio::test]
async fn numbers_that_drift_are_written_at_the_pace_of_their_place() {
    let mut bench = Bench::new();
    bench.reconciler.context.statuses.pace.drift = Duration::from_secs(60);
    bench.observe(1, vec![]);
    bench.turn(observed(&[fleet_manifest()])).await;
    let at = |bench: &Bench| bench.reconciler.shown.as_ref().unwrap().2;
    let first = at(&bench);
    bench.turn(Event::Tick).await;
    assert_eq!(at(&bench), first);
    // Where clients reach the fleet is no number.
    let addresses = vec!["203.0.113.10".to_owned()];
    bench.fleet.0.lock().unwrap().observed.get_mut(&fleet_ref()).unwrap().addresses = addresses;
    bench.turn(Event::Tick).await;
    let second = at(&bench);
    assert_ne!(second, first);
    bench.reconciler.context.statuses.pace.drift = Duration::ZERO;
    bench.turn(Event::Tick).await;
    assert_ne!(at(&bench), second);
}

/// A namespace that the operator may not look into: its fleet is let be, and nobody else waits for it.
#[tokio::test]
async fn what_can_not_be_seen_is_not_decided_and_holds_up_nobody() {
    let mut bench = Bench::new();
    let unknown = Observation { unknown: true, ..Observation::default() };
    bench.fleet.0.lock().unwrap().observed.insert(fleet_ref(), unknown);
    bench.turn(observed(&[fleet_manifest(), route_manifest("/a")])).await;
    same(&bench.published(), &ALL);
    let state = &bench.reconciler.states[&fleet_ref()];
    assert!(state.decision.is_none() && state.observation.unknown);
    assert!(bench.reconciler.shown.is_some(), "statuses are written all the same");
    // Those that have dialled are there, as far as is known.
    attached(&mut bench, "default-0").await;
    bench.turn(Event::Tick).await;
    let state = &bench.reconciler.states[&fleet_ref()];
    assert_eq!((state.ready(), state.replicas().current, state.decision.is_none()), (1, 1, true));
    // It is seen again: it is as large as it is, not as small as it might be.
    bench.observe(3, vec![]);
    assert_eq!(bench.turn(Event::Tick).await, [(3, vec![8080, 8081])]);
}

/// What the loop does while something is planned: how many reconciliations, the longest, and how long all of it took.
async fn turns_meanwhile(bench: &mut Bench, event: Event) -> (usize, Duration, Duration) {
    bench.fleet.0.lock().unwrap().asked.clear();
    bench.reconciler.take(event);
    let (began, mut turns, mut longest) = (Instant::now(), 0, Duration::ZERO);
    loop {
        let start = Instant::now();
        bench.reconciler.reconcile().await;
        longest = longest.max(start.elapsed());
        assert!(bench.reconciler.context.view.since_turn().unwrap() < Duration::from_secs(1), "/healthz would fail");
        let reconciler = &mut bench.reconciler;
        let latest = reconciler.latest.clone().unwrap();
        if !reconciler.planning.is_under_way() {
            if reconciler.planning.has_begun(&latest) && !reconciler.plan.as_ref().unwrap().is_unfinished() {
                return (turns, longest, began.elapsed());
            }
            // Whoever it is, it has paid.
            reconciler.planning.pace = pace::Pace::default();
        }
        let asked = std::mem::take(&mut bench.fleet.0.lock().unwrap().asked);
        assert_eq!(asked.len(), 1, "the fleet is looked after meanwhile");
        turns += 1;
        tokio::time::sleep(MIN_INTERVAL).await;
    }
}

/// A route of the worst expressions that fit into one, attached to nothing.
fn hostile_manifest() -> Value {
    let rule = |n: usize| {
        let path = format!("/{n}/(.*/)*(a|b|c)*.*(a|b)[a-c]{{12}}");
        json!({"matches": [{"path": {"type": "RegularExpression", "value": path}}],
            "backendRefs": [{"address": "127.0.0.1:9000"}]})
    };
    let rules: Vec<_> = (0..60).map(rule).collect();
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ApiRoute", "metadata": {"name": "hostile", "namespace": "other"},
        "spec": {"parentRefs": [{"name": "nothing"}], "rules": rules},
    })
}

#[tokio::test]
async fn the_loop_turns_while_a_plan_is_made() {
    let mut bench = Bench::new();
    bench.observe(1, vec![]);
    bench.turn(observed(&[fleet_manifest(), route_manifest("/a")])).await;
    let event = observed(&[fleet_manifest(), route_manifest("/b"), hostile_manifest()]);
    let before = bench.reconciler.states[&fleet_ref()].published.as_ref().unwrap().revision;
    let (turns, longest, all) = turns_meanwhile(&mut bench, event).await;
    println!("planned for {all:.1?}; {turns} turns meanwhile, the longest {longest:.1?} (goal 1 s)");
    assert!(turns >= 10 && longest < Duration::from_secs(1), "{turns} turns in {all:?}, the longest {longest:?}");
    let state = &bench.reconciler.states[&fleet_ref()];
    assert_ne!(state.published.as_ref().unwrap().revision, before, "the other's change is published");
    // The same again, under other names: nothing is compiled anew.
    let mut again = hostile_manifest();
    again["metadata"]["namespace"] = "third".into();
    let event = observed(&[fleet_manifest(), route_manifest("/b"), hostile_manifest(), again]);
    let (.., anew) = turns_meanwhile(&mut bench, event).await;
    assert!(anew < all / 4, "{anew:?} instead of {all:?}");
}

/// Thousands of routes, each with a thousand references to what is not there.
#[tokio::test]
async fn the_loop_turns_however_much_is_wrong() {
    let mut bench = Bench::new();
    bench.observe(1, vec![]);
    bench.turn(observed(&[fleet_manifest()])).await;
    let refs: Vec<_> = (0..16).map(|n| json!({"name": format!("none-{n}"), "port": 80})).collect();
    let rules: Vec<_> = (0..64).map(|_| json!({"backendRefs": refs})).collect();
    let mut manifest = hostile_manifest();
    manifest["spec"] = json!({"parentRefs": [{"name": "default", "namespace": "sys"}], "rules": rules});
    let Event::WorldChanged(one) = observed(&[fleet_manifest(), manifest]) else { panic!() };
    let one = one.take().unwrap();
    let mut many = Observed::clone(&one);
    let (id, route) = one.objects.last_key_value().map(|(id, object)| (id.clone(), object.clone())).unwrap();
    many.objects.extend((0..100).map(|n| (ObjectRef { name: format!("r{n}"), ..id.clone() }, route.clone())));
    let (turns, longest, all) = turns_meanwhile(&mut bench, Event::WorldChanged(many.into())).await;
    let problems = bench.reconciler.plan.as_ref().unwrap().problems.len();
    println!(
        "{problems} problems, planned for {all:.1?}; {turns} turns meanwhile, the longest {longest:.1?} (goal 1 s)"
    );
    assert!(problems < 101 * 20 && longest < Duration::from_secs(1), "{problems} problems, {longest:?}");
}
