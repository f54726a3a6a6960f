//! A consumer, from its manifest to the proxies: the first kind that came by the table of kinds.

use std::{fs, path::Path, time::Duration};

use e2e::{
    echo::Echo,
    harness::{
        Condition, Gateway, admin_get, eventually, free_port,
        manifests::{Fleet, route},
        metric,
    },
};
use serde_json::Value;

use crate::{bound, serves};

const GOAL: Duration = Duration::from_secs(1);
/// Keys that must be seen nowhere but where they are kept.
const KEYS: [&str; 3] = ["first-key-0123456789", "second-key-0123456789", "third-key-0123456789"];

#[test]
fn a_consumer_is_made_changed_and_deleted_by_file() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let gateway = Gateway::start(&[
        ("fleet.yaml", Fleet::single(port).yaml()),
        ("all.yaml", route("all", "/", echo.addr)),
        ("secret.yaml", secret("acme", KEYS[0])),
    ])
    .unwrap();
    serves(port, "/");
    assert_eq!(applied(&gateway), (0, 0));

    let made = std::time::Instant::now();
    gateway.write("consumer.yaml", &consumer("acme", &["acme"])).unwrap();
    until(&gateway, "a consumer", (1, 1));
    println!("a consumer is known {:.1?} after its manifest (goal {GOAL:?})", made.elapsed());
    assert!(made.elapsed() <= bound(GOAL));
    let programmed = told(&gateway, "acme", "Programmed", "True");
    assert_eq!(
        (programmed.reason.as_str(), gateway.status("consumers", "shop", "acme")["credentials"].clone()),
        ("Programmed", 1.into())
    );
    let admin = gateway.ready_proxies()[0].admin;
    assert_eq!(metric(admin, "sluice_consumers", &[]).unwrap(), 1.0);

    // A key is rotated: for a while there are two, and then the Secret has another.
    gateway.write("second.yaml", &secret("acme-next", KEYS[1])).unwrap();
    gateway.write("consumer.yaml", &consumer("acme", &["acme", "acme-next"])).unwrap();
    until(&gateway, "two keys", (1, 2));
    let proxy = &gateway.ready_proxies()[0];
    let before = gateway.revision(proxy).unwrap();
    gateway.write("secret.yaml", &secret("acme", KEYS[2])).unwrap();
    let changed = || gateway.revision(proxy).ok().filter(|revision| *revision != before);
    eventually("another key", Duration::from_secs(10), changed).unwrap();
    assert_eq!(applied(&gateway), (1, 2));

    // A key that another one has, and one that is not there: told with field and fix, and the rest goes on.
    gateway.write("other.yaml", &consumer("other", &["acme-next"])).unwrap();
    let held = told(&gateway, "other", "Programmed", "False");
    assert_eq!(held.reason, "Conflicted", "{held:?}");
    assert!(
        held.message.starts_with("spec.credentials[0].secretRef: it is the key of Consumer shop/acme too"),
        "{held:?}"
    );
    gateway.remove("other.yaml").unwrap();
    gateway.write("consumer.yaml", &consumer("acme", &["missing", "acme-next"])).unwrap();
    let missing = told(&gateway, "acme", "ResolvedRefs", "False");
    assert_eq!(missing.reason, "InvalidCredentialRef", "{missing:?}");
    assert!(
        missing.message.contains("spec.credentials[0].secretRef.name: no Secret shop/missing serves as API key"),
        "{missing:?}"
    );
    assert_eq!(told(&gateway, "acme", "Accepted", "True").reason, "Accepted");
    until(&gateway, "the other key", (1, 1));

    // A Secret that does not say any more that it is a credential is none from then on.
    gateway.write("consumer.yaml", &consumer("acme", &["acme", "acme-next"])).unwrap();
    until(&gateway, "both keys", (1, 2));
    gateway.write("secret.yaml", &secret("acme", KEYS[2]).replace("credential: api-key", "credential: none")).unwrap();
    until(&gateway, "the labelled one", (1, 1));
    gateway.write("secret.yaml", &secret("acme", KEYS[2])).unwrap();
    until(&gateway, "both again", (1, 2));

    // One that is not valid changes nothing.
    gateway.write("consumer.yaml", &consumer("acme", &["acme"]).replace("APIKey", "ApiKey")).unwrap();
    assert_eq!(told(&gateway, "acme", "Accepted", "False").reason, "Invalid");
    assert_eq!(applied(&gateway), (1, 2));

    seen_nowhere(&gateway);
    gateway.remove("consumer.yaml").unwrap();
    until(&gateway, "no consumer", (0, 0));
    let gone = || (gateway.status("consumers", "shop", "acme") == Value::Null).then_some(());
    eventually("no status", Duration::from_secs(10), gone).unwrap();
}

fn consumer(name: &str, secrets: &[&str]) -> String {
    let credentials: String =
        secrets.iter().map(|name| format!("  - {{type: APIKey, secretRef: {{name: {name}}}}}\n")).collect();
    format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: Consumer\nmetadata: {{name: {name}, namespace: shop, labels: {{tier: gold}}}}\n\
         spec:\n  credentials:\n{credentials}"
    )
}

fn secret(name: &str, key: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\n\
         metadata: {{name: {name}, namespace: shop, labels: {{sluice.dev/credential: api-key}}}}\n\
         stringData: {{api-key: {key}}}\n"
    )
}

/// How many consumers the proxy knows, and by how many credentials.
fn applied(gateway: &Gateway) -> (u64, u64) {
    let admin = gateway.ready_proxies()[0].admin;
    let config: Value = serde_json::from_str(&admin_get(admin, "/config").unwrap()).unwrap();
    (config["consumers"].as_u64().unwrap(), config["credentials"].as_u64().unwrap())
}

#[track_caller]
fn until(gateway: &Gateway, what: &str, expect: (u64, u64)) {
    eventually(what, Duration::from_secs(10), || (applied(gateway) == expect).then_some(())).unwrap();
}

#[track_caller]
fn told(gateway: &Gateway, name: &str, condition: &str, status: &str) -> Condition {
    let found = || gateway.condition("consumers", "shop", name, condition).filter(|found| found.status == status);
    eventually(&format!("{condition} of {name} is {status}"), Duration::from_secs(15), found).unwrap()
}

/// No key stands in a log, a status, a report or a metric, nor in what proxies keep.
fn seen_nowhere(gateway: &Gateway) {
    let admin = gateway.ready_proxies()[0].admin;
    let operator = gateway.operator_admin().unwrap();
    let mut texts = vec![gateway.log_tail().into_bytes()];
    for (address, path) in
        [(admin, "/config"), (admin, "/metrics"), (operator, "/debug/world"), (operator, "/debug/snapshot")]
    {
        texts.push(admin_get(address, path).unwrap().into_bytes());
    }
    for folder in ["status", "proxies", "objects"] {
        files(&gateway.state_dir().join(folder), &mut texts);
    }
    assert!(texts.len() > 8, "what is looked at is gone");
    for key in KEYS {
        assert!(!texts.iter().any(|text| text.windows(key.len()).any(|part| part == key.as_bytes())), "{key}");
    }
}

fn files(folder: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.extend(fs::read(entry.path())),
            _ => {}
        }
    }
}
