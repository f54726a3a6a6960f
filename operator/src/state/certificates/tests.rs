//! What is kept, for whom when there is too much, and what is never said.

use serde_json::json;
use snapshot::Hash;

use super::*;
use crate::kube::testing::{Answer, api_server};

fn record(namespace: &str, name: &str, size: usize) -> (ObjectRef, ObjectRecord) {
    let id = ObjectRef { kind: Kind::Secret, namespace: namespace.into(), name: name.into() };
    let value = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace, "uid": "u-1"},
        "stringData": {"tls.crt": "x".repeat(size), "tls.key": "secret key"},
    });
    let accepted = Some(Arc::new(crds::admit(value).unwrap()));
    let (content, created) = (Hash::of(b"x"), Timestamp::UNIX_EPOCH);
    let (accepted_at, gone) = (Some(Timestamp::UNIX_EPOCH), Some(Timestamp::UNIX_EPOCH));
    (id, ObjectRecord { generation: 5, content, created, accepted, accepted_at, gone })
}

fn written(
    objects: &[(ObjectRef, ObjectRecord)],
    accepted: &[&ObjectRef],
    room: usize,
) -> BTreeMap<ObjectRef, ObjectRecord> {
    let records = objects.iter().map(|(id, known)| (id, !accepted.contains(&id), known.json(id).to_string()));
    let (credentials, certificates) = records.partition(|(id, ..)| id.name.starts_with("key"));
    let text = text([certificates, credentials], room);
    assert!(text.len() <= room);
    if text.is_empty() { BTreeMap::new() } else { parse(text.as_bytes()) }
}

#[test]
fn a_certificate_comes_back_whole() {
    let objects = [record("shop", "a", 100)];
    let back = written(&objects, &[], MAX_BYTES);
    let (id, known) = &objects[0];
    assert!(back[id].same(known) && back[id].accepted_at == known.accepted_at);
    // Garbage of whatever kind is no reason to stop.
    assert!(parse(b"[1, {}, \"x\"]").is_empty() && parse(b"{").is_empty() && parse(&[0xff]).is_empty());
}

#[test]
fn who_has_many_pushes_nobody_out() {
    let mut objects: Vec<_> = (0..1000).map(|i| record("greedy", &format!("c{i}"), 2000)).collect();
    objects.extend((0..20).map(|i| record("modest", &format!("c{i}"), 2000)));
    objects.push(record("unlucky", "whole", 2000));
    objects.push(record("unlucky", "broken", MAX_BYTES / 4));
    let whole: Vec<&ObjectRef> = objects.iter().map(|(id, _)| id).filter(|id| id.name != "broken").collect();
    let back = written(&objects, &whole, MAX_BYTES);
    let count = |namespace: &str| back.keys().filter(|id| id.namespace == namespace).count();
    assert_eq!((count("modest"), count("unlucky")), (20, 2));
    assert!(count("greedy") > 100 && count("greedy") < 1000, "{}", count("greedy"));
    // Of one namespace, what is broken comes first.
    let (broken, room) = (record("modest", "z", 2000), 4000);
    objects.retain(|(id, _)| id.namespace == "modest");
    objects.push(broken);
    let whole: Vec<&ObjectRef> = objects.iter().map(|(id, _)| id).filter(|id| id.name != "z").collect();
    let back = written(&objects, &whole, room);
    assert_eq!(back.keys().map(|id| id.name.as_str()).collect::<Vec<_>>(), ["z"]);
}

/// Credentials are many, and small: they have the room that certificates leave.
#[test]
fn credentials_push_no_certificate_out() {
    let mut objects: Vec<_> = (0..100).map(|i| record("tenant", &format!("key{i}"), 100)).collect();
    objects.extend((0..3).map(|i| record("shop", &format!("c{i}"), 2000)));
    let back = written(&objects, &[], 10_000);
    let count = |namespace: &str| back.keys().filter(|id| id.namespace == namespace).count();
    assert_eq!(count("shop"), 3);
    assert!((1..20).contains(&count("tenant")), "{}", count("tenant"));
}

/// On a Secret that nobody can reach.
fn certificates() -> Certificates {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    Certificates::start(Client::try_from(config).unwrap(), "ns", "memory")
}

#[tokio::test]
async fn only_certificates_are_kept_and_nothing_is_said_twice() {
    let mut kept = certificates();
    kept.keep(&Arc::default(), &BTreeSet::new(), &BTreeSet::new());
    assert_eq!(*kept.wanted.borrow(), None, "needless");
    let ((id, known), (_, without)) = (record("shop", "a", 10), record("shop", "a", 10));
    let service = ObjectRef { kind: Kind::Service, ..id.clone() };
    let never = (ObjectRef { name: "never".into(), ..id.clone() }, ObjectRecord { accepted: None, ..without });
    let objects = Arc::new(BTreeMap::from([(id.clone(), known.clone()), (service, known.clone()), never]));
    let mut told = kept.wanted.subscribe();
    kept.keep(&objects, &BTreeSet::new(), &BTreeSet::new());
    assert!(!told.has_changed().unwrap(), "nobody serves by it");
    let in_force: BTreeSet<ObjectRef> = objects.keys().cloned().collect();
    kept.keep(&objects, &BTreeSet::new(), &in_force);
    let text = told.borrow_and_update().clone().unwrap();
    assert!(parse(text.as_bytes()).into_keys().eq([id.clone()]));
    kept.keep(&Arc::new((*objects).clone()), &BTreeSet::new(), &in_force);
    assert!(!told.has_changed().unwrap());
    assert!(!format!("{kept:?}").contains("secret key"));
    // It is there again.
    let again = BTreeMap::from([(id, ObjectRecord { gone: None, ..known })]);
    kept.keep(&Arc::new(again), &BTreeSet::new(), &in_force);
    assert!(told.has_changed().unwrap() && !told.borrow_and_update().as_ref().unwrap().contains("gone"));
    kept.keep(&Arc::default(), &BTreeSet::new(), &BTreeSet::new());
    assert_eq!(told.borrow_and_update().as_deref(), Some(""));
    kept.task.abort();
}

#[tokio::test]
async fn what_the_leader_before_left_goes_once_nothing_is_in_force() {
    let mut kept = certificates();
    kept.secret.set_holds();
    kept.keep(&Arc::default(), &BTreeSet::new(), &BTreeSet::new());
    assert_eq!(kept.wanted.borrow().as_deref(), Some(""));
    kept.task.abort();
}

/// What an API server was asked.
async fn asked(text: &str, code: u16) -> (Value, Result<(), String>) {
    let answer = json!({"kind": "Status", "code": code, "reason": "Why", "message": "secret key"});
    let (client, mut requests) = api_server(move |_| Answer::json(code, answer.clone()));
    let secret = KeptObject::<Secret>::new(client, "ns", "memory", "certificates");
    let done = secret.write(&[(KEY, text.to_owned())].into()).await;
    let asked = requests.recv().await.unwrap();
    // What an API server does with an apply is to make what is not there.
    assert_eq!(asked.header("content-type"), "application/merge-patch+json");
    (asked.body, done.map_err(|error| error.to_string()))
}

#[tokio::test]
async fn a_secret_that_is_gone_is_not_made_anew_and_nothing_of_it_is_quoted() {
    let (body, done) = asked("[]", 404).await;
    assert_eq!(body, json!({"stringData": {KEY: "[]"}}));
    assert!(done.unwrap_err().contains("comes with the chart"));
    let (body, done) = asked("", 422).await;
    assert_eq!((body, done), (json!({"data": {KEY: null}}), Err("422 Why".to_owned())));
}
