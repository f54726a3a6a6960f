//! The store of a cluster: a ConfigMap that the leader writes, and its successor reads.
//!
//! It holds only what is needed: an entry exists while an object is broken, a proxy refuses a resource, or the age of
//! routes does not say who has a hostname (`planner::holds`, which bounds that). Should the former two be more than a
//! ConfigMap takes, they are shared fairly between namespaces (`planner::share`). What a Secret held is never in it: that has
//! a Secret (`certificates`).

use std::{collections::BTreeMap, fmt, sync::Arc, time::Instant};

use crds::Object;
use futures::{FutureExt as _, future::BoxFuture};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use planner::{
    FleetRef, Holds, Kind, Ledger, ObjectRef, Plan,
    share::{self, Unit},
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    hostnames,
    kept_object::{Data, KeptObject},
    objects::{self, ObjectRecord},
    persisted::{ObjectRecords, PersistedState},
    rollbacks::{Rollback, Rollbacks},
};
use crate::log_throttle::LogThrottle;

/// Keys of the ConfigMap.
const OBJECTS: &str = "objects.json";
const ROLLBACKS: &str = "rollbacks.json";
const HOSTNAMES: &str = "hostnames.json";
/// Most that is written besides hostnames: the API server takes 1 MiB with everything around it.
pub(super) const MAX_BYTES: usize = 900 << 10;

/// Something of a namespace that is to stand in it, as text.
#[derive(Clone, Debug)]
struct Kept {
    namespace: String,
    json: String,
}

/// The wanted content, as the loop has it. What is to be written is made of it beside the loop.
#[derive(Clone, Default)]
struct Wanted {
    /// `None`: there is no plan yet.
    objects: Option<(ObjectRecords, Arc<Plan>)>,
    /// `None`: not told yet, so that what the leader before left stays.
    rollbacks: Option<Arc<[Kept]>>,
    /// The hostnames, as text; `None`: not told yet, so that what the leader before left stays.
    hostnames: Option<String>,
}

impl fmt::Debug for Wanted {
    /// Without what it keeps: private keys are among what is remembered.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").finish_non_exhaustive()
    }
}

/// Keeps the ConfigMap equal to what is remembered.
#[derive(Debug)]
pub struct ConfigMapStore {
    configmap: KeptObject<ConfigMap>,
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
}

impl ConfigMapStore {
    /// Starts on `namespace/name`; writes nothing before it is told to keep something.
    pub fn start(client: Client, namespace: &str, name: &str) -> Self {
        let (wanted, receiver) = watch::channel(Wanted::default());
        let configmap = KeptObject::new(client, namespace, name, "what is remembered");
        let mut writing = Writing::default();
        let task = configmap.keep(receiver, move |wanted| Some(writing.data(&wanted, Instant::now())));
        Self { configmap, wanted, task }
    }

    /// Reads what the leader before left. Tries until it is answered, unless it is not allowed to read: then nothing is
    /// known, which is said.
    pub fn load(&self) -> BoxFuture<'static, PersistedState> {
        let data = self.configmap.clone().load("broken objects lose what was accepted last");
        data.map(|data| parse(&data)).boxed()
    }

    /// Keeps the accepted content of what is broken now, by this plan.
    pub fn keep_objects(&self, records: &ObjectRecords, plan: &Arc<Plan>) {
        self.wanted.send_modify(|wanted| wanted.objects = Some((Arc::clone(records), Arc::clone(plan))));
    }

    /// Keeps what was rolled back.
    pub fn keep_rollbacks(&self, rollbacks: &[Rollback]) {
        let kept = rollbacks.iter().flat_map(Kept::rollbacks).collect();
        self.wanted.send_modify(|wanted| wanted.rollbacks = Some(kept));
    }

    /// Keeps who has a hostname where nothing else says it.
    pub fn keep_holds(&self, holds: &Holds) {
        let text = hostnames::text(holds);
        self.wanted.send_modify(|wanted| wanted.hostnames = Some(text));
    }

    /// Waits a moment for the last write.
    pub async fn finish(self) {
        drop(self.wanted);
        self.configmap.finish(self.task).await;
    }
}

impl Kept {
    /// The rolled-back content, by namespace, free of secrets.
    fn rollbacks(rollback: &Rollback) -> impl Iterator<Item = Self> {
        let parts = rollback.without_certificates().by_namespace().into_iter();
        parts.map(|(namespace, part)| Self { namespace, json: serde_json::to_string(&part).unwrap_or_default() })
    }
}

/// Makes texts of what there is to keep.
#[derive(Default)]
struct Writing {
    /// The length of each content as text.
    lengths: BTreeMap<ObjectRef, (Arc<Object>, usize)>,
    throttle: LogThrottle,
}

impl Writing {
    /// The data that the ConfigMap is to have.
    fn data(&mut self, wanted: &Wanted, now: Instant) -> Data {
        let none = Arc::default();
        let (records, plan) = wanted.objects.as_ref().map_or((&none, None), |(all, plan)| (all, Some(plan)));
        let is_broken = |id: &ObjectRef| !plan.is_some_and(|plan| plan.accepted.contains(id));
        let broken =
            records.iter().filter(|(id, known)| id.kind != Kind::Secret && known.accepted.is_some() && is_broken(id));
        let mut broken: Vec<_> = broken.collect();
        broken.sort_by_key(|(id, known)| (known.created, *id));
        let mut data = self.within(&broken, wanted.rollbacks.as_deref(), now);
        data.extend(wanted.hostnames.clone().map(|hostnames| (HOSTNAMES, hostnames)));
        data
    }

    /// The records of broken objects, the oldest first, and of refused resources, within the bound. Of each namespace
    /// the latter comes first. A text is made only of what is within it: all of it together may be half of the
    /// operator's memory.
    fn within(&mut self, broken: &[(&ObjectRef, &ObjectRecord)], refused: Option<&[Kept]>, now: Instant) -> Data {
        let lengths = self.lengths(broken);
        let rollbacks = refused.unwrap_or_default();
        // A comma and a line break, or the brackets.
        let costs: Vec<[u64; 1]> =
            rollbacks.iter().map(|kept| kept.json.len()).chain(lengths).map(|length| [length as u64 + 2]).collect();
        let owners = rollbacks.iter().map(|kept| kept.namespace.as_str());
        let owners = owners.chain(broken.iter().map(|(id, _)| id.namespace.as_str()));
        let units: Vec<Unit<'_>> = owners.enumerate().map(|(i, owner)| Unit { owner, parts: vec![i] }).collect();
        let allotment = share::allot([MAX_BYTES as u64], &costs, &units);
        let mut left_out = units.iter().zip(&allotment.taken).filter(|(_, taken)| taken.is_err());
        if let Some((first, _)) = left_out.next()
            && let Some(times) = self.throttle.due(now)
        {
            tracing::error!(
                count = left_out.count() + 1,
                namespace = first.owner,
                namespace_has = allotment.used.get(first.owner).map_or(0, |[bytes]| *bytes),
                most = MAX_BYTES,
                not_said_before = times,
                "too much is broken at once to be remembered in a ConfigMap: if every operator ends now, what is left out \
                 here loses the content accepted last; fix some objects of that namespace"
            );
        }
        let (of_refused, of_broken) = allotment.taken.split_at(rollbacks.len());
        let broken = broken.iter().zip(of_broken).filter(|(_, taken)| taken.is_ok());
        let broken = text(broken.map(|((id, known), _)| known.text(id)));
        let rollbacks = rollbacks.iter().zip(of_refused).filter(|(_, taken)| taken.is_ok());
        let rollbacks = text(rollbacks.map(|(kept, _)| kept.json.clone()));
        [(OBJECTS, broken)].into_iter().chain(refused.map(|_| (ROLLBACKS, rollbacks))).collect()
    }

    /// The length of the text of each. That of a content is found out once.
    fn lengths(&mut self, broken: &[(&ObjectRef, &ObjectRecord)]) -> Vec<usize> {
        let former = std::mem::take(&mut self.lengths);
        let length = |(id, known): &(&ObjectRef, &ObjectRecord)| {
            let Some(content) = &known.accepted else { return 0 };
            let same = former.get(*id).filter(|(before, _)| Arc::ptr_eq(before, content));
            let length = same.map_or_else(|| objects::length(content), |(_, length)| *length);
            self.lengths.insert((*id).clone(), (Arc::clone(content), length));
            known.text_length(id, length)
        };
        broken.iter().map(length).collect()
    }
}

/// An array of these lines; of none, nothing.
fn text(lines: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { String::new() } else { format!("[{}]", lines.join(",\n")) }
}

fn parse(data: &BTreeMap<String, Vec<u8>>) -> PersistedState {
    let text = |key| data.get(key).and_then(|text| str::from_utf8(text).ok()).filter(|text| !text.is_empty());
    let records: Vec<Value> = text(OBJECTS)
        .and_then(|text| {
            let parsed = serde_json::from_str(text);
            parsed
                .map_err(|error| tracing::warn!(%error, "{OBJECTS} of the operator's ConfigMap is not understood"))
                .ok()
        })
        .unwrap_or_default();
    let objects = records.into_iter().filter_map(objects::from_record).collect();
    let ledgers: BTreeMap<FleetRef, Ledger> = text(ROLLBACKS).map(Rollbacks::parse).unwrap_or_default();
    let holds = text(HOSTNAMES).map(hostnames::parse).unwrap_or_default();
    PersistedState { objects, ledgers, holds }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::Method;
    use serde_json::json;
    use snapshot::Hash;

    use super::*;
    use crate::{
        kube::testing::{Answer, api_server},
        state::mirror::Stored as _,
    };

    fn record(kind: Kind, name: &str) -> (ObjectRef, ObjectRecord) {
        let id = ObjectRef { kind, namespace: "ns".into(), name: name.into() };
        let value = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "ns", "uid": "u-1", "generation": 4},
            "spec": {"ports": [{"port": 80}]},
        });
        let accepted = Some(Arc::new(crds::admit(value).unwrap()));
        let (content, created) = (Hash::of(b"x"), jiff::Timestamp::UNIX_EPOCH);
        (id, ObjectRecord { generation: 5, content, created, accepted, accepted_at: None, gone: None })
    }

    /// What is there once that was written.
    fn found(data: &Data) -> BTreeMap<String, Vec<u8>> {
        data.iter().map(|(key, text)| ((*key).to_owned(), text.clone().into_bytes())).collect()
    }

    /// What is written of these, all of which are broken.
    fn data(broken: &[(ObjectRef, ObjectRecord)], refused: Option<&[Kept]>) -> Data {
        let broken: Vec<_> = broken.iter().map(|(id, known)| (id, known)).collect();
        Writing::default().within(&broken, refused, Instant::now())
    }

    fn broken(objects: impl IntoIterator<Item = (ObjectRef, ObjectRecord)>, accepted: &[&ObjectRef]) -> Wanted {
        let accepted = accepted.iter().copied().cloned().collect();
        let plan = Plan { accepted, ..Plan::default() };
        Wanted { objects: Some((Arc::new(objects.into_iter().collect()), Arc::new(plan))), ..Wanted::default() }
    }

    #[test]
    fn what_is_broken_comes_back_whole() {
        let (id, known) = record(Kind::Service, "a");
        let persisted = parse(&found(&data(&[(id.clone(), known.clone())], None)));
        let back = &persisted.objects[&id];
        assert!(back.same(&known));
        assert_eq!((back.accepted_generation(), persisted.ledgers.len()), (Some(4), 0));
        assert_eq!(back.accepted.as_ref().unwrap().metadata().uid.as_deref(), Some("u-1"));
        // Garbage of whatever kind is no reason to stop.
        let garbage: Data = BTreeMap::from([(OBJECTS, "[1, {}, \"x\"]".into()), (ROLLBACKS, "{".into())]);
        let persisted = parse(&found(&garbage));
        assert!(persisted.objects.is_empty() && persisted.ledgers.is_empty());
        assert!(parse(&BTreeMap::new()).objects.is_empty());
    }

    #[tokio::test]
    async fn what_the_leader_before_left_of_rollbacks_stays_until_they_are_known() {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let store = ConfigMapStore::start(Client::try_from(config).unwrap(), "ns", "memory");
        let written = || Writing::default().data(&store.wanted.borrow(), Instant::now()).get(ROLLBACKS).cloned();
        let (id, known) = record(Kind::ApiRoute, "broken");
        store.keep_objects(&Arc::new(BTreeMap::from([(id, known)])), &Arc::default());
        assert_eq!(written(), None);
        store.keep_rollbacks(&[]);
        assert_eq!(written().as_deref(), Some(""));
        store.task.abort();
    }

    #[test]
    fn only_what_is_broken_and_no_secret_is_kept() {
        let (good, bad, secret) =
            (record(Kind::ApiRoute, "good"), record(Kind::ApiRoute, "bad"), record(Kind::Secret, "s"));
        let (accepted, id) = (good.0.clone(), bad.0.clone());
        let written = Writing::default().data(&broken([good, bad, secret], &[&accepted]), Instant::now());
        assert_eq!(parse(&found(&written)).objects.into_keys().collect::<Vec<_>>(), [id]);
    }

    /// Half a megabyte as text.
    fn large(name: &str) -> (ObjectRef, ObjectRecord) {
        let (id, known) = record(Kind::ApiRoute, name);
        let matching = |m: usize| json!({"headers": [{"name": format!("x-{m}"), "value": "v".repeat(4000)}]});
        let rule = json!({"matches": [matching(0), matching(1)], "backendRefs": [{"name": "a", "port": 80}]});
        let rules = vec![rule; 64];
        let value = json!({"apiVersion": crds::API_VERSION, "kind": "ApiRoute",
            "metadata": {"name": name, "namespace": "ns"}, "spec": {"rules": rules}});
        (id, ObjectRecord { accepted: Some(Arc::new(crds::admit(value).unwrap())), ..known })
    }

    /// The loop only says that there is something: it made values and texts of all that was broken, for each plan.
    #[tokio::test]
    async fn the_loop_makes_no_text() {
        let (_, one) = large("r");
        let id = |i| ObjectRef { kind: Kind::ApiRoute, namespace: "ns".into(), name: format!("r{i}") };
        let objects: ObjectRecords = Arc::new((0..200).map(|i| (id(i), one.clone())).collect());
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let store = ConfigMapStore::start(Client::try_from(config).unwrap(), "ns", "memory");
        let began = Instant::now();
        store.keep_objects(&objects, &Arc::default());
        store.keep_holds(&Holds::default());
        let took = began.elapsed();
        assert!(took < Duration::from_millis(20), "{took:?}");
        store.task.abort();
    }

    #[test]
    fn a_content_is_measured_once() {
        let (id, known) = large("r");
        let mut writing = Writing::default();
        let length = writing.lengths(&[(&id, &known)]);
        assert_eq!(length, [known.text(&id).len()]);
        // Whoever measured it again would find out what it really has.
        writing.lengths.get_mut(&id).unwrap().1 = 7;
        let generation = ObjectRecord { generation: 77, ..known.clone() };
        assert_eq!(
            writing.lengths(&[(&id, &generation)]),
            [length[0] - objects::length(known.accepted.as_deref().unwrap()) + 8]
        );
        assert!(writing.lengths(&[]).is_empty() && writing.lengths.is_empty());
    }

    #[test]
    fn that_too_much_is_broken_is_said_once_a_minute() {
        let (mut writing, start) = (Writing::default(), Instant::now());
        let wanted = broken([large("a"), large("b")], &[]);
        for second in 0..90 {
            writing.data(&wanted, start + Duration::from_secs(second));
        }
        // It was said at first and after a minute, and 29 times since not.
        assert_eq!(writing.throttle.left_out(), 29);
    }

    /// Of an API server: what it was asked.
    async fn asked(data: Data) -> (Method, String, Value, Result<(), String>) {
        let (client, mut requests) = api_server(|_| Answer::status(404));
        let done = KeptObject::<ConfigMap>::new(client, "ns", "memory", "memory").write(&data).await;
        let asked = requests.recv().await.unwrap();
        let content = asked.header("content-type").to_owned();
        (asked.method, content, asked.body, done.map_err(|error| error.to_string()))
    }

    #[tokio::test]
    async fn a_configmap_that_is_gone_is_not_made_anew() {
        let (method, content, body, done) = asked(data(&[], Some(&[refused("ns", 2)]))).await;
        // What an API server does with an apply is to make it.
        assert_eq!((method, content.as_str()), (Method::PATCH, "application/merge-patch+json"));
        assert_eq!(body, json!({"data": {OBJECTS: null, ROLLBACKS: "[xx]"}}));
        assert!(done.unwrap_err().contains("comes with the chart"));
    }

    fn refused(namespace: &str, size: usize) -> Kept {
        Kept { namespace: namespace.into(), json: "x".repeat(size) }
    }

    #[test]
    fn it_is_bounded() {
        let objects: Vec<_> = (0..8_000).map(|i| record(Kind::ApiRoute, &format!("x{i}"))).collect();
        let written = data(&objects, None);
        let total: usize = written.values().map(String::len).sum();
        assert!(total <= MAX_BYTES && total > MAX_BYTES / 2, "{total}");
        assert!(!parse(&found(&written)).objects.is_empty());
        assert_eq!(data(&objects, Some(&[refused("ns", MAX_BYTES + 1)]))[ROLLBACKS], "");
    }

    #[test]
    fn who_breaks_much_pushes_out_nobody() {
        let kept = |namespace: &str, i: usize| {
            let (id, known) = record(Kind::ApiRoute, &format!("x{i}"));
            (ObjectRef { namespace: namespace.into(), ..id }, known)
        };
        // Whoever comes first, and whatever proxies refuse of it.
        let mut objects: Vec<_> = (0..8_000).map(|i| kept("crowd", i)).collect();
        objects.extend((0..100).map(|i| kept("shop", i)));
        let written = data(&objects, Some(&[refused("crowd", MAX_BYTES - 1000), refused("shop", 30_000)]));
        assert!(written.values().map(String::len).sum::<usize>() <= MAX_BYTES);
        assert_eq!(written[ROLLBACKS].len(), 30_002);
        let objects: Vec<Value> = serde_json::from_str(&written[OBJECTS]).unwrap();
        let of = |namespace: &str| objects.iter().filter(|o| o["object"]["namespace"] == namespace).count();
        assert_eq!(of("shop"), 100);
        assert!(of("crowd") > 1_000, "{}", of("crowd"));
    }
}
