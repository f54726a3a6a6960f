//! README, section "On Kubernetes", typed as it stands there by somebody whose cluster has nothing of ours yet.

use std::{fs, time::Instant};

use e2e::{
    cluster::{Agent, Alone, FLEET, Fleet, HOST, Place, Resource, SYSTEM, Shell, UPSTREAM, cluster, names, project},
    harness::pause,
};
use serde_json::{Value, json};

use crate::{MIXED, assert_clean, bound, isolation::rights, seconds};

/// Columns whose values differ from run to run.
const VARYING: [&str; 5] = ["ADDRESS", "DRIVEN-BY", "CONFIG", "LIMITED", "AGE"];
/// The part whose last command gives a shell the cluster with kubectl and helm.
const BEGIN: &str = "On Kubernetes";
const DEFINITIONS: [&str; 5] = [
    "accesspolicies.sluice.dev",
    "apiroutes.sluice.dev",
    "consumers.sluice.dev",
    "gatewayfleets.sluice.dev",
    "ratepolicies.sluice.dev",
];

#[test]
fn the_readme_works_as_it_is_written() {
    let mut cluster = cluster().unwrap();
    cluster.without_release().unwrap();
    cluster.shell.run(&format!("kubectl delete crd --ignore-not-found {}", DEFINITIONS.join(" "))).unwrap();
    let place = Place::bare(&cluster, "walk").unwrap();
    let begun = Instant::now();

    follow(BEGIN);
    println!("a cluster and images after {:.1?}", begun.elapsed());
    follow("Install");
    println!("installed and tested after {:.1?}", begun.elapsed());
    let at = Instant::now();
    the_address_is_the_load_balancers(&cluster);
    println!("the load balancer's address is told after {:.1?}", at.elapsed());

    follow("First route");
    println!("first route after {:.1?}", begun.elapsed());
    // From a pod, by the Service's name.
    let target = format!("sluice-default.{SYSTEM}:80");
    let answer = place.request(&target, HOST, "/orders/7").unwrap();
    assert!(answer.status == 200 && answer.header("x-upstream").starts_with("orders"), "{answer:?}");
    assert_eq!(place.request(&target, HOST, "/typo").unwrap().status, 500);
    assert_eq!(place.request(&target, "other.example", "/orders/7").unwrap().status, 404);

    upgrades_lose_nothing(&cluster, &place.agent, &target);

    let own = fleet_of_ones_own(&place);
    let warnings = warnings(&cluster);
    println!("{} warnings in an install that goes as the README says (goal 0)", warnings.len());
    assert!(warnings.is_empty(), "{warnings:#?}");
    follow("Uninstall");
    // `--wait` says what it means: the proxies have ended, too.
    let proxies = cluster.api.list(Resource::PODS, SYSTEM, "app.kubernetes.io/name=sluice-proxy").unwrap();
    assert!(proxies.is_empty(), "{:?}", names(&proxies));
    let left = left(&cluster);
    assert!(left.is_empty(), "{left:#?}");
    for name in DEFINITIONS {
        assert!(cluster.api.get(Resource::CRDS, "", name).unwrap().is_some(), "{name} is kept");
    }
    println!("gone after {:.1?}", begun.elapsed());

    // A fleet that one wrote serves on, and is deleted without an operator.
    for _ in 0..20 {
        assert_eq!(place.get("/").unwrap().status, 200);
    }
    assert_eq!(names(&place.proxies().unwrap()), own);
    place.api().delete(Resource::GATEWAY_FLEETS, &place.namespace, FLEET, None).unwrap();
    place
        .api()
        .eventually("its proxies go with it", seconds(60), |_| Ok(place.all_proxies()?.is_empty().then_some(())))
        .unwrap();
    cluster.gone(&place.namespace).unwrap();
}

/// A fleet in a namespace of its own, with a route; the names of its proxies. It is refused until a value names the namespace.
fn fleet_of_ones_own(place: &Place<'_>) -> Vec<String> {
    place.apply(&place.upstream_yaml(UPSTREAM)).unwrap();
    place.apply(&Fleet::fixed(1).yaml(&place.namespace)).unwrap();
    let told =
        place.until_condition(Resource::GATEWAY_FLEETS, FLEET, ("Accepted", "False"), bound(seconds(2))).unwrap();
    assert_eq!(told.reason, "NamespaceNotAllowed", "{told:?}");
    assert!(told.message.contains("`fleetNamespaces`"), "{told:?}");
    // What the operator may elsewhere it may not here, whatever it is named.
    let denied = rights::all_denied_by_default(place);
    println!("{denied} actions of the operator's account are denied by default");
    let values = format!("--reset-then-reuse-values --set 'fleetNamespaces={{{}}}'", place.namespace);
    place.shell().run(&format!("helm upgrade sluice charts/sluice --namespace {SYSTEM} {values} --wait")).unwrap();
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    place.deployment_is_ready(UPSTREAM).unwrap();
    place.wait_for_proxies(1, seconds(90)).unwrap();
    place.until("/", 200, "", seconds(20)).unwrap();
    names(&place.proxies().unwrap())
}

/// Under load: the upgrade of the README, one that replaces the operators, one that replaces the proxies.
fn upgrades_lose_nothing(cluster: &Alone, agent: &Agent<'_>, target: &str) {
    let load = agent
        .load(&format!("--target {target} --host {HOST} {MIXED} --rate 200 --path /orders --ws-path /live"))
        .unwrap();
    pause(seconds(3));
    follow("Upgrade");
    for set in ["operator.podAnnotations.rolled=yes", "fleet.spec.template.annotations.rolled=yes"] {
        let at = Instant::now();
        let upgrade = "helm upgrade sluice charts/sluice --reset-then-reuse-values --wait";
        cluster.shell.run(&format!("{upgrade} --namespace {SYSTEM} --set {set}")).unwrap();
        cluster
            .api
            .eventually(&format!("{set} is on every pod"), seconds(120), |api| {
                let name = if set.starts_with("operator") { "sluice-operator" } else { "sluice-proxy" };
                let pods = api.list(Resource::PODS, SYSTEM, &format!("app.kubernetes.io/name={name}"))?;
                let rolled = |pod: &serde_json::Value| pod["metadata"]["annotations"]["rolled"] == "yes";
                Ok((pods.len() >= 2 && pods.iter().all(rolled)).then_some(()))
            })
            .unwrap();
        cluster.fleet_is_programmed(SYSTEM, "default").unwrap();
        println!("upgrade of {set} in {:.1?}", at.elapsed());
    }
    pause(seconds(3));
    let report = load.stop().unwrap();
    println!("{report}");
    assert_clean(&report);
}

/// There is no cloud here: the test gives the Service the address that one would.
fn the_address_is_the_load_balancers(cluster: &Alone) {
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.10"}]}}});
    cluster.api.patch(Resource::SERVICES, SYSTEM, "sluice-default/status", &status).unwrap();
    cluster
        .api
        .eventually("the fleet has the load balancer's address", bound(seconds(2)), |_| {
            let said = cluster.shell.run(&format!("kubectl get gatewayfleets --namespace {SYSTEM}"))?;
            Ok(said.contains(" 203.0.113.10 ").then_some(()))
        })
        .unwrap();
}

/// Types the commands of a part of the README in a new shell, which has nothing but what the README gives it, and compares
/// what they print with what stands below each.
#[track_caller]
fn follow(heading: &str) {
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let begin = steps(&readme, BEGIN).pop().unwrap().command;
    let begin = if heading == BEGIN { "" } else { &begin };
    let steps = steps(&readme, heading);
    assert!(!steps.is_empty(), "README has no commands under {heading:?}");
    let mark = "=====";
    let script: String = steps.iter().map(|step| format!("echo '{mark}'\n{}\n", step.command)).collect();
    let script = format!("trap 'kill $(jobs -p) 2>/dev/null || :' EXIT\n{begin}\n{script}");
    let said = Shell::new().run(&script).unwrap();
    for (step, said) in steps.iter().zip(said.split(&format!("{mark}\n")).skip(1)) {
        println!("$ {}\n{said}", step.command);
        compare(&step.output, said, &step.command);
    }
}

/// A command and what stands below it.
struct Step {
    command: String,
    output: Vec<String>,
}

/// The commands of the `console` blocks below a heading.
fn steps(readme: &str, heading: &str) -> Vec<Step> {
    let (mut inside, mut console, mut steps) = (false, false, Vec::<Step>::new());
    for line in readme.lines() {
        if !console && line.starts_with('#') {
            inside = line.trim_start_matches('#').trim() == heading;
        } else if line.starts_with("```") {
            console = line == "```console";
        } else if inside && console {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step { command: command.to_owned(), output: Vec::new() }),
                (None, Some(step)) => step.output.push(line.to_owned()),
                (None, None) => panic!("README: {line:?} stands before any command"),
            }
        }
    }
    steps
}

/// What is printed is what stands in the README; of a table, the columns and what does not vary.
#[track_caller]
fn compare(expected: &[String], said: &str, command: &str) {
    let said: Vec<_> = said.lines().collect();
    if expected.is_empty() {
        return;
    }
    assert_eq!(expected.len(), said.len(), "{command}: {expected:#?} {said:#?}");
    if !expected[0].starts_with("NAME") {
        assert_eq!(expected, said, "{command}");
        return;
    }
    let rows = |lines: &[&str]| -> Vec<Vec<(String, String)>> {
        let columns: Vec<_> = lines[0].split_whitespace().map(|name| (name, lines[0].find(name).unwrap())).collect();
        let row = |line: &&str| {
            let end = |at: usize| columns.get(at + 1).map_or(line.len(), |(_, start)| *start).min(line.len());
            let cell = |at: usize, start: usize| line.get(start..end(at)).unwrap_or_default().trim().to_owned();
            columns.iter().enumerate().map(|(at, (name, start))| (String::from(*name), cell(at, *start))).collect()
        };
        lines[1..].iter().map(row).collect()
    };
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    for (expected, said) in rows(&expected).into_iter().zip(rows(&said)) {
        assert_eq!(expected.len(), said.len(), "{command}: {expected:?} {said:?}");
        for (expected, said) in expected.iter().zip(&said) {
            assert_eq!(expected.0, said.0, "{command}");
            assert!(expected.1 == said.1 || VARYING.contains(&&*said.0), "{command}: {expected:?} {said:?}");
        }
    }
}

/// What Events warn of, in the namespaces of the walk; the example has a route with a mistake.
fn warnings(cluster: &Alone) -> Vec<String> {
    let of = |namespace: &str| cluster.api.list(Resource::EVENTS, namespace, "").unwrap();
    let all = [SYSTEM, "shop"].into_iter().flat_map(of);
    let warns = |event: &Value| event["type"] == "Warning" && event["involvedObject"]["name"] != "typo";
    // The kubelet asks a proxy that has just drained and ended, until it sees so, a second later: nobody can answer then.
    let there = names(&cluster.api.list(Resource::PODS, SYSTEM, "").unwrap());
    let has_ended = |event: &Value| {
        let name = event["involvedObject"]["name"].as_str().unwrap_or_default();
        event["reason"] == "Unhealthy" && !there.iter().any(|pod| pod == name)
    };
    all.filter(|event| warns(event) && !has_ended(event))
        .map(|e| format!("{} {}: {}", e["involvedObject"]["name"], e["reason"], e["message"]))
        .collect()
}

/// What there is of ours besides the definitions, in the namespace of the release and outside of namespaces.
fn left(cluster: &Alone) -> Vec<String> {
    let kinds = |namespaced: bool| {
        let command = format!("kubectl api-resources --verbs=list --namespaced={namespaced} --output=name");
        let kinds = cluster.shell.run(&command).unwrap();
        kinds.lines().filter(|kind| !kind.starts_with("events")).collect::<Vec<_>>().join(",")
    };
    let within = format!("kubectl get {} --namespace {SYSTEM} --ignore-not-found --output=name", kinds(true));
    let outside = format!("kubectl get {} --ignore-not-found --output=name", kinds(false));
    // Every namespace has these; the namespace was made by --create-namespace, which helm does not undo.
    let known = ["configmap/kube-root-ca.crt", "serviceaccount/default", "namespace/sluice-system"];
    let looked = || -> Vec<String> {
        let within = cluster.shell.run(&within).unwrap();
        let outside = cluster.shell.run(&outside).unwrap();
        // The definitions with their API, and a node that happens to have the name.
        let kept = ["customresourcedefinition", "apiservice.", "node/", "csinode."];
        let ours = outside.lines().filter(|name| name.contains("sluice"));
        let ours = ours.filter(|name| !kept.iter().any(|kind| name.starts_with(kind)));
        within.lines().chain(ours).filter(|name| !known.contains(name)).map(str::to_owned).collect()
    };
    let mut found = looked();
    // The garbage collector takes what belonged to the fleet away a moment later.
    let until = Instant::now() + seconds(60);
    while !found.is_empty() && Instant::now() < until {
        pause(seconds(1));
        found = looked();
    }
    found
}

#[test]
fn tables_are_compared_by_column() {
    let expected = ["NAME  READY  AGE".to_owned(), "a     1/1    3s".to_owned()];
    compare(&expected, "NAME      READY     AGE\na         1/1       7m\n", "same but the age");
    let wrong = std::panic::catch_unwind(|| compare(&expected, "NAME READY AGE\na    0/1   7m\n", "other"));
    assert!(wrong.is_err());
    let steps = steps("## A\n```console\n$ b\nc\n$ d\n```\n## E\n```console\n$ f\n```\n", "A");
    let steps: Vec<_> = steps.iter().map(|step| (step.command.as_str(), step.output.len())).collect();
    assert_eq!(steps, [("b", 1), ("d", 0)]);
}
