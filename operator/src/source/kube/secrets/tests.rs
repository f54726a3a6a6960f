//! Which Secrets are read, and for how long they are held.

use serde_json::{Value, json};

use super::*;
use crate::state::objects::ObjectRecord;

fn secret(name: &str) -> ObjectRef {
    ObjectRef { kind: Kind::Secret, namespace: "shop".into(), name: name.into() }
}

fn fleet(name: &str) -> ObjectRef {
    ObjectRef { kind: Kind::GatewayFleet, namespace: "shop".into(), name: name.into() }
}

/// That fleets in force refer to these.
fn told(world: u64, names: &[&str]) -> InForce {
    let reference =
        |name: &&str| SecretRef { secret: secret(name), by: Kind::GatewayFleet, part: SecretPart::Certificate };
    InForce { world, secrets: names.iter().map(reference).collect(), ..InForce::default() }
}

fn consumer(refers: &Value) -> Object {
    let metadata = json!({"name": "c", "namespace": "shop"});
    let credentials: Vec<Value> =
        refers.as_array().unwrap().iter().map(|of| json!({"type": "APIKey", "secretRef": of})).collect();
    let spec = json!({"credentials": credentials});
    crds::admit(json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "Consumer", "metadata": metadata, "spec": spec}))
        .unwrap()
}

fn the_consumer() -> ObjectRef {
    ObjectRef { kind: Kind::Consumer, namespace: "shop".into(), name: "c".into() }
}

fn names(ids: &[ObjectRef]) -> Vec<&str> {
    ids.iter().map(|id| id.name.as_str()).collect()
}

/// What is to be read, and what is to be forgotten.
#[track_caller]
fn due(secrets: &mut Secrets, read: &[&str], forget: &[&str]) {
    let (to_read, to_forget) = secrets.due();
    assert_eq!((names(&to_read), names(&to_forget)), (read.to_vec(), forget.to_vec()));
}

#[test]
fn what_a_fleet_refers_to_is_read_once_for_each_version() {
    let mut secrets = Secrets::default();
    secrets.see(secret("a"), "1".into());
    secrets.see(secret("b"), "1".into());
    due(&mut secrets, &[], &[]);
    secrets.in_force(told(1, &["a", "missing"]));
    due(&mut secrets, &["a"], &[]);
    due(&mut secrets, &[], &[]);
    assert!(secrets.waits(false));
    // It changes while it is read: what comes may be older.
    secrets.see(secret("a"), "2".into());
    due(&mut secrets, &[], &[]);
    assert!(!secrets.read(&secret("a"), false).is_empty() && !secrets.waits(true));
    due(&mut secrets, &["a"], &[]);
    assert!(!secrets.waits(true), "there is one to go on with");
    assert!(!secrets.read(&secret("a"), false).is_empty());
    due(&mut secrets, &[], &[]);
    // The one that is missing comes, another is let go.
    secrets.see(secret("missing"), "9".into());
    secrets.in_force(told(1, &["missing"]));
    due(&mut secrets, &["missing"], &["a"]);
    assert!(secrets.read(&secret("a"), false).is_empty(), "nobody wants it any more");
}

/// What a consumer refers to is waited for by nobody else, unless a fleet does, too.
/// Only a new list tells whether it went meanwhile, and what is to be compared with that is still known.
#[test]
fn what_was_read_is_known_while_nobody_watches() {
    let mut secrets = Secrets::default();
    secrets.see(secret("a"), "1".into());
    secrets.see(secret("b"), "1".into());
    secrets.in_force(told(1, &["a"]));
    due(&mut secrets, &["a"], &[]);
    assert!(!secrets.read(&secret("a"), false).is_empty());
    secrets.forget("shop");
    assert_eq!(secrets.of("shop", |_| true), [secret("a")].into());
}

#[test]
fn what_tenants_refer_to_holds_nobody_up() {
    let mut secrets = Secrets::default();
    secrets.see(secret("a"), "1".into());
    secrets.refer(&the_consumer(), Some(&consumer(&json!([{"name": "a"}]))), 2);
    due(&mut secrets, &["a"], &[]);
    assert!(secrets.waits(true) && !secrets.waits(false));
    // Neither does what of it is in force, while it is broken.
    let known = references::secrets(&the_consumer(), &consumer(&json!([{"name": "a"}])));
    secrets.in_force(InForce { world: 1, secrets: known.into_iter().collect(), ..InForce::default() });
    secrets.refer(&the_consumer(), None, 2);
    secrets.in_force(InForce { world: 2, secrets: secrets.in_force.clone(), ..InForce::default() });
    assert!(secrets.waits(true) && !secrets.waits(false));
    let namespaces = secrets.namespaces().unwrap();
    assert_eq!((namespaces.consumers.len(), namespaces.own.len() + namespaces.others.len()), (1, 0));
    assert!(secrets.namespaces().is_none(), "nothing changed");
    secrets.refer(&fleet("f"), Some(&manifest(&json!([{"name": "a"}]))), 3);
    due(&mut secrets, &[], &[]);
    assert!(secrets.waits(false));
    // What was asked for had no certificate in it.
    assert_eq!(secrets.read(&secret("a"), false), [SecretPart::Credential("api-key".into())]);
    due(&mut secrets, &["a"], &[]);
    assert!(secrets.waits(false));
    let both = [SecretPart::Certificate, SecretPart::Credential("api-key".into())];
    assert_eq!(secrets.read(&secret("a"), false), both);
    assert!(!secrets.waits(true));
}

/// Of a Secret no other key is held than those that are referred to, and each of those.
#[test]
fn another_key_is_read_when_it_is_referred_to() {
    let mut secrets = Secrets::default();
    secrets.see(secret("a"), "1".into());
    let part = |name: &str| SecretPart::Credential(name.into());
    secrets.refer(&the_consumer(), Some(&consumer(&json!([{"name": "a"}]))), 1);
    due(&mut secrets, &["a"], &[]);
    assert_eq!(secrets.read(&secret("a"), false), [part("api-key")]);
    due(&mut secrets, &[], &[]);
    secrets.refer(&the_consumer(), Some(&consumer(&json!([{"name": "a"}, {"name": "a", "key": "next"}]))), 1);
    due(&mut secrets, &["a"], &[]);
    assert_eq!(secrets.read(&secret("a"), false), [part("api-key"), part("next")]);
    secrets.refer(&the_consumer(), Some(&consumer(&json!([{"name": "a", "key": "next"}]))), 1);
    due(&mut secrets, &["a"], &[]);
    assert_eq!(secrets.read(&secret("a"), false), [part("next")]);
    due(&mut secrets, &[], &[]);
}

/// After each batch of changes it is asked what there is to be read, and where: that costs nothing while nothing changed,
/// and what a change changes, with 10,000 references as with one. (The goal is 1 ms.)
#[test]
fn what_is_asked_after_each_batch_costs_what_changed() {
    let mut secrets = Secrets::default();
    for i in 0..10_000 {
        let id = ObjectRef { name: format!("c{i}"), ..the_consumer() };
        secrets.see(secret(&format!("s{i}")), "1".into());
        secrets.refer(&id, Some(&consumer(&json!([{"name": format!("s{i}")}]))), 2);
    }
    let (read, _) = secrets.due();
    assert_eq!(read.len(), 10_000);
    read.iter().for_each(|id| _ = secrets.read(id, false));
    secrets.due();
    secrets.namespaces();
    let start = std::time::Instant::now();
    for i in 0..100 {
        secrets.see(secret(&format!("s{i}")), "2".into());
        assert!(secrets.namespaces().is_none() && !secrets.waits(false));
        assert_eq!(secrets.due().0.len(), 1);
    }
    let each = start.elapsed() / 100;
    println!("a batch with 10,000 references: {each:?} (goal 1 ms)");
    assert!(each < std::time::Duration::from_millis(10), "{each:?}");
}

#[test]
fn what_can_not_be_read_holds_up_the_first_world_alone() {
    let mut secrets = Secrets::default();
    secrets.see(secret("a"), "1".into());
    secrets.in_force(told(1, &["a"]));
    due(&mut secrets, &["a"], &[]);
    assert!(!secrets.read(&secret("a"), true).is_empty());
    assert!(secrets.waits(true) && !secrets.waits(false));
    due(&mut secrets, &[], &[]);
    secrets.see(secret("a"), "2".into());
    due(&mut secrets, &[], &[]); // it is tried again as it is
    secrets.lose(&secret("a"));
    assert!(!secrets.waits(true) && secrets.read(&secret("a"), false).is_empty());
    due(&mut secrets, &[], &[]);
}

/// Fleet `shop/f`, which refers to these.
fn manifest(refers: &Value) -> Object {
    let listener = json!({"name": "a", "protocol": "HTTPS", "port": 443, "tls": {"certificateRefs": refers}});
    let metadata = json!({"name": "f", "namespace": "shop"});
    let spec = json!({"listeners": [listener]});
    let object =
        json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "GatewayFleet", "metadata": metadata, "spec": spec});
    crds::admit(object).unwrap()
}

#[test]
fn what_a_fleet_dropped_is_held_until_that_is_planned() {
    let mut secrets = Secrets::default();
    secrets.see(secret("a"), "1".into());
    // What it refers to before the first world is told is nothing to anybody.
    secrets.refer(&fleet("f"), Some(&manifest(&json!([{"name": "a"}]))), 1);
    due(&mut secrets, &["a"], &[]);
    secrets.refer(&fleet("f"), None, 1);
    due(&mut secrets, &[], &["a"]);
    secrets.refer(&fleet("f"), Some(&manifest(&json!([{"name": "a"}]))), 1);
    due(&mut secrets, &["a"], &[]);
    // The next world drops it, while the one before is planned, or waits for that.
    secrets.refer(&fleet("f"), None, 2);
    due(&mut secrets, &[], &[]);
    secrets.in_force(InForce::default());
    due(&mut secrets, &[], &[]);
    secrets.in_force(told(1, &["a"]));
    due(&mut secrets, &[], &[]);
    // By now it is known what the fleet falls back to.
    secrets.in_force(told(2, &["a"]));
    due(&mut secrets, &[], &[]);
    secrets.in_force(told(2, &[]));
    due(&mut secrets, &[], &["a"]);
}

#[test]
fn a_fleet_refers_by_what_it_is_and_by_what_is_in_force_of_it() {
    let current = manifest(&json!([{"name": "a"}, {"name": "b", "namespace": "other"}]));
    let mut secrets = Secrets::default();
    secrets.refer(&fleet("f"), Some(&current), 1);
    let accepted = Some(Arc::new(manifest(&json!([{"name": "c"}]))));
    let (content, created) = (snapshot::Hash::of(b""), jiff::Timestamp::UNIX_EPOCH);
    let known = ObjectRecord { generation: 1, content, created, accepted, accepted_at: None, gone: None };
    let known = crate::source::in_force::secrets(&[(fleet("f"), known)].into());
    secrets.in_force(InForce { world: 1, secrets: known, ..InForce::default() });
    let wanted: Vec<_> = secrets.referred.secrets().into_iter().map(ToString::to_string).collect();
    assert_eq!(wanted, ["Secret other/b", "Secret shop/a", "Secret shop/c"]);
    // What it is now can't be read.
    secrets.refer(&fleet("f"), None, 1);
    let wanted: Vec<_> = secrets.referred.secrets().into_iter().map(ToString::to_string).collect();
    assert_eq!(wanted, ["Secret shop/c"]);
}
