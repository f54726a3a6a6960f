//! What the operator takes in memory while one namespace has far more objects than it holds: of an API server, from the list
//! to the plan. Others' objects come meanwhile, and what is deleted gives room back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, which clippy does not see as tests

mod server;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crds::Kind;
use operator::{
    event::Event,
    source::{
        Observed,
        kube::{InForce, Lists, patient, progress, run},
    },
};
use planner::{ObjectRef, Planner};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use server::{Make, Server};

/// What the chart gives an operator.
const LIMIT: u64 = 512 << 20;

/// Objects of one kind, which one namespace has too many of.
struct Crowd {
    what: &'static str,
    plural: &'static str,
    kind: Kind,
    count: usize,
    /// How many of them there are where that is to be quick.
    quick: usize,
    make: fn(usize) -> String,
}

fn name(i: usize) -> String {
    format!("crowd-{i:06}")
}

fn metadata(namespace: &str, name: &str, more: &str) -> String {
    format!(
        "{{\"name\":\"{name}\",\"namespace\":\"{namespace}\",\"uid\":\"{name}\",\"resourceVersion\":\"1\",\"generation\":1,\
         \"creationTimestamp\":\"2026-01-02T03:04:05Z\"{more}}}"
    )
}

/// A route of this many rules of four matches, with values of headers of this size.
fn route(namespace: &str, name: &str, rules: usize, value: usize) -> String {
    let value = "v".repeat(value);
    let matching = |r: usize, m: usize| format!("{{\"headers\":[{{\"name\":\"x-{r}-{m}\",\"value\":\"{value}\"}}]}}");
    let rule = |r: usize| {
        let matches: Vec<String> = (0..4).map(|m| matching(r, m)).collect();
        format!("{{\"matches\":[{}],\"backendRefs\":[{{\"name\":\"a\",\"port\":80}}]}}", matches.join(","))
    };
    let rules: Vec<String> = (0..rules).map(rule).collect();
    format!(
        "{{\"apiVersion\":\"sluice.dev/v1alpha1\",\"kind\":\"ApiRoute\",\"metadata\":{},\"spec\":{{\"parentRefs\":\
         [{{\"name\":\"default\",\"namespace\":\"sluice-system\"}}],\"hostnames\":[\"{name}.example\"],\"rules\":[{}]}}}}",
        metadata(namespace, name, ""),
        rules.join(",")
    )
}

/// A megabyte of addresses, each of which is short.
fn slice(i: usize) -> String {
    let addresses =
        |e: usize| -> Vec<String> { (0..100).map(|a| format!("\"10.{}.{}.{a}\"", e / 250, e % 250)).collect() };
    let endpoints: Vec<String> = (0..1000).map(|e| format!("{{\"addresses\":[{}]}}", addresses(e).join(","))).collect();
    format!(
        "{{\"addressType\":\"IPv4\",\"metadata\":{},\"ports\":[{{\"port\":80}}],\"endpoints\":[{}]}}",
        metadata("crowd", &name(i), ",\"labels\":{\"kubernetes.io/service-name\":\"a\"}"),
        endpoints.join(",")
    )
}

/// A megabyte of ports.
fn service(i: usize) -> String {
    let ports: Vec<String> =
        (1..20_000).map(|p| format!("{{\"name\":\"p{p}\",\"port\":{p},\"protocol\":\"TCP\"}}")).collect();
    format!("{{\"metadata\":{},\"spec\":{{\"ports\":[{}]}}}}", metadata("crowd", &name(i), ""), ports.join(","))
}

const CROWDS: &[Crowd] = &[
    Crowd {
        what: "routes of 1 MB",
        plural: "apiroutes",
        kind: Kind::ApiRoute,
        count: 2000,
        quick: 0,
        make: |i| route("crowd", &name(i), 64, 4000),
    },
    Crowd {
        what: "small routes",
        plural: "apiroutes",
        kind: Kind::ApiRoute,
        count: 100_000,
        quick: 0,
        make: |i| route("crowd", &name(i), 1, 10),
    },
    Crowd {
        what: "slices of 1 MB",
        plural: "endpointslices",
        kind: Kind::EndpointSlice,
        count: 500,
        quick: 60,
        make: slice,
    },
    Crowd { what: "services of 1 MB", plural: "services", kind: Kind::Service, count: 500, quick: 0, make: service },
];

/// Most that the process had since this was asked last.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

struct Follow {
    worlds: mpsc::Receiver<Event>,
    last: Arc<Observed>,
}

impl Follow {
    async fn until(&mut self, what: &str, within: Duration, fits: impl Fn(&Observed) -> bool) -> Duration {
        let began = Instant::now();
        while !fits(&self.last) {
            let left = within.saturating_sub(began.elapsed());
            match timeout(left, self.worlds.recv()).await {
                Ok(Some(Event::WorldChanged(latest))) => self.last = latest.take().unwrap(),
                _ => {
                    let (all, names) = (self.last.objects.len(), self.last.left_out.len());
                    panic!("no world with {what} within {within:?}: {all} objects, of {names} of them only the name");
                }
            }
        }
        began.elapsed()
    }

    /// Plans it, as the loop does, and gives back how many statuses that comes to.
    fn plan(&self, planner: &mut Planner) -> usize {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let world = operator::world::world(&self.last, &BTreeMap::new(), &Arc::default(), Some(now));
        let plan = planner.plan(&world);
        planner::statuses(&world, &plan, &BTreeMap::new(), &BTreeMap::new(), world.now).len()
    }
}

fn is_whole(observed: &Observed, kind: Kind, namespace: &str, name: &str) -> bool {
    let id = ObjectRef { kind, namespace: namespace.into(), name: name.into() };
    observed.objects.get(&id).is_some_and(|object| object.current.is_ok())
}

async fn attack(crowd: &Crowd, count: usize) {
    let Crowd { what, plural, kind, make, .. } = *crowd;
    let server = Server::new();
    for i in 0..count {
        server.put(plural, "crowd", &name(i), Arc::new(move || make(i)));
    }
    let config = patient(kube::Config::new(server.start().await.parse().unwrap()));
    let (sender, worlds) = mpsc::channel(1);
    let (_in_force, known) = watch::channel(Some(InForce::default()));
    let cluster = planner::Cluster { operator_namespace: "sluice-system".into(), ..planner::Cluster::default() };
    let before = peak();
    let (client, lists) = (kube::Client::try_from(config).unwrap(), Lists::default());
    let source = tokio::spawn(run(client, lists, cluster, sender, progress().0, known));
    let mut follow = Follow { worlds, last: Arc::default() };
    let mut planner = Planner::default();
    let first = follow.until("everything", Duration::from_secs(600), |observed| !observed.objects.is_empty()).await;
    let (names, all) = (follow.last.left_out.len(), follow.last.objects.len());
    let listed = peak();
    let statuses = follow.plan(&mut planner);
    let planned = peak();
    println!(
        "{count} {what}: listed in {first:.1?}: {} whole, {names} names; had {} MiB before, {} MiB at most, with a plan of {statuses} \
         statuses {} MiB (goal {} MiB)",
        all - names,
        before >> 20,
        listed >> 20,
        planned >> 20,
        LIMIT >> 20
    );
    // Others come, once the watches follow.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let make: Make = Arc::new(|| route("shop", "large", 64, 1000));
    server.put("apiroutes", "shop", "large", make);
    let took = follow
        .until("another's route", Duration::from_secs(10), |o| is_whole(o, Kind::ApiRoute, "shop", "large"))
        .await;
    follow.plan(&mut planner);
    // There is room again.
    for i in 0..count - 10 {
        server.delete(plural, "crowd", &name(i));
    }
    let back = follow
        .until("what was left out", Duration::from_secs(120), |o| {
            o.left_out.is_empty() && o.objects.len() == 11 && is_whole(o, kind, "crowd", &name(count - 1))
        })
        .await;
    follow.plan(&mut planner);
    let most = listed.max(planned).max(peak());
    println!(
        "{what}: another's route took {took:.2?}; what was left out is back {back:.2?} after the rest is gone; {} MiB at most",
        most >> 20
    );
    source.abort();
    assert!(most < LIMIT, "{what}: {} MiB", most >> 20);
    assert!(
        took < Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 }),
        "{what}: another's route took {took:?}"
    );
}

/// Which of them a process of its own tries: what one leaves behind is nothing to the next.
const CROWD: &str = "SLUICE_CROWD";

#[test]
fn a_crowd_takes_no_more_than_there_is() {
    // What is built to be debugged takes minutes for thousands of megabytes.
    let is_long = std::env::var_os("SLUICE_LONG").is_some();
    if let Ok(number) = std::env::var(CROWD) {
        let crowd = &CROWDS[number.parse::<usize>().unwrap()];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(attack(crowd, if is_long { crowd.count } else { crowd.quick }));
    }
    for number in (0..CROWDS.len()).filter(|number| is_long || CROWDS[*number].quick > 0) {
        let mut own = std::process::Command::new(std::env::current_exe().unwrap());
        let own = own.args(["a_crowd_takes_no_more_than_there_is", "--nocapture"]).env(CROWD, number.to_string());
        let output = own.output().unwrap();
        print!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
