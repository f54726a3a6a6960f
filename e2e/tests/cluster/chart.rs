//! What is rendered is what an API server takes, and does without helm too.

use std::time::Instant;

use e2e::cluster::{SYSTEM, cluster};

#[test]
fn helm_finds_no_fault() {
    let cluster = cluster().unwrap();
    let said = cluster.shell.run("helm lint --strict charts/sluice --values e2e/cluster/values.yaml").unwrap();
    assert!(said.contains("0 chart(s) failed"), "{said}");
}

#[test]
fn what_is_rendered_installs_without_helm() {
    let cluster = cluster().unwrap();
    let render = format!("helm template sluice charts/sluice --namespace {SYSTEM} --values e2e/cluster/values.yaml");
    let started = Instant::now();
    cluster.shell.run(&format!("kubectl create namespace {SYSTEM}")).unwrap();
    let apply = "kubectl apply --dry-run=server --validate=strict --filename - 2>&1";
    let said = cluster.shell.run(&format!("{render} | {apply}")).unwrap();
    // What was made otherwise, such as definitions that are there, lacks kubectl's own annotation.
    let strange = |line: &&str| !line.ends_with("(server dry run)") && !line.contains("last-applied-configuration");
    assert_eq!(said.lines().filter(strange).collect::<Vec<_>>(), [""; 0]);
    assert!(said.lines().count() > 10, "{said}");

    // Client-side apply keeps a copy of each object in an annotation: the definitions are small enough for that.
    let installed = cluster.shell.run(&format!("{render} --no-hooks | kubectl apply --filename -"));
    let programmed = installed.and_then(|_| cluster.fleet_is_programmed(SYSTEM, "default"));
    // Who applies the hooks, too, runs what `helm uninstall` runs, and nothing is taken away.
    let hook = "kubectl apply --filename - && kubectl wait --for=condition=Complete --timeout=60s";
    let hooked = programmed.and_then(|_| {
        let show = "--show-only templates/uninstall.yaml";
        let said = format!("{render} {show} | {hook} job/sluice-uninstall --namespace {SYSTEM}");
        cluster.shell.run(&said)?;
        cluster.fleet_is_programmed(SYSTEM, "default")
    });
    let file = cluster.dump(SYSTEM);
    let removed = cluster
        .shell
        .run(&format!("{render} --set crds.enabled=false | kubectl delete --ignore-not-found --filename -"));
    hooked.unwrap_or_else(|error| panic!("{error:#}; what the cluster says is in {}", file.display()));
    removed.unwrap();
    cluster.gone(SYSTEM).unwrap();
    println!("rendered, applied, programmed and removed in {:.1?}", started.elapsed());
}
