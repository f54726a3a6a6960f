//! Statuses as files: each custom resource as `kubectl get -o json` would show it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use planner::{Kind, ObjectRef, Status};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Input, Pace, derive};
use crate::state::{
    mirror::{self, Mirror, Stored},
    objects::to_value,
};

pub(super) async fn follow(folder: PathBuf, pace: Pace, mut receiver: watch::Receiver<Input>) {
    let folder_of_task = folder.clone();
    let stored = tokio::task::spawn_blocking(move || load(&folder_of_task)).await.unwrap_or_default();
    let mut previous: Arc<BTreeMap<ObjectRef, Status>> =
        Arc::new(stored.iter().map(|(id, s)| (id.clone(), s.status.clone())).collect());
    let mirror = Mirror::start(folder, Arc::new(stored), Duration::ZERO);
    while receiver.changed().await.is_ok() {
        let input = receiver.borrow_and_update().clone();
        let derived = derive(input, Arc::clone(&previous), |input, statuses| (files(input, &statuses), statuses)).await;
        let Some((files, statuses)) = derived else { break };
        mirror.set(Arc::new(files));
        previous = Arc::new(statuses);
        tokio::time::sleep(pace.coalesce).await;
    }
    mirror.finish().await;
}

/// A custom resource as `kubectl get -o json` would show it.
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
            created: input.records.get(id).map(|r| r.created),
            object: object.in_force().cloned(),
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
            None => json!({"apiVersion": crds::API_VERSION, "kind": id.kind.name(), "metadata": {}}),
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
        let kind = Kind::named(&text("/kind")?)?;
        let (namespace, name) = (text("/metadata/namespace")?, text("/metadata/name")?);
        let status = Status::read(kind, value["status"].clone())?;
        // The object itself is not taken over, so that each file is written once anew.
        let file = File { generation: 0, created: None, object: None, status };
        Some((ObjectRef { kind, namespace, name }, file))
    };
    mirror::read(folder).into_iter().filter_map(file).collect()
}
