//! `testdata/**/X.in.yaml` is a folder of manifests, `X.out.yaml` what the planner makes of it: problems, what each fleet
//! runs, every status. Adding a file adds a test; UPDATE=1 writes the answers anew.
//!
//! An object that stands twice: the first is its last accepted content, the second its current one.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use planner::{Cluster, FleetView, ProxyView, Unreadable, plan, statuses};
use serde::Serialize;
use snapshot::Key;
use support::NOW;

/// What stands in an `.out.yaml`.
#[derive(Serialize)]
struct Answer {
    problems: Vec<String>,
    /// Ports that pods open in place of the listeners' own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    container_ports: BTreeMap<String, BTreeMap<u16, u16>>,
    fleets: BTreeMap<String, BTreeMap<Key, serde_json::Value>>,
    statuses: BTreeMap<String, serde_json::Value>,
}

#[test]
fn answers() {
    let mut wrong = vec![];
    let inputs = inputs(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"));
    assert!(inputs.len() >= 8, "the manifests are gone");
    for input in &inputs {
        let output = input.with_extension("").with_extension("out.yaml");
        let answer = answer(&fs::read_to_string(input).unwrap(), in_cluster(input));
        if env::var_os("UPDATE").is_some() {
            fs::write(&output, answer).unwrap();
        } else if fs::read_to_string(&output).ok().as_deref() != Some(&answer) {
            wrong.push(format!("{}:\n{answer}", output.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "other answers than in testdata; if they are right, run UPDATE=1 cargo test -p planner --test golden\n\n{}",
        wrong.join("\n")
    );
}

fn inputs(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(inputs(&path));
        } else if path.to_string_lossy().ends_with(".in.yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What stands in the folder `cluster` is a cluster's, of an operator in `sluice-system`; the rest are folders of manifests.
fn in_cluster(input: &Path) -> bool {
    input.components().any(|part| part.as_os_str() == "cluster")
}

/// Lines `# fleetNamespaces: a b` and `# unreadable: a` in the manifests say what the operator may not do.
fn cluster(manifests: &str) -> Cluster {
    let words = |key: &str| {
        let line = manifests.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(key)?.strip_prefix(": "));
        line.map(|line| line.split(' ').map(str::to_owned).collect::<BTreeSet<_>>())
    };
    let unreadable = words("unreadable").unwrap_or_default();
    Cluster {
        operator_namespace: "sluice-system".into(),
        service_account: "sluice-operator".into(),
        fleet_namespaces: words("fleetNamespaces").map(Arc::new),
        unreadable: unreadable.into_iter().map(|name| (name, Unreadable::Denied)).collect(),
    }
}

/// Two Ready proxies run what was planned.
fn answer(manifests: &str, cluster: bool) -> String {
    let mut world = support::world(manifests);
    world.cluster = cluster.then(|| self::cluster(manifests));
    let plan = plan(&world);
    let views = plan.fleets.iter().map(|(fleet, planned)| {
        let revision = Some(planned.snapshot.revision());
        let proxy = |n| ProxyView { name: format!("p{n}"), ready: true, revision, ..ProxyView::default() };
        let view = FleetView { proxies: vec![proxy(1), proxy(2)], published: revision, ..FleetView::default() };
        (fleet.clone(), view)
    });
    let statuses = statuses(&world, &plan, &views.collect(), &BTreeMap::new(), NOW);
    let answer = Answer {
        problems: plan.problems.iter().map(ToString::to_string).collect(),
        container_ports: plan
            .fleets
            .iter()
            .map(|(fleet, planned)| (fleet.to_string(), planned.settings.container_ports.clone()))
            .filter(|(_, ports)| !ports.is_empty())
            .collect(),
        fleets: plan
            .fleets
            .iter()
            .map(|(fleet, planned)| (fleet.to_string(), support::readable(&planned.snapshot)))
            .collect(),
        statuses: statuses
            .iter()
            .map(|(object, status)| (object.to_string(), support::short(serde_json::to_value(status).unwrap())))
            .collect(),
    };
    serde_yaml::to_string(&answer).unwrap()
}
