//! `testdata/fleet/X.in.yaml` is a GatewayFleet, `X.out.yaml` what is applied for it. Adding a file adds a test; UPDATE=1
//! writes the answers anew.

use std::{env, fs, path::Path};

use crds::fleet::Template;

use super::*;
use crate::fleet::kube::testing::{CA, plan, settings, small};

#[test]
fn objects() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fleet");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(".in.yaml")).collect();
    inputs.sort();
    assert!(inputs.len() >= 4, "the fleets are gone");
    let mut wrong = vec![];
    for input in inputs {
        let output = input.with_extension("").with_extension("out.yaml");
        let rendered = render(&plan(&fs::read_to_string(&input).unwrap(), 2), &settings(), CA);
        let documents: Vec<String> =
            rendered.values().map(|desired| serde_yaml::to_string(&desired.body).unwrap()).collect();
        let answer = documents.join("---\n");
        if env::var_os("UPDATE").is_some() {
            fs::write(&output, answer).unwrap();
        } else if fs::read_to_string(&output).ok().as_deref() != Some(&answer) {
            wrong.push(format!("{}:\n{answer}", output.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "other objects than in testdata; if they are right, run UPDATE=1 cargo test -p operator --lib render\n\n{}",
        wrong.join("\n")
    );
}

/// Which objects a change of the spec changes.
#[track_caller]
fn changes(change: impl FnOnce(&mut FleetPlan, &mut crds::GatewayFleetSpec), expect: &[ChildKind]) {
    let before = small(2);
    let mut after = before.clone();
    let mut spec = crds::GatewayFleetSpec::clone(after.spec.as_ref().unwrap());
    change(&mut after, &mut spec);
    after.spec = Some(spec.into());
    let (before, after) = (render(&before, &settings(), CA), render(&after, &settings(), CA));
    let changed: Vec<ChildKind> =
        ChildKind::ALL.into_iter().filter(|child| before[child].hash != after[child].hash).collect();
    assert_eq!(changed, expect);
}

#[test]
fn pods_are_replaced_only_for_what_they_can_not_take_up() {
    changes(|plan, _| plan.replicas = 9, &[]);
    changes(|_, spec| spec.scaling.max_replicas = 9, &[]);
    changes(|_, spec| spec.access_log.sampling = 1, &[]);
    changes(|_, spec| spec.drain.min_drain = crds::Duration::from_secs(1), &[]);
    let port = |plan: &mut FleetPlan, spec: &mut crds::GatewayFleetSpec| {
        spec.listeners[0].port = 8080;
        plan.ports = vec![8080];
    };
    changes(port, &[ChildKind::Service, ChildKind::NetworkPolicy]);
    changes(|_, spec| spec.listeners[0].name = "web".into(), &[ChildKind::Service]);
    changes(|_, spec| spec.drain.timeout = crds::Duration::from_millis(90_001), &[ChildKind::Deployment]);
    changes(|_, spec| spec.template = Template { workers: Some(3), ..Template::default() }, &[ChildKind::Deployment]);
}

#[test]
fn nothing_of_nothing_and_no_trust_without_certificates() {
    assert_eq!(render(&crate::fleet::nothing(&small(1).fleet, Default::default()), &settings(), CA), BTreeMap::new());
    let without: Vec<ChildKind> = render(&small(1), &settings(), "").into_keys().collect();
    assert!(!without.contains(&ChildKind::ConfigMap) && without.len() == 5, "{without:?}");
}

#[test]
fn workers_and_resources() {
    #[track_caller]
    fn check(resources: Value, workers: &str, expect: &Value) {
        let mut plan = small(1);
        let mut spec = crds::GatewayFleetSpec::clone(plan.spec.as_ref().unwrap());
        spec.template.resources = serde_json::from_value(resources).unwrap();
        plan.spec = Some(spec.into());
        let body = &render(&plan, &settings(), CA)[&ChildKind::Deployment].body;
        let container = &body["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["resources"], *expect);
        let args: Vec<&str> = container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        let at = args.iter().position(|arg| *arg == "--workers").unwrap();
        assert_eq!(args[at + 1], workers);
    }
    use serde_json::json;
    let (request, limit) = (json!({"cpu": "500m", "memory": "256Mi"}), json!({"memory": "1Gi"}));
    check(json!({}), "1", &json!({"requests": request, "limits": limit}));
    // A default beside what the user says could contradict it.
    check(json!({"requests": {"memory": "4Gi"}}), "1", &json!({"requests": {"cpu": "500m", "memory": "4Gi"}}));
    check(
        json!({"limits": {"cpu": "1500m"}}),
        "2",
        &json!({"requests": {"memory": "256Mi"}, "limits": {"cpu": "1500m", "memory": "1Gi"}}),
    );
    check(
        json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "4"}}),
        "4",
        &json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "4"}}),
    );
    check(
        json!({"requests": {"cpu": "4k", "memory": "1Gi"}}),
        "128",
        &json!({"requests": {"cpu": "4k", "memory": "1Gi"}}),
    );
}
