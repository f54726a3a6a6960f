//! Writes the status of every custom resource, in the background: whatever changed, at the pace that its place bears.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use planner::{FleetRef, FleetView, Kind, Millis, ObjectRef, Plan, Status, World};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    source::kind_of,
    state::{
        mirror::{self, Mirror, Stored},
        objects::{Remembered, to_value},
    },
    world::in_force,
};

/// How often statuses are written.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Transitions are written at once; those that follow within this time are written together.
    pub coalesce: Duration,
    /// Numbers that drift (requests, percentages) are written this often, if they changed.
    pub drift: Duration,
}

/// For files of this machine, which cost nothing next to writes to an API server (there 1 s and 30 s are the rule).
pub const FILES: Pace = Pace { coalesce: Duration::from_millis(100), drift: Duration::from_secs(2) };

/// What statuses are made of.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Every object.
    pub world: Arc<World>,
    /// What was derived, with the problems of fleets.
    pub plan: Arc<Plan>,
    /// What was observed.
    pub fleets: BTreeMap<FleetRef, FleetView>,
    /// When each object was first seen.
    pub remembered: Arc<BTreeMap<ObjectRef, Remembered>>,
}

/// Takes what statuses are made of; the newest wins.
#[derive(Debug)]
pub struct Writer {
    /// How often it writes.
    pub pace: Pace,
    input: watch::Sender<Input>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Starts on the folder that `sluice-operator get` reads.
    pub fn start(folder: PathBuf, pace: Pace) -> Self {
        let (input, receiver) = watch::channel(Input::default());
        let task = tokio::spawn(follow(folder, pace, receiver));
        Self { pace, input, task }
    }

    /// Has statuses written that are made of this.
    pub fn set(&self, input: Input) {
        self.input.send_replace(input);
    }

    /// Waits until all is written.
    pub async fn finish(self) {
        drop(self.input);
        let _ = self.task.await;
    }
}

async fn follow(folder: PathBuf, pace: Pace, mut receiver: watch::Receiver<Input>) {
    let folder_of_task = folder.clone();
    let stored = tokio::task::spawn_blocking(move || load(&folder_of_task)).await.unwrap_or_default();
    let mut previous: BTreeMap<ObjectRef, Status> =
        stored.iter().map(|(id, s)| (id.clone(), s.status.clone())).collect();
    let mirror = Mirror::start(folder, Arc::new(stored), Duration::ZERO);
    while receiver.changed().await.is_ok() {
        let input = receiver.borrow_and_update().clone();
        let derive = tokio::task::spawn_blocking(move || {
            let statuses = planner::statuses(&input.world, &input.plan, &input.fleets, &previous, now());
            (files(&input, &statuses), statuses)
        });
        let Ok((files, statuses)) = derive.await else {
            tracing::error!("deriving statuses failed; they are not written any more");
            break;
        };
        mirror.set(Arc::new(files));
        previous = statuses;
        tokio::time::sleep(pace.coalesce).await;
    }
    mirror.finish().await;
}

/// The time of day.
pub(crate) fn now() -> Millis {
    Millis(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default())
}

/// One custom resource as `kubectl get -o json` would show it.
#[derive(Clone, Debug)]
struct File {
    generation: i64,
    created: Option<jiff::Timestamp>,
    /// `None`: its content was never valid.
    object: Option<Arc<crds::Object>>,
    status: Status,
}

fn files(input: &Input, statuses: &BTreeMap<ObjectRef, Status>) -> BTreeMap<ObjectRef, File> {
    let file = |(id, status): (&ObjectRef, &Status)| {
        let object = input.world.objects.get(id)?;
        let file = File {
            generation: object.generation,
            created: input.remembered.get(id).map(|r| r.created),
            object: in_force(object).cloned(),
            status: status.clone(),
        };
        Some((id.clone(), file))
    };
    statuses.iter().filter_map(file).collect()
}

impl Stored for File {
    fn same(&self, other: &Self) -> bool {
        let object = match (&self.object, &other.object) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (None, None) => true,
            _ => false,
        };
        object && (self.generation, self.created) == (other.generation, other.created) && self.status == other.status
    }

    fn json(&self, id: &ObjectRef) -> Value {
        let mut value = match &self.object {
            Some(object) => to_value(object),
            None => json!({"apiVersion": crds::API_VERSION, "kind": format!("{:?}", id.kind), "metadata": {}}),
        };
        let metadata = &mut value["metadata"];
        metadata["name"] = id.name.as_str().into();
        metadata["namespace"] = id.namespace.as_str().into();
        metadata["generation"] = self.generation.into();
        if let Some(created) = self.created {
            metadata["creationTimestamp"] = json!(created.round(jiff::Unit::Second).unwrap_or(created));
        }
        value["status"] = serde_json::to_value(&self.status).unwrap_or_default();
        value
    }
}

/// Reads what an earlier operator wrote, so that the times of conditions that did not change stay.
fn load(folder: &std::path::Path) -> BTreeMap<ObjectRef, File> {
    let file = |value: Value| {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let kind = kind_of(&text("/kind")?)?;
        let (namespace, name) = (text("/metadata/namespace")?, text("/metadata/name")?);
        let status = status(kind, value["status"].clone())?;
        // The object itself is not taken over, so that each file is written once anew.
        let file = File { generation: 0, created: None, object: None, status };
        Some((ObjectRef { kind, namespace, name }, file))
    };
    mirror::read(folder).into_iter().filter_map(file).collect()
}

fn status(kind: Kind, value: Value) -> Option<Status> {
    fn parse<T: DeserializeOwned>(value: Value) -> Option<T> {
        serde_json::from_value(value).ok()
    }
    match kind {
        Kind::GatewayFleet => parse(value).map(Status::Fleet),
        Kind::ApiRoute => parse(value).map(Status::Route),
        Kind::RatePolicy => parse(value).map(Status::Policy),
        Kind::Service | Kind::EndpointSlice | Kind::Secret | Kind::Namespace | Kind::ReferenceGrant => None,
    }
}
