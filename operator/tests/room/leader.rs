//! An operator that leads, in a process of its own: all of the product but its proxies and its lease.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use operator::{
    admin::view,
    default_fleet,
    events::recorder::EventRecorder,
    fleet::{Fleet, Observation, ProxyReport},
    leader::election,
    reconcile::{Context, Reconciler, event::Event},
    source::{
        Latest,
        kube::{Lists, patient, progress, run},
    },
    state::{
        certificates::Certificates,
        configmap,
        persisted::PersistedState,
        store::{ClusterStore, StateStore},
    },
    status,
};
use planner::{FleetPlan, FleetRef};
use tokio::sync::{mpsc, watch};

const NAMESPACE: &str = "sluice-system";

/// There are no proxies.
struct Nothing;

impl Fleet for Nothing {
    fn ensure(&mut self, _: &FleetPlan, _: &BTreeMap<String, ProxyReport>) {}

    fn observe(&self) -> BTreeMap<FleetRef, Observation> {
        BTreeMap::new()
    }
}

/// Leads in the cluster of this API server until it is killed. Says in lines how many objects there are, of how many of
/// them only the name is held (`world ALL NAMES`), and how long the longest turn was of late (`turn MILLISECONDS`).
pub(crate) async fn lead(url: &str) {
    let client = kube::Client::try_from(patient(kube::Config::new(url.parse().unwrap()))).unwrap();
    let (sender, events) = mpsc::channel(1024);
    let (told, mut worlds) = mpsc::channel(1);
    let (tell_in_force, in_force) = watch::channel(Some(operator::source::InForce::default()));
    let cluster = planner::Cluster { operator_namespace: NAMESPACE.into(), ..planner::Cluster::default() };
    let lists = Lists::default();
    tokio::spawn(run(client.clone(), lists.clone(), cluster, told, progress().0, in_force));
    tokio::spawn(async move {
        let waiting = Latest::default();
        while let Some(event) = worlds.recv().await {
            let Event::WorldChanged(latest) = event else { continue };
            let Some(observed) = latest.take() else { continue };
            println!("world {} {}", observed.objects.len(), observed.left_out.len());
            if waiting.put(observed) {
                sender.send(Event::WorldChanged(waiting.clone())).await.unwrap();
            }
        }
    });
    let store = ClusterStore {
        objects: configmap::ConfigMapStore::start(client.clone(), NAMESPACE, "sluice-memory"),
        certificates: Certificates::start(client.clone(), NAMESPACE, "sluice-certificates"),
    };
    let view = view::Shared::default();
    let context = Context {
        events,
        fleet: Nothing,
        registry: Arc::default(),
        persisted: PersistedState::default(),
        store: StateStore::Cluster(Box::new(store)),
        lead: election::sole_leader(1),
        recorder: EventRecorder::start(client.clone(), "room"),
        statuses: status::Writer::to_api(client, lists, status::API),
        view: view.clone(),
        in_force: Some(tell_in_force),
        default_fleet: watch::channel(default_fleet::State::default()).1,
    };
    thread::spawn(move || watch_turns(&view));
    Reconciler::new(context).run().await;
}

fn watch_turns(view: &view::Shared) {
    let (mut longest, mut said) = (Duration::ZERO, Instant::now());
    loop {
        thread::park_timeout(Duration::from_millis(5));
        longest = longest.max(view.since_turn().unwrap_or_default());
        if said.elapsed() > Duration::from_millis(250) {
            println!("turn {}", longest.as_millis());
            (longest, said) = (Duration::ZERO, Instant::now());
        }
    }
}
