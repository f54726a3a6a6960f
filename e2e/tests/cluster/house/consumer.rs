//! A consumer by kubectl: made, rotated, without the right to read its Secret, deleted.

use std::time::Instant;

use e2e::cluster::{Fleet, Place, Resource, sluice};
use serde_json::Value;

use crate::{bound, seconds};

#[test]
fn a_consumer_is_made_changed_and_deleted_by_kubectl() {
    let sluice = sluice().unwrap();
    let place = Place::new(&sluice, "consumer", &Fleet::fixed(1)).unwrap();
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    place.until("/", 200, "", seconds(20)).unwrap();
    let kubectl = |line: &str| place.shell().run(&format!("kubectl --namespace {} {line}", place.namespace)).unwrap();

    let secret = |name: &str, key: &str| {
        kubectl(&format!("create secret generic {name} --from-literal=api-key={key}"));
        kubectl(&format!("label secret {name} sluice.dev/credential=api-key"));
    };
    secret("acme", "first-key-0123456789");
    let made = Instant::now();
    apply(&place, "acme", &["acme"]);
    until(&place, "acme", 1);
    println!("a consumer is programmed {:.1?} after kubectl (goal 1 s)", made.elapsed());
    assert!(made.elapsed() <= bound(seconds(1)));
    let columns = kubectl("get cons acme");
    assert!(columns.starts_with("NAME   TIER   CREDENTIALS   ACCEPTED   REASON       AGE"), "{columns}");
    assert!(columns.contains("acme   gold   1             True       Programmed"), "{columns}");

    // Rotated: two keys for a while, then the Secret has another.
    secret("acme-next", "second-key-0123456789");
    apply(&place, "acme", &["acme", "acme-next"]);
    until(&place, "acme", 2);
    apply(&place, "other", &["acme-next"]);
    let held = ("Programmed", "False");
    let told = place.until_condition(Resource::CONSUMERS, "other", held, bound(seconds(5))).unwrap();
    assert_eq!(told.reason, "Conflicted", "{told:?}");
    let rotated = "patch secret acme-next --patch '{\"stringData\": {\"api-key\": \"third-key-0123456789\"}}'";
    kubectl(rotated);
    secret("other", "second-key-0123456789");
    apply(&place, "other", &["other"]);
    until(&place, "other", 1);

    // A Secret is a credential for as long as it says so, and no other one is.
    kubectl("label secret other sluice.dev/credential-");
    let told =
        place.until_condition(Resource::CONSUMERS, "other", ("ResolvedRefs", "False"), bound(seconds(5))).unwrap();
    assert!(told.message.contains("with the label sluice.dev/credential: api-key"), "{told:?}");
    place
        .api()
        .eventually("no credential", bound(seconds(5)), |_| Ok((credentials(&place, "other") == 0).then_some(())))
        .unwrap();
    kubectl("label secret other sluice.dev/credential=api-key");
    until(&place, "other", 1);

    // Without the right to read Secrets: what was read goes on, and what permits it is told.
    place.forbid_certificates().unwrap();
    let told =
        place.until_condition(Resource::CONSUMERS, "acme", ("ResolvedRefs", "False"), bound(seconds(90))).unwrap();
    assert_eq!(told.reason, "RefNotPermitted", "{told:?}");
    assert!(told.message.contains("kubectl create role"), "{told:?}");
    assert_eq!(credentials(&place, "acme"), 2);

    let events = kubectl("get events --field-selector involvedObject.kind=Consumer --output name");
    assert!(!events.trim().is_empty(), "what happened to consumers is told");
    kubectl("delete cons acme other");
    assert!(place.api().get(Resource::CONSUMERS, &place.namespace, "acme").unwrap().is_none());
    assert_eq!(place.get("/").unwrap().status, 200);
}

fn apply(place: &Place<'_>, name: &str, secrets: &[&str]) {
    let credentials: String =
        secrets.iter().map(|name| format!("  - {{type: APIKey, secretRef: {{name: {name}}}}}\n")).collect();
    let script = format!(
        "kubectl apply --namespace {} --filename - <<'EOF'\n\
         apiVersion: sluice.dev/v1alpha1\nkind: Consumer\nmetadata: {{name: {name}, labels: {{tier: gold}}}}\n\
         spec:\n  credentials:\n{credentials}EOF\n",
        place.namespace
    );
    place.shell().run(&script).unwrap();
}

fn credentials(place: &Place<'_>, name: &str) -> u64 {
    let object: Value = place.object(Resource::CONSUMERS, name).unwrap();
    object["status"]["credentials"].as_u64().unwrap_or_default()
}

#[track_caller]
fn until(place: &Place<'_>, name: &str, count: u64) {
    place.until_condition(Resource::CONSUMERS, name, ("Programmed", "True"), bound(seconds(5))).unwrap();
    place
        .api()
        .eventually("as many credentials", bound(seconds(5)), |_| Ok((credentials(place, name) == count).then_some(())))
        .unwrap();
}
