//! Memory in a cluster: a ConfigMap that whoever leads writes, and whoever takes over reads. The chart makes it; it is only
//! ever filled, so that it goes with the release: made anew by an operator that is about to end, it would be left behind.
//!
//! It holds only what is needed: an entry exists while an object is broken, a proxy refuses a resource, or the age of
//! routes does not say who has a hostname (`planner::holds`, which bounds that). Should the former two be more than a
//! ConfigMap takes, they are shared fairly between namespaces (`planner::share`). What a Secret held is never in it: that has
//! a Secret (`certificates`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use planner::{
    FleetRef, Holds, Kind, Ledger, ObjectRef,
    share::{self, Unit},
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    hostnames,
    memory::{Objects, Recalled},
    mirror::Stored as _,
    objects,
    rollbacks::{Rollback, Rollbacks},
};
use crate::{fence, lead::MANAGER};

/// Keys of the ConfigMap.
const OBJECTS: &str = "objects.json";
const ROLLBACKS: &str = "rollbacks.json";
const HOSTNAMES: &str = "hostnames.json";
/// Most that is written besides hostnames: the API server takes 1 MiB with everything around it.
pub(super) const MOST: usize = 900 << 10;
/// Writes that follow within this time are one.
pub(super) const PAUSE: Duration = Duration::from_millis(500);
/// After an error, the next attempt; writing, twice as long after each further one.
pub(super) const RETRY: Duration = Duration::from_secs(2);
pub(super) const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// At the end, the last write is waited for so long.
pub(super) const LAST: Duration = Duration::from_secs(2);
/// A request that takes longer is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What is to stand in the ConfigMap; of a key that is not here, whatever is there.
type Data = BTreeMap<&'static str, String>;

/// One thing that is to stand in it.
#[derive(Clone, Debug)]
struct Kept {
    namespace: String,
    /// For the log.
    name: String,
    json: String,
}

/// Keeps the ConfigMap equal to what is remembered.
#[derive(Debug)]
pub struct Memory {
    api: Api<ConfigMap>,
    name: String,
    wanted: watch::Sender<Data>,
    task: JoinHandle<()>,
    /// The oldest first.
    objects: Vec<Kept>,
    /// `None`: not told yet, so that what the leader before left stays.
    rollbacks: Option<Vec<Kept>>,
    /// The same.
    hostnames: Option<String>,
    /// There is something in the ConfigMap, from whomever.
    holds: Arc<AtomicBool>,
}

impl Memory {
    /// Starts on `namespace/name`; writes nothing before it is told to keep something.
    pub fn start(client: Client, namespace: &str, name: &str) -> Self {
        let api: Api<ConfigMap> = Api::namespaced(client, namespace);
        let (wanted, receiver) = watch::channel(Data::new());
        let task = tokio::spawn(follow(api.clone(), name.to_owned(), receiver));
        let (objects, rollbacks, hostnames, holds) = (vec![], None, None, Arc::default());
        Self { api, name: name.to_owned(), wanted, task, objects, rollbacks, hostnames, holds }
    }

    /// Reads what the leader before left. Tries until it is answered, unless it is not allowed to read: then nothing is
    /// known, which is said.
    pub fn recall(&self) -> BoxFuture<'static, Recalled> {
        let (api, name, holds) = (self.api.clone(), self.name.clone(), Arc::clone(&self.holds));
        Box::pin(async move {
            loop {
                let error = match tokio::time::timeout(PATIENCE, api.get_opt(&name)).await {
                    Ok(Ok(found)) => {
                        let holds_any =
                            found.as_ref().and_then(|f| f.data.as_ref()).is_some_and(|data| !data.is_empty());
                        holds.fetch_or(holds_any, Ordering::Relaxed);
                        return found.map(|found| parse(&found)).unwrap_or_default();
                    }
                    Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                        let error = status.message;
                        tracing::error!(
                            error,
                            "what earlier operators left can't be read: broken objects lose what was accepted last"
                        );
                        return Recalled::default();
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "no answer".to_owned(),
                };
                tracing::warn!(configmap = name, error, "can't read what the operator before left; tries again");
                tokio::time::sleep(RETRY).await;
            }
        })
    }

    /// Keeps the accepted content of what is broken now.
    pub fn keep_objects(&mut self, remembered: &Objects, accepted: &BTreeSet<ObjectRef>) {
        let broken = remembered.iter().filter(|(id, remembered)| {
            id.kind != Kind::Secret && remembered.accepted.is_some() && !accepted.contains(id)
        });
        let mut broken: Vec<_> = broken.collect();
        broken.sort_by_key(|(id, remembered)| (remembered.created, *id));
        self.objects = broken.into_iter().map(|(id, remembered)| Kept::object(id, &remembered.json(id))).collect();
        self.keep();
    }

    /// Keeps what was rolled back.
    pub fn keep_rollbacks(&mut self, rollbacks: &[Rollback]) {
        self.rollbacks = Some(rollbacks.iter().flat_map(Kept::rollbacks).collect());
        self.keep();
    }

    /// Keeps who has a hostname where nothing else says it.
    pub fn keep_holds(&mut self, holds: &Holds) {
        self.hostnames = Some(hostnames::text(holds));
        self.keep();
    }

    fn keep(&self) {
        let mut data = data(&self.objects, self.rollbacks.as_deref());
        data.extend(self.hostnames.clone().map(|hostnames| (HOSTNAMES, hostnames)));
        self.wanted.send_if_modified(|before| {
            // Nothing to say, and nothing was ever said: there is no need for a ConfigMap.
            let needless = data.values().all(String::is_empty) && !self.holds.load(Ordering::Relaxed);
            let changed = *before != data && !needless;
            if changed {
                self.holds.store(true, Ordering::Relaxed);
                *before = data;
            }
            changed
        });
    }

    /// Waits a moment for the last write.
    pub async fn finish(self) {
        drop(self.wanted);
        if tokio::time::timeout(LAST, self.task).await.is_err() {
            tracing::warn!(configmap = self.name, "what is remembered could not be written to the end");
        }
    }
}

impl Kept {
    fn object(id: &ObjectRef, json: &Value) -> Self {
        Self { namespace: id.namespace.clone(), name: id.to_string(), json: json.to_string() }
    }

    /// What was rolled back, by namespace, free of secrets.
    fn rollbacks(rollback: &Rollback) -> impl Iterator<Item = Self> {
        rollback.without_certificates().by_namespace().into_iter().map(|(namespace, part)| Self {
            name: format!("what proxies refused of namespace {namespace:?}"),
            namespace,
            json: serde_json::to_string(&part).unwrap_or_default(),
        })
    }
}

/// Both values, within the bound. What proxies refused comes first of each namespace, then the oldest.
fn data(objects: &[Kept], rollbacks: Option<&[Kept]>) -> Data {
    let refused = rollbacks.unwrap_or_default();
    let all: Vec<&Kept> = refused.iter().chain(objects).collect();
    // A comma and a line break, or the brackets.
    let costs: Vec<[u64; 1]> = all.iter().map(|kept| [kept.json.len() as u64 + 2]).collect();
    let units: Vec<Unit<'_>> =
        all.iter().enumerate().map(|(i, kept)| Unit { owner: &kept.namespace, parts: vec![i] }).collect();
    let allotment = share::allot([MOST as u64], &costs, &units);
    let left_out: Vec<&&Kept> =
        all.iter().zip(&allotment.taken).filter(|(_, taken)| taken.is_err()).map(|(kept, _)| kept).collect();
    if let Some(first) = left_out.first() {
        tracing::error!(
            count = left_out.len(),
            first = first.name,
            namespace_has = allotment.used.get(first.namespace.as_str()).map_or(0, |[bytes]| *bytes),
            most = MOST,
            "too much is broken at once to be remembered in a ConfigMap: if every operator ends now, what is left out \
             here loses the content accepted last; fix some objects of that namespace"
        );
    }
    let (of_refused, of_objects) = allotment.taken.split_at(refused.len());
    let text = |kept: &[Kept], taken: &[Result<(), usize>]| {
        let lines = kept.iter().zip(taken).filter(|(_, taken)| taken.is_ok()).map(|(kept, _)| kept.json.as_str());
        let lines: Vec<&str> = lines.collect();
        if lines.is_empty() { String::new() } else { format!("[{}]", lines.join(",\n")) }
    };
    let objects = (OBJECTS, text(objects, of_objects));
    [objects].into_iter().chain(rollbacks.map(|refused| (ROLLBACKS, text(refused, of_refused)))).collect()
}

fn parse(found: &ConfigMap) -> Recalled {
    let text = |key| found.data.as_ref().and_then(|data| data.get(key)).filter(|text| !text.is_empty());
    let records: Vec<Value> = text(OBJECTS)
        .and_then(|text| {
            let parsed = serde_json::from_str(text);
            parsed
                .map_err(|error| tracing::warn!(%error, "{OBJECTS} of the operator's ConfigMap is not understood"))
                .ok()
        })
        .unwrap_or_default();
    let objects = records.into_iter().filter_map(objects::from_record).collect();
    let ledgers: BTreeMap<FleetRef, Ledger> = text(ROLLBACKS).map(|text| Rollbacks::parse(text)).unwrap_or_default();
    let holds = text(HOSTNAMES).map(|text| hostnames::parse(text)).unwrap_or_default();
    Recalled { objects, ledgers, holds }
}

async fn follow(api: Api<ConfigMap>, name: String, mut wanted: watch::Receiver<Data>) {
    let (mut written, mut pause) = (Data::new(), RETRY);
    loop {
        let ended = wanted.changed().await.is_err();
        loop {
            let data = wanted.borrow_and_update().clone();
            if data == written {
                break;
            }
            match write(&api, &name, &data).await {
                Ok(()) => (written, pause) = (data, RETRY),
                Err(error) => {
                    tracing::warn!(configmap = name, error, ?pause, "can't write what is remembered; tries again");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_RETRY);
                }
            }
        }
        if ended {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn write(api: &Api<ConfigMap>, name: &str, data: &Data) -> Result<(), String> {
    // A merge patch, unlike an apply, makes nothing that is not there. What is null goes.
    let data: BTreeMap<_, _> = data.iter().map(|(key, text)| (key, (!text.is_empty()).then_some(text))).collect();
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    match tokio::time::timeout(PATIENCE, api.patch(name, &params, &Patch::Merge(json!({ "data": data })))).await {
        Ok(Ok(_)) => Ok(()),
        // Whoever leads now writes what it knows.
        Ok(Err(error)) if fence::is_not_leading(&error) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            Err("there is no such ConfigMap: it comes with the chart, apply that again".to_owned())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use hyper::{Method, Request, Response};
    use kube::client::Body;
    use snapshot::Hash;

    use super::*;
    use crate::state::objects::Remembered;

    fn remembered(kind: Kind, name: &str) -> (ObjectRef, Remembered) {
        let id = ObjectRef { kind, namespace: "ns".into(), name: name.into() };
        let value = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "ns", "uid": "u-1", "generation": 4},
            "spec": {"ports": [{"port": 80}]},
        });
        let accepted = Some(Arc::new(crds::admit(value).unwrap()));
        let (content, created) = (Hash::of(b"x"), jiff::Timestamp::UNIX_EPOCH);
        (id, Remembered { generation: 5, content, created, accepted, accepted_at: None, gone: None })
    }

    fn as_configmap(data: &Data) -> ConfigMap {
        let data = data.iter().map(|(key, text)| ((*key).to_owned(), text.clone())).collect();
        ConfigMap { data: Some(data), ..ConfigMap::default() }
    }

    #[test]
    fn what_is_broken_comes_back_whole() {
        let (id, known) = remembered(Kind::Service, "a");
        let objects = [Kept::object(&id, &known.json(&id))];
        let recalled = parse(&as_configmap(&data(&objects, None)));
        let back = &recalled.objects[&id];
        assert!(back.same(&known));
        assert_eq!((back.accepted_generation(), recalled.ledgers.len()), (Some(4), 0));
        assert_eq!(back.accepted.as_ref().unwrap().metadata().uid.as_deref(), Some("u-1"));
        // Garbage of whatever kind is no reason to stop.
        let garbage: Data = BTreeMap::from([(OBJECTS, "[1, {}, \"x\"]".into()), (ROLLBACKS, "{".into())]);
        let recalled = parse(&as_configmap(&garbage));
        assert!(recalled.objects.is_empty() && recalled.ledgers.is_empty());
        assert!(parse(&ConfigMap::default()).objects.is_empty());
    }

    /// Of a ConfigMap that nobody can reach.
    fn memory() -> Memory {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        Memory::start(Client::try_from(config).unwrap(), "ns", "memory")
    }

    #[tokio::test]
    async fn what_the_leader_before_left_of_rollbacks_stays_until_they_are_known() {
        let mut memory = memory();
        let (id, known) = remembered(Kind::ApiRoute, "broken");
        memory.keep_objects(&Arc::new(BTreeMap::from([(id, known)])), &BTreeSet::new());
        let written = |memory: &Memory| memory.wanted.borrow().get(ROLLBACKS).cloned();
        assert_eq!(written(&memory), None);
        memory.keep_rollbacks(&[]);
        assert_eq!(written(&memory).as_deref(), Some(""));
        memory.task.abort();
    }

    #[tokio::test]
    async fn only_what_is_broken_and_no_secret_is_kept() {
        let mut memory = memory();
        let (good, broken, secret) =
            (remembered(Kind::ApiRoute, "good"), remembered(Kind::ApiRoute, "broken"), remembered(Kind::Secret, "s"));
        let accepted = BTreeSet::from([good.0.clone()]);
        let (broken_id, objects) = (broken.0.clone(), BTreeMap::from([good, broken, secret]));
        memory.keep_objects(&Arc::new(objects), &accepted);
        assert_eq!(memory.objects.iter().map(|kept| &kept.name).collect::<Vec<_>>(), [&broken_id.to_string()]);
        memory.task.abort();
    }

    /// Of an API server: what it was asked.
    async fn asked(data: Data) -> (Method, String, Value, Result<(), String>) {
        let (told, mut requests) = tokio::sync::mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let told = told.clone();
            async move {
                let (head, body) = request.into_parts();
                let content = head.headers["content-type"].to_str().unwrap().to_owned();
                let body = body.collect_bytes().await.unwrap();
                told.send((head.method, content, serde_json::from_slice(&body).unwrap())).unwrap();
                let gone = json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "no"});
                let answer = Response::builder().status(404).body(Body::from(gone.to_string().into_bytes()));
                Ok::<_, std::convert::Infallible>(answer.unwrap())
            }
        });
        let api = Api::namespaced(Client::new(service, "ns"), "ns");
        let done = write(&api, "memory", &data).await;
        let (method, content, body) = requests.recv().await.unwrap();
        (method, content, body, done)
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
        Kept { namespace: namespace.into(), name: "refused".into(), json: "x".repeat(size) }
    }

    #[test]
    fn it_is_bounded() {
        let objects = (0..8_000).map(|i| remembered(Kind::ApiRoute, &format!("x{i}")));
        let objects: Vec<_> = objects.map(|(id, known)| Kept::object(&id, &known.json(&id))).collect();
        let written = data(&objects, None);
        let total: usize = written.values().map(String::len).sum();
        assert!(total <= MOST && total > MOST / 2, "{total}");
        assert!(!parse(&as_configmap(&written)).objects.is_empty());
        assert_eq!(data(&objects, Some(&[refused("ns", MOST + 1)]))[ROLLBACKS], "");
    }

    #[test]
    fn who_breaks_much_pushes_out_nobody() {
        let kept = |namespace: &str, i: usize| {
            let (id, known) = remembered(Kind::ApiRoute, &format!("x{i}"));
            let id = ObjectRef { namespace: namespace.into(), ..id };
            Kept::object(&id, &known.json(&id))
        };
        // Whoever comes first, and whatever proxies refuse of it.
        let mut objects: Vec<Kept> = (0..8_000).map(|i| kept("crowd", i)).collect();
        objects.extend((0..100).map(|i| kept("shop", i)));
        let written = data(&objects, Some(&[refused("crowd", MOST - 1000), refused("shop", 30_000)]));
        assert!(written.values().map(String::len).sum::<usize>() <= MOST);
        assert_eq!(written[ROLLBACKS].len(), 30_002);
        let objects: Vec<Value> = serde_json::from_str(&written[OBJECTS]).unwrap();
        let of = |namespace: &str| objects.iter().filter(|o| o["object"]["namespace"] == namespace).count();
        assert_eq!(of("shop"), 100);
        assert!(of("crowd") > 1_000, "{}", of("crowd"));
    }
}
