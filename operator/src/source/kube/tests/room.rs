//! What there is no room for: only names are held, until there is.

use super::*;

/// A route of a namespace and an age in seconds, of about 100 KB.
fn large(namespace: &str, name: &str, age: u64) -> Change {
    let matches = json!([{"headers": [{"name": "x", "value": "v".repeat(4000)}]}]);
    let rules = vec![json!({"matches": matches, "backendRefs": [{"name": "a", "port": 80}]}); 8];
    let metadata = json!({"name": name, "namespace": namespace, "uid": name, "generation": 1,
        "creationTimestamp": format!("2026-01-02T03:04:{age:02}Z")});
    let (api, kind) = ("sluice.dev/v1alpha1", "ApiRoute");
    set(Kind::ApiRoute, json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": {"rules": rules}}))
}

fn of(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind: Kind::ApiRoute, namespace: namespace.into(), name: name.into() }
}

/// What is held whole, and what by its name.
fn held(store: &Store) -> (Vec<String>, Vec<String>) {
    let observed = store.observed();
    let name = |id: &ObjectRef| format!("{}/{}", id.namespace, id.name);
    let whole = observed.objects.iter().filter(|(_, object)| object.current.is_ok()).map(|(id, _)| name(id));
    (whole.collect(), observed.left_out.iter().map(name).collect())
}

#[track_caller]
fn check(store: &Store, whole: &[&str], names: &[&str]) {
    let (got_whole, got_names) = held(store);
    assert_eq!(
        (got_whole, got_names),
        (whole.iter().map(|s| (*s).into()).collect(), names.iter().map(|s| (*s).into()).collect())
    );
}

#[test]
fn who_has_most_is_held_by_its_names() {
    let mut store = Store::within(370 << 10, here());
    take(&mut store, [(large("crowd", "a", 1), true), (large("crowd", "b", 2), true), (large("crowd", "c", 3), true)]);
    check(&store, &["crowd/a", "crowd/b", "crowd/c"], &[]);
    take(&mut store, [(large("shop", "x", 9), true)]);
    check(&store, &["crowd/a", "crowd/b", "shop/x"], &["crowd/c"]);
    let observed = store.observed();
    let why = &observed.objects[&of("crowd", "c")].current.as_ref().unwrap_err()[0].message;
    assert!(why.contains("which 2 namespaces share, and \"crowd\" has"), "{why}");
    // It stays so, however often it is told; and nothing is read for which there is no room.
    take(&mut store, [(large("crowd", "c", 3), false)]);
    assert_eq!(store.begin_reads(), []);

    // There is room again: it is read, and held.
    take(&mut store, [(Change::Gone(of("crowd", "a")), true)]);
    assert_eq!(store.begin_reads(), [of("crowd", "c")]);
    assert_eq!(store.begin_reads(), [], "it is being read");
    let Change::Set(id, value) = large("crowd", "c", 3) else { panic!() };
    take(&mut store, [(Change::Read(id, Some(value)), true)]);
    check(&store, &["crowd/b", "crowd/c", "shop/x"], &[]);
}

#[test]
fn what_was_read_is_not_newer_than_what_was_told_meanwhile() {
    let mut store = Store::within(150 << 10, here());
    take(&mut store, [(large("ns", "a", 1), true), (large("ns", "b", 2), true), (Change::Gone(of("ns", "a")), true)]);
    assert_eq!(store.begin_reads(), [of("ns", "b")]);
    let Change::Set(id, old) = large("ns", "b", 2) else { panic!() };
    take(
        &mut store,
        [(route("r", "u", 1, "/"), true), (large("ns", "b", 3), true), (Change::Read(id, Some(old)), false)],
    );
    let observed = store.observed();
    let creation = observed.objects[&of("ns", "b")].creation.as_ref().unwrap().created;
    assert_eq!(creation.to_string(), "2026-01-02T03:04:03Z");
    // One that is gone meanwhile is not made anew.
    take(&mut store, [(large("ns", "c", 4), true), (Change::Gone(of("ns", "b")), true)]);
    assert_eq!(store.begin_reads(), [of("ns", "c")]);
    let Change::Set(id, value) = large("ns", "c", 4) else { panic!() };
    take(&mut store, [(Change::Gone(of("ns", "c")), true), (Change::Read(id, Some(value)), false)]);
    check(&store, &["shop/r"], &[]);
}

/// One that is held by its name is deleted while its watch is cut off: only reading it tells.
#[test]
fn what_is_read_and_gone_is_not_read_again() {
    let mut store = Store::within(150 << 10, here());
    take(&mut store, [(large("ns", "a", 1), true), (large("ns", "b", 2), true), (Change::Gone(of("ns", "a")), true)]);
    assert_eq!(store.begin_reads(), [of("ns", "b")]);
    take(&mut store, [(Change::Read(of("ns", "b"), None), true)]);
    check(&store, &[], &[]);
    assert_eq!(store.begin_reads(), []);
}

#[test]
fn one_that_cannot_be_read_holds_up_no_other() {
    let mut store = Store::within(10 << 20, here());
    let others: Vec<String> = (0..100).map(|i| format!("r{i}")).collect();
    let owner = |i: usize| format!("shop-{}", i % 5);
    let of_crowd = |i: usize| large("crowd", &format!("r{i:02}"), 1);
    for (i, name) in others.iter().enumerate() {
        store.take(large(&owner(i), name, 1));
    }
    for i in 0..60 {
        store.take(of_crowd(i));
    }
    let left_out = |store: &Store| store.observed().left_out.iter().filter(|id| id.namespace == "crowd").count();
    assert!(left_out(&store) > 40, "{}", left_out(&store));
    // There is room for all of them.
    let gone = others.iter().enumerate().map(|(i, name)| (Change::Gone(of(&owner(i), name)), true));
    take(&mut store, gone.collect::<Vec<_>>());
    let mut asked = store.begin_reads();
    assert_eq!(asked.len(), 32);
    let stuck = asked.remove(0);
    while !asked.is_empty() {
        for id in asked {
            let Change::Set(id, value) = of_crowd(id.name[1..].parse().unwrap()) else { panic!() };
            take(&mut store, [(Change::Read(id, Some(value)), true)]);
        }
        asked = store.begin_reads();
        assert!(!asked.contains(&stuck));
    }
    assert_eq!(Vec::from_iter(&store.observed().left_out), [&stuck]);
}

#[test]
fn of_a_policy_it_is_still_known_what_it_guards() {
    let mut store = Store::within(170 << 10, here());
    let policy = |name: &str, size: usize| {
        let limit =
            json!({"name": "a", "tokenBucket": {"rate": 1}, "key": [{"type": "Query", "name": "q".repeat(size)}]});
        let target = json!({"group": "sluice.dev", "kind": "ApiRoute", "name": "r"});
        let metadata =
            json!({"name": name, "namespace": "shop", "creationTimestamp": "2026-01-02T03:04:05Z", "uid": name});
        set(
            Kind::RatePolicy,
            json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "RatePolicy", "metadata": metadata,
            "spec": {"targetRefs": [target], "limits": vec![limit; 1]}}),
        )
    };
    take(&mut store, [(route("r", "u", 1, "/"), true)]);
    for i in 0..12 {
        take(&mut store, [(policy(&format!("p{i:02}"), 200), true)]);
    }
    let observed = store.observed();
    assert!(observed.objects.get(&id(Kind::ApiRoute, "r")).is_none_or(|route| route.current.is_err()));
    let names: Vec<_> = observed.left_out.iter().filter(|id| id.kind == Kind::RatePolicy).collect();
    assert!(!names.is_empty());
    for id in names {
        let raw = observed.objects[id].raw.as_deref().unwrap();
        assert_eq!(raw, &json!({"spec": {"targetRefs": [{"kind": "ApiRoute", "name": "r"}]}}));
    }
}

/// What a plan of the world of this number says to be in force beside what is there now.
fn planned(world: u64, stale: &[&str]) -> InForce {
    let stale = stale.iter().map(|name| of("crowd", name)).collect();
    InForce { world, stale, ..InForce::default() }
}

#[test]
fn what_is_in_force_of_a_broken_object_is_held_too() {
    let mut store = Store::within(500 << 10, here());
    take(&mut store, [(large("crowd", "a", 1), true), (large("crowd", "b", 2), true), (large("crowd", "c", 3), true)]);
    store.next();
    take(&mut store, [(large("crowd", "a", 4), true)]);
    assert!(!store.in_force(planned(1, &[])), "what it was is in a world that is not planned yet");
    check(&store, &["crowd/a", "crowd/b", "crowd/c"], &[]);
    // Both contents of one are held, so there is no room for three others.
    store.next();
    assert!(!store.in_force(planned(2, &["a"])));
    take(&mut store, [(large("crowd", "d", 5), true)]);
    check(&store, &["crowd/a", "crowd/b", "crowd/c"], &["crowd/d"]);
    store.next();
    assert!(!store.in_force(planned(3, &[])));
    assert_eq!(store.begin_reads(), [of("crowd", "d")]);
}

#[test]
fn who_changes_more_than_is_planned_is_put_off() {
    let mut store = Store::within(700 << 10, here());
    take(&mut store, ["a", "b", "c"].map(|name| (large("crowd", name, 1), true)));
    take(&mut store, [(large("shop", "x", 1), true)]);
    store.next();
    take(&mut store, [(large("crowd", "a", 2), true), (large("crowd", "b", 2), false), (large("shop", "x", 2), true)]);
    assert_eq!(store.begin_reads(), []);
    store.next();
    assert!(!store.in_force(planned(1, &[])));
    assert_eq!(store.begin_reads(), []);
    assert!(!store.in_force(planned(2, &[])));
    assert_eq!(store.begin_reads(), [of("crowd", "b")]);
    let Change::Set(id, value) = large("crowd", "b", 2) else { panic!() };
    take(&mut store, [(Change::Read(id, Some(value)), true)]);
    assert_eq!(store.begin_reads(), []);
    check(&store, &["crowd/a", "crowd/b", "crowd/c", "shop/x"], &[]);
}

/// An operator that takes over waits for that.
#[tokio::test]
async fn that_objects_are_put_off_is_told_until_a_world_has_them() {
    let mut bench = Bench::of(Store::within(700 << 10, here()));
    let world = async |bench: &mut Bench| match tokio::time::timeout(Duration::from_secs(20), bench.events.recv()).await
    {
        Ok(Some(Event::WorldChanged(latest))) => (latest.take().unwrap(), latest),
        other => panic!("{other:?}"),
    };
    bench.list(&[]).await;
    for name in ["a", "b"] {
        bench.tell(large("crowd", name, 1)).await;
    }
    let (mut latest, source) = world(&mut bench).await;
    while latest.objects.len() < 2 {
        latest = world(&mut bench).await.0;
    }
    let complete = async |expect: bool| {
        for _ in 0..1000 {
            if source.is_complete() == expect {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("is_complete() is not {expect}");
    };
    complete(true).await;
    bench.tell(large("crowd", "a", 2)).await;
    let (latest, _) = world(&mut bench).await;
    bench.tell(large("crowd", "b", 2)).await;
    complete(false).await;
    // It is no news by itself: whoever changes much would have plans made of nothing.
    bench.nothing().await;
    bench.in_force.send_replace(Some(planned(latest.number, &[])));
    assert_eq!(bench.asked.recv().await, Some(of("crowd", "b")));
    assert!(!source.is_complete());
    let Change::Set(id, value) = large("crowd", "b", 2) else { panic!() };
    bench.tell(Change::Read(id, Some(value))).await;
    let (latest, _) = world(&mut bench).await;
    assert_eq!(
        latest.objects[&of("crowd", "b")].creation.as_ref().unwrap().created.to_string(),
        "2026-01-02T03:04:02Z"
    );
    complete(true).await;
}
