mod room;

use std::sync::Arc;

use planner::{
    Cluster, Kind, ObjectRef, Unreadable,
    references::{SecretPart, SecretRef},
};
use serde_json::{Value, json};

use super::{
    resource,
    watch_error::{Cause, Failure},
    *,
};
use crate::source::{InForce, Observed};

fn here() -> Cluster {
    Cluster { operator_namespace: "sys".into(), ..Cluster::default() }
}

fn route(name: &str, uid: &str, generation: i64, path: &str) -> Change {
    let value = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ApiRoute",
        "metadata": {"name": name, "namespace": "shop", "uid": uid, "generation": generation, "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"rules": [{"matches": [{"path": {"value": path}}], "backendRefs": [{"name": "a", "port": 80}]}]},
    });
    set(Kind::ApiRoute, value)
}

fn service(name: &str, spec: &Value) -> Change {
    let metadata = json!({"name": name, "namespace": "shop", "uid": name, "creationTimestamp": "2026-01-02T03:04:05Z"});
    set(Kind::Service, json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))
}

fn set(kind: Kind, value: Value) -> Change {
    Change::Set(prune::identity(kind, &value).unwrap(), prune::keep(kind, value).unwrap().into())
}

fn id(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef { kind, namespace: "shop".into(), name: name.into() }
}

/// That fleets in force refer to these.
fn told<const N: usize>(secrets: [ObjectRef; N]) -> InForce {
    let certificate = |secret| SecretRef { secret, by: Kind::GatewayFleet, part: SecretPart::Certificate };
    InForce { world: 1, secrets: secrets.into_iter().map(certificate).collect(), ..InForce::default() }
}

#[track_caller]
fn take(store: &mut Store, changes: impl IntoIterator<Item = (Change, bool)>) {
    for (change, expect) in changes {
        let told = format!("{change:?}");
        assert_eq!(store.take(change), expect, "{told}");
    }
}

fn names(observed: &Observed) -> Vec<String> {
    observed.objects.keys().map(ToString::to_string).collect()
}

#[test]
fn only_a_change_of_content_is_news() {
    let mut store = Store::new(here());
    take(&mut store, [(route("a", "u1", 1, "/a"), true), (route("a", "u1", 1, "/a"), false)]);
    let first = store.observed();
    let object = &first.objects[&id(Kind::ApiRoute, "a")];
    assert_eq!((object.generation, object.creation.as_ref().unwrap().uid.as_ref()), (1, "u1"));
    assert_eq!(object.creation.as_ref().unwrap().created.to_string(), "2026-01-02T03:04:05Z");
    assert_eq!(object.current.as_ref().unwrap().metadata().uid.as_deref(), Some("u1"));

    take(&mut store, [(route("a", "u1", 2, "/b"), true), (service("s", &json!({"ports": [{"port": 80}]})), true)]);
    let second = store.observed();
    assert_eq!(second.objects[&id(Kind::ApiRoute, "a")].generation, 2);
    assert_eq!(second.objects[&id(Kind::Service, "s")].generation, 1);
    // What was given away before stays as it was; what did not change is shared.
    assert_eq!(first.objects.len(), 1);
    take(&mut store, [(service("s", &json!({"ports": [{"port": 81}]})), true)]);
    let third = store.observed();
    assert_eq!(third.objects[&id(Kind::Service, "s")].generation, 2);
    let content =
        |observed: &Observed| Arc::clone(observed.objects[&id(Kind::ApiRoute, "a")].current.as_ref().unwrap());
    assert!(Arc::ptr_eq(&content(&second), &content(&third)));

    // Of the same name and content, and still another.
    take(&mut store, [(route("a", "u2", 2, "/b"), true)]);
    take(&mut store, [(Change::Gone(id(Kind::ApiRoute, "a")), true), (Change::Gone(id(Kind::ApiRoute, "a")), false)]);
    assert_eq!(names(&store.observed()), ["Service shop/s"]);
}

#[test]
fn what_is_not_admitted_is_there_as_broken() {
    let mut store = Store::new(here());
    let broken = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "RatePolicy", "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"targetRefs": 7},
    });
    take(
        &mut store,
        [
            (set(Kind::RatePolicy, broken.clone()), true),
            (service("odd", &json!({"ports": [{"port": 0}]})), true),
            (service("odder", &json!("what")), true),
            (route("a", "u", 1, "/a"), true),
        ],
    );
    let observed = store.observed();
    let object = &observed.objects[&id(Kind::RatePolicy, "p")];
    assert_eq!(object.raw.as_deref(), Some(&broken));
    assert!(object.current.as_ref().unwrap_err().iter().any(|v| v.path == "spec.targetRefs"));
    let object = &observed.objects[&id(Kind::Service, "odd")];
    assert!(object.raw.is_none());
    assert_eq!(object.current.as_ref().unwrap_err()[0].path, "spec.ports[0].port");
    assert!(observed.objects[&id(Kind::Service, "odder")].current.is_err());
    assert!(observed.objects[&id(Kind::ApiRoute, "a")].current.is_ok());
}

/// What a Secret with a certificate of this size holds.
fn secret(size: usize) -> Value {
    let data = json!({"tls.crt": "YWFh".repeat(size / 4), "tls.key": "YQ=="});
    let metadata = json!({"name": "s", "namespace": "shop"});
    let value =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data});
    prune::keep(Kind::Secret, value).unwrap()
}

fn seen(version: &str) -> Change {
    Change::Seen(id(Kind::Secret, "s"), version.into())
}

fn read(size: usize) -> Change {
    Change::Read(id(Kind::Secret, "s"), Some(secret(size).into()))
}

#[test]
fn a_large_certificate_is_not_kept() {
    let mut store = Store::new(here());
    store.in_force(told([id(Kind::Secret, "s")]));
    take(&mut store, [(seen("1"), false)]);
    assert_eq!(store.begin_reads().len(), 1);
    take(&mut store, [(read(200 << 10), true)]);
    assert!(store.observed().objects[&id(Kind::Secret, "s")].current.is_ok());
    take(&mut store, [(read(300 << 10), true), (read(300 << 10), false)]);
    let violation = store.observed().objects[&id(Kind::Secret, "s")].current.as_ref().unwrap_err()[0].to_string();
    assert!(violation.starts_with("data: tls.crt and tls.key have 300 KiB, at most 256 are read"), "{violation}");
}

#[test]
fn a_secret_is_held_while_a_fleet_refers_to_it() {
    let mut store = Store::new(here());
    let held = |store: &Store| names(&store.observed()) == ["Secret shop/s"];
    take(&mut store, [(seen("1"), false), (read(8), false)]);
    assert!(store.begin_reads().is_empty() && !held(&store));
    store.in_force(told([id(Kind::Secret, "s")]));
    assert_eq!(store.begin_reads(), [id(Kind::Secret, "s")]);
    // It can't be read, so it is broken; it can, and then not any more, so it stays.
    let unread = || Change::Unread(id(Kind::Secret, "s"), "no".into());
    take(&mut store, [(unread(), true)]);
    assert_eq!(
        store.observed().objects[&id(Kind::Secret, "s")].current.as_ref().unwrap_err()[0].to_string(),
        "data: no"
    );
    take(&mut store, [(read(8), true), (seen("2"), false)]);
    assert_eq!(store.begin_reads().len(), 1);
    take(&mut store, [(unread(), false)]);
    assert!(store.observed().objects[&id(Kind::Secret, "s")].current.is_ok());
    // Listed anew, and not among them.
    take(&mut store, [(Change::BeganIn("shop".into()), false), (Change::ListedIn("shop".into()), true)]);
    take(&mut store, [(seen("3"), false)]);
    assert_eq!(store.begin_reads().len(), 1);
    take(&mut store, [(read(8), true)]);
    assert!(held(&store));
    store.in_force(told([]));
    assert!(store.begin_reads().is_empty() && !held(&store));
}

/// Of a Secret that a consumer refers to its keys are held that are named, while its label says that it is a credential; and
/// that it is none is no reason to go on with what it was.
#[test]
fn a_credential_is_held_while_it_says_that_it_is_one() {
    let consumer = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "Consumer", "metadata": {"name": "c", "namespace": "shop"},
        "spec": {"credentials": [{"type": "APIKey", "secretRef": {"name": "s"}}]},
    });
    let read = |label: &str| {
        let metadata = json!({"name": "s", "namespace": "shop", "labels": {"sluice.dev/credential": label}});
        let data = json!({"api-key": "YQ==", "password": "Yg=="});
        let value = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data});
        Change::Read(id(Kind::Secret, "s"), Some(prune::keep(Kind::Secret, value).unwrap().into()))
    };
    let keys = |store: &Store| match store.observed().objects[&id(Kind::Secret, "s")].current.as_deref() {
        Ok(crds::Object::Secret(secret)) => secret.data.clone().unwrap_or_default().into_keys().collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let mut store = Store::new(here());
    take(&mut store, [(set(Kind::Consumer, consumer), true), (seen("1"), false)]);
    assert_eq!(store.begin_reads(), [id(Kind::Secret, "s")]);
    take(&mut store, [(read("api-key"), true), (seen("2"), false)]);
    assert_eq!(keys(&store), ["api-key"]);
    assert_eq!(store.begin_reads(), [id(Kind::Secret, "s")]);
    take(&mut store, [(read("other"), true)]);
    assert_eq!(keys(&store), [""; 0]);
}

#[test]
fn listing_anew_drops_nothing_before_its_end() {
    let mut store = Store::new(here());
    let spec = || json!({"ports": [{"port": 80}]});
    let told = [service("a", &spec()), service("b", &spec()), service("c", &spec()), route("r", "u", 1, "/r")];
    take(&mut store, told.map(|change| (change, true)));
    take(&mut store, [(Change::Listed(Kind::ApiRoute, ""), true)]); // told without a beginning: r was not in it
    assert_eq!(names(&store.observed()), ["Service shop/a", "Service shop/b", "Service shop/c"]);
    take(&mut store, [(route("r", "u", 1, "/r"), true)]);

    take(&mut store, [(Change::Began(Kind::Service), false), (service("b", &spec()), false)]);
    // It is broken off, and begins again.
    take(
        &mut store,
        [(Change::Began(Kind::Service), false), (service("c", &spec()), false), (service("d", &spec()), true)],
    );
    assert_eq!(store.observed().objects.len(), 5);
    take(&mut store, [(Change::Listed(Kind::Service, ""), true)]);
    assert_eq!(names(&store.observed()), ["ApiRoute shop/r", "Service shop/c", "Service shop/d"]);
    take(
        &mut store,
        [(Change::Began(Kind::Service), false), (service("c", &spec()), false), (service("d", &spec()), false)],
    );
    take(&mut store, [(Change::Listed(Kind::Service, ""), false), (Change::Absent(Kind::Service, ""), true)]);
    assert_eq!(names(&store.observed()), ["ApiRoute shop/r"]);
}

/// A collector, what it is told, and what comes of it.
struct Bench {
    changes: mpsc::Sender<Change>,
    events: mpsc::Receiver<Event>,
    progress: channel::Receiver<Progress>,
    in_force: channel::Sender<Option<InForce>>,
    asked: mpsc::UnboundedReceiver<ObjectRef>,
    orders: mpsc::UnboundedReceiver<Order>,
}

impl Bench {
    fn new() -> Self {
        Self::of(Store::new(here()))
    }

    fn of(store: Store) -> Self {
        let (changes, told) = mpsc::channel(1000);
        let (sender, events) = mpsc::channel(1000);
        let (progress, watched) = progress();
        let (in_force, known) = channel::channel(Some(InForce::default()));
        let (ask, asked) = mpsc::unbounded_channel();
        let (follow, orders) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            collect(
                store,
                told,
                &sender,
                progress,
                known,
                |id| ask.send(id).unwrap(),
                |order| {
                    follow.send(order).unwrap();
                },
            )
            .await;
        });
        Self { changes, events, progress: watched, in_force, asked, orders }
    }

    async fn tell(&self, change: Change) {
        self.changes.send(change).await.unwrap();
    }

    async fn list(&self, but: &[&str]) {
        for watched in resource::required()
            .chain(resource::optional().iter().map(|optional| optional.watched))
            .filter(|watched| !but.contains(&watched.name))
        {
            self.tell(Change::Listed(watched.kind.unwrap(), watched.name)).await;
        }
    }

    async fn next(&mut self) -> Arc<Observed> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.events.recv()).await;
        match next.expect("a world in time") {
            Some(Event::WorldChanged(latest)) => latest.take().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Nothing comes, for a while.
    async fn nothing(&mut self) {
        let next = tokio::time::timeout(Duration::from_millis(300), self.events.recv()).await;
        assert!(next.is_err(), "{next:?}");
    }
}

fn failing(watch: &'static str, cause: Cause) -> Change {
    Change::Failing(watch, Failure { cause, message: format!("{watch}: {cause:?}") })
}

#[tokio::test]
async fn the_first_world_is_whole() {
    let mut bench = Bench::new();
    bench.tell(route("a", "u", 1, "/a")).await;
    bench.list(&["services", resource::of(Kind::ReferenceGrant).name]).await;
    bench.nothing().await;
    assert_eq!(
        bench.progress.borrow().to_string(),
        "not synced: referencegrants.gateway.networking.k8s.io: being listed; services: being listed"
    );
    bench.tell(failing("services", Cause::Missing)).await;
    bench.tell(Change::Absent(Kind::ReferenceGrant, resource::of(Kind::ReferenceGrant).name)).await;
    bench.nothing().await;
    assert_eq!(bench.progress.borrow().to_string(), "not synced: services: Missing");
    bench.tell(Change::Listed(Kind::Service, "services")).await;
    assert_eq!(bench.next().await.objects.len(), 0, "the route was told, but is not in the list");
    bench.nothing().await;
    assert_eq!(bench.progress.borrow().to_string(), "synced");
    // Once synced, always synced.
    bench.tell(failing("services", Cause::Unreachable)).await;
    bench.nothing().await;
    assert!(bench.progress.borrow().synced);
    assert_eq!(bench.progress.borrow().to_string(), "synced, but now failing: services: Unreachable");
    // Reads are no watch, and say nothing of one.
    let unread = Failure { cause: Cause::Other, message: "Service shop/s can't be read: etcd".into() };
    bench.tell(Change::Failing(reader::READS, unread)).await;
    bench.tell(Change::Well(reader::READS)).await;
    bench.nothing().await;
    assert_eq!(bench.progress.borrow().to_string(), "synced, but now failing: services: Unreachable");
}

#[tokio::test]
async fn the_first_world_has_every_certificate_that_is_referred_to() {
    let mut bench = Bench::new();
    bench.in_force.send_replace(None);
    bench.list(&[]).await;
    bench.nothing().await;
    assert!(bench.asked.try_recv().is_err() && bench.orders.try_recv().is_err(), "nobody refers to any");
    bench.in_force.send_replace(Some(told([id(Kind::Secret, "s")])));
    assert_eq!(bench.orders.recv().await, Some(Order::Begin("shop".into())));
    bench.nothing().await;
    let refused = Failure { cause: Cause::Other, message: "etcd".into() };
    bench.tell(Change::FailingIn("shop".into(), refused)).await;
    bench.nothing().await;
    bench.tell(Change::BeganIn("shop".into())).await;
    bench.tell(seen("1")).await;
    bench.tell(Change::ListedIn("shop".into())).await;
    assert_eq!(bench.asked.recv().await, Some(id(Kind::Secret, "s")));
    bench.nothing().await;
    bench.tell(Change::Unread(id(Kind::Secret, "s"), "no".into())).await;
    bench.nothing().await;
    bench.tell(read(8)).await;
    assert_eq!(names(&*bench.next().await), ["Secret shop/s"]);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_read_holds_others_up_for_a_moment() {
    let mut bench = Bench::new();
    bench.list(&[]).await;
    bench.next().await;
    bench.in_force.send_replace(Some(told([id(Kind::Secret, "s")])));
    bench.orders.recv().await.unwrap();
    let start = Instant::now();
    bench.tell(route("b", "u", 1, "/b")).await;
    assert_eq!(names(&*bench.next().await), ["ApiRoute shop/b"]);
    assert!(
        (SECRET_READ_TIMEOUT..2 * SECRET_READ_TIMEOUT).contains(&start.elapsed()),
        "its namespace does not list: {:?}",
        start.elapsed()
    );
    bench.tell(Change::BeganIn("shop".into())).await;
    bench.tell(seen("1")).await;
    bench.tell(Change::ListedIn("shop".into())).await;
    bench.tell(Change::Gone(id(Kind::ApiRoute, "b"))).await;
    bench.asked.recv().await.unwrap();
    let start = Instant::now();
    bench.tell(route("a", "u", 1, "/a")).await;
    assert_eq!(names(&*bench.next().await), ["ApiRoute shop/a"]);
    assert!((SECRET_READ_TIMEOUT..2 * SECRET_READ_TIMEOUT).contains(&start.elapsed()), "{:?}", start.elapsed());
}

/// Without the right to read its Secrets, a namespace is a fact for the planner, and holds nothing up.
#[tokio::test]
async fn a_namespace_that_may_not_be_read_is_that_namespace_alone() {
    let mut bench = Bench::new();
    bench.in_force.send_replace(Some(told([
        id(Kind::Secret, "s"),
        ObjectRef { namespace: "vault".into(), ..id(Kind::Secret, "s") },
    ])));
    bench.list(&[]).await;
    let denied = || Failure { cause: Cause::Forbidden, message: "secrets is forbidden".into() };
    bench.tell(Change::FailingIn("vault".into(), denied())).await;
    bench.tell(Change::BeganIn("shop".into())).await;
    bench.tell(seen("1")).await;
    bench.tell(Change::ListedIn("shop".into())).await;
    // What nobody asked for is not taken.
    bench.asked.recv().await.unwrap();
    bench.tell(read(8)).await;
    let world = bench.next().await;
    assert_eq!(names(&world), ["Secret shop/s"]);
    assert_eq!(world.cluster.as_ref().unwrap().unreadable, [("vault".to_owned(), Unreadable::Denied)].into());
    assert_eq!(bench.progress.borrow().to_string(), "synced");
    // Permitted, it is news even where there is nothing; denied later on, what was read stays.
    bench.tell(Change::ListedIn("vault".into())).await;
    assert!(bench.next().await.cluster.as_ref().unwrap().unreadable.is_empty());
    bench.tell(Change::FailingIn("shop".into(), denied())).await;
    let world = bench.next().await;
    assert_eq!(names(&world), ["Secret shop/s"]);
    assert!(world.cluster.as_ref().unwrap().unreadable.contains_key("shop"));
    // Nobody refers to it any more.
    bench.in_force.send_replace(Some(told([])));
    assert!(bench.next().await.cluster.as_ref().unwrap().unreadable.is_empty());
}

#[test]
fn a_fleet_that_may_not_run_where_it_is_has_nothing_read() {
    let fleet = |namespace: &str| {
        let listener =
            json!({"name": "a", "protocol": "HTTPS", "port": 443, "tls": {"certificateRefs": [{"name": "s"}]}});
        let metadata = json!({"name": "f", "namespace": namespace});
        let spec = json!({"listeners": [listener]});
        set(
            Kind::GatewayFleet,
            json!({"apiVersion": crds::API_VERSION, "kind": "GatewayFleet", "metadata": metadata, "spec": spec}),
        )
    };
    let allowed = Some(Arc::new(["shop".to_owned()].into()));
    let mut store = Store::new(Cluster { fleet_namespaces: allowed, ..here() });
    take(&mut store, [(fleet("shop"), true), (fleet("other"), true)]);
    assert_eq!(store.follow().0, [Order::Begin("shop".into())]);
}

#[tokio::test]
async fn nothing_at_all_is_a_world() {
    let mut bench = Bench::new();
    bench.list(&[]).await;
    assert_eq!(bench.next().await.objects.len(), 0);
    bench.nothing().await;
}

#[tokio::test]
async fn of_many_changes_at_once_come_few_worlds() {
    let mut bench = Bench::new();
    bench.list(&[]).await;
    bench.next().await;
    sleep(2 * MIN_INTERVAL).await;
    let start = Instant::now();
    bench.tell(route("first", "u", 1, "/")).await;
    bench.next().await;
    let first = start.elapsed();
    for i in 0..500 {
        bench.tell(route(&format!("r{i}"), "u", 1, "/")).await;
    }
    let mut worlds = 0;
    while bench.next().await.objects.len() < 501 {
        worlds += 1;
    }
    let most = start.elapsed().as_millis() / MIN_INTERVAL.as_millis() + 2;
    assert!(worlds < most, "{worlds} worlds, at most {most}");
    assert!(first < Duration::from_millis(500), "{first:?}"); // a busy machine's; usually below 1 ms
    bench.tell(route("first", "u", 1, "/")).await;
    bench.nothing().await;
}

/// However long the loop stands, one world waits for it, and it is the last.
#[tokio::test]
async fn worlds_do_not_queue_up() {
    let mut bench = Bench::new();
    bench.list(&[]).await;
    bench.next().await;
    for i in 0..10 {
        bench.tell(route(&format!("r{i}"), "u", 1, "/")).await;
        sleep(2 * MIN_INTERVAL).await;
    }
    assert_eq!(bench.events.len(), 1);
    assert_eq!(bench.next().await.objects.len(), 10);
    bench.nothing().await;
    bench.tell(route("more", "u", 1, "/")).await;
    assert_eq!(bench.next().await.objects.len(), 11);
}

#[tokio::test]
async fn grants_that_may_not_be_read_are_not_waited_for() {
    let mut bench = Bench::new();
    let definition = "customresourcedefinitions.apiextensions.k8s.io/referencegrants.gateway.networking.k8s.io";
    bench.tell(failing(definition, Cause::Forbidden)).await;
    bench.list(&[resource::of(Kind::ReferenceGrant).name]).await;
    bench.next().await;
    assert_eq!(bench.progress.borrow().to_string(), "synced");
}

/// An installation may be older than the kind, or its ClusterRole be.
#[tokio::test]
async fn consumers_need_neither_be_defined_nor_permitted() {
    let consumers = resource::of(Kind::Consumer).name;
    for without in [Change::Absent(Kind::Consumer, consumers), failing(consumers, Cause::Forbidden)] {
        let mut bench = Bench::new();
        bench.list(&[consumers]).await;
        bench.nothing().await;
        bench.tell(without).await;
        bench.next().await;
        assert!(bench.progress.borrow().synced);
    }
}

#[tokio::test(start_paused = true)]
async fn grants_are_not_waited_for_forever() {
    let mut bench = Bench::new();
    bench.list(&[resource::of(Kind::ReferenceGrant).name]).await;
    let start = Instant::now();
    bench.next().await;
    assert!(start.elapsed() >= OPTIONAL_TIMEOUT - Duration::from_millis(1) && start.elapsed() < 2 * OPTIONAL_TIMEOUT);
}

#[tokio::test]
async fn it_ends_with_the_loop() {
    let (changes, told) = mpsc::channel(1);
    let (sender, events) = mpsc::channel(1);
    let collecting = tokio::spawn(async move {
        collect(Store::new(here()), told, &sender, progress().0, channel::channel(None).1, drop, drop).await;
    });
    drop(events);
    tokio::time::timeout(Duration::from_secs(20), collecting).await.unwrap().unwrap();
    assert!(changes.is_closed());
}
