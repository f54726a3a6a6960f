//! The fleet that comes with an installation: a manifest in a ConfigMap, which the leader applies.
//!
//! A chart can't hold a GatewayFleet beside the definition of that kind: the API server would not know it yet. So the
//! chart holds the manifest as text. The ConfigMap owns the fleet: with it, the fleet goes, and what the fleet owns. Each
//! name of a fleet has a ConfigMap of its own, so that the chart takes the former one away when the name changes.
//!
//! A fleet of that name which the ConfigMap does not own is somebody's: it is left alone. Of one that it owns, the replicas
//! are left alone once somebody set them through `/scale`, as an autoscaler does.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use k8s_openapi::{
    api::core::v1::{ConfigMap, ObjectReference},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::watcher,
};
use planner::FleetRef;
use serde_json::{Value, json};
use tokio::{sync::watch, time::MissedTickBehavior};

use crate::{
    admin::metrics,
    events::recorder::{Event, EventRecorder},
    kube::{
        api::{self, Class},
        backoff::{self, Bounds},
        managers::{self, DEFINED_BY},
        reapply::ReapplyBackoff,
        watch::{self as watching, Change},
    },
    leader::election::{LeaderState, LeaderWatch, MANAGER},
    reason,
};

/// Where in the ConfigMap the manifest stands.
pub const KEY: &str = "fleet.yaml";
/// Applied again this often, whatever the watch says. A fleet that was edited or deleted by hand comes back at once.
const RESYNC_INTERVAL: Duration = Duration::from_secs(60);
/// The next attempt after an error of the API server.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Pauses after refusals of one manifest.
const REFUSAL_PAUSES: Bounds = Bounds::new(RETRY_INTERVAL, RESYNC_INTERVAL);
/// Attempts after a conflict: somebody changed the fleet between the read and the write.
const MAX_CONFLICTS: usize = 3;
/// Deadline of one request about the fleet.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest manifest: the API server takes no larger ConfigMap.
const MAX_MANIFEST_BYTES: usize = 1 << 20;

/// Why the fleet is not as the ConfigMap says.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DefaultFleetError {
    /// The ConfigMap holds nothing to apply.
    #[error("the ConfigMap has no key {KEY}: put the manifest of a GatewayFleet there")]
    NoManifest,
    /// No YAML.
    #[error("{KEY} is no YAML: {0}")]
    NoYaml(String),
    /// Something else.
    #[error("{KEY} is no GatewayFleet: its apiVersion must be {api}, its kind GatewayFleet", api = crds::API_VERSION)]
    NoFleet,
    /// A ConfigMap can only own what is in its own namespace.
    #[error("{KEY}: metadata.namespace is {0:?}: leave it out, or make it that of the ConfigMap, {1:?}")]
    Elsewhere(String, String),
    /// The API server would refuse it.
    #[error("{KEY}: {0}")]
    Invalid(String),
    /// The fleet of that name is somebody else's.
    #[error(
        "{KEY}: GatewayFleet {0} is there already, and not from this ConfigMap: it stays as it is. Delete it, change the \
         chart's fleet.name, or set fleet.enabled=false"
    )]
    Occupied(String),
    /// The API server refuses it.
    #[error("{KEY}: the API server refuses it: {0}")]
    Refused(String),
}

/// Whether the fleet is as its ConfigMap says.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum State {
    /// The ConfigMap does not exist, or nothing is known yet.
    #[default]
    Unknown,
    /// The fleet is as its ConfigMap says.
    AsDefined,
    /// The fleet differs from its ConfigMap.
    NotAsDefined {
        /// The fleet, when the manifest names one.
        fleet: Option<FleetRef>,
        /// The difference, and the fix.
        why: String,
    },
}

/// The ConfigMap to follow, and the receivers of what comes of it.
#[derive(Debug)]
pub struct Follow {
    /// Namespace of the ConfigMap.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The recorder of failures, and of edits that were undone.
    pub events: EventRecorder,
    /// Whether all is as it should be, for statuses and the admin port: also while another operator leads.
    pub state: watch::Sender<State>,
}

impl Follow {
    /// Follows the ConfigMap for ever, and applies what is in it while this operator leads.
    pub async fn run(self, client: Client, mut lead: LeaderWatch) {
        let Self { namespace, name, .. } = &self;
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let which = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut changes = std::pin::pin!(watching::changes(api, which, backoff::WATCH, Some));
        // All of the namespace: which one it is may change with the manifest.
        let resource = ApiResource::erase::<crds::GatewayFleet>(&());
        let fleets: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let mut fleets = std::pin::pin!(watching::changes(fleets, watcher::Config::default(), backoff::WATCH, Some));
        let mut again = tokio::time::interval(RESYNC_INTERVAL);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut latest: Option<Arc<ConfigMap>> = None;
        let mut there: BTreeMap<String, DynamicObject> = BTreeMap::new();
        let (mut said, mut reapply, mut refusals) = (None, ReapplyBackoff::default(), 0);
        loop {
            let mut edited = false;
            tokio::select! {
                change = changes.next() => match change {
                    Some(Change::Listed(mut found)) => latest = found.pop().map(Arc::new),
                    Some(Change::Appeared(found)) => latest = Some(Arc::new(found)),
                    Some(Change::Vanished(_)) => latest = None,
                    Some(Change::NotRead) => continue,
                    Some(Change::Failing(error)) => {
                        tracing::warn!(configmap = name, %error, "the default fleet's ConfigMap can't be watched; tries again");
                        continue;
                    }
                    None => return,
                },
                fleet = fleets.next() => match fleet {
                    Some(Change::Listed(all)) => there = all.into_iter().map(|fleet| (fleet.name_any(), fleet)).collect(),
                    Some(Change::Appeared(fleet)) => {
                        there.insert(fleet.name_any(), fleet);
                        edited = true;
                    }
                    Some(Change::Vanished(fleet)) => drop(there.remove(&fleet.name_any())),
                    // It is applied from time to time all the same.
                    Some(Change::NotRead | Change::Failing(_)) => continue,
                    None => return,
                },
                () = changed(&mut lead) => {}
                _ = again.tick() => {}
            }
            let Some(found) = latest.clone() else {
                self.state.send_if_modified(|state| std::mem::take(state) != State::Unknown);
                continue;
            };
            let edit = fleet(&found).ok().and_then(|fleet| Edit::of(&fleet, &there));
            if !matches!(*lead.borrow(), LeaderState::Leader { .. }) {
                self.look(&found, edit.as_ref(), &there);
                continue;
            }
            let now = Instant::now();
            if edited && (edit.is_none() || !reapply.over(now)) {
                // What others say of it, or a status; or a program that undoes it again and again.
                if edit.is_some() {
                    again.reset_at(reapply.until().unwrap_or(now).into());
                }
                continue;
            }
            let problem = match apply(&client, &found).await {
                Ok(()) => None,
                Err(Failure::Manifest(problem)) => Some(problem),
                Err(Failure::Changed(error) | Failure::Later(error)) => {
                    tracing::warn!(configmap = name, error, "the default fleet can't be applied; tries again");
                    again.reset_after(RETRY_INTERVAL);
                    continue;
                }
            };
            metrics::get().default_fleet_problem.set(problem.is_some().into());
            let is_new = said.as_ref() != Some(&(found.resource_version(), problem.clone()));
            match &problem {
                // A right or an admission policy that is there already takes a moment until the API server goes by it.
                Some(DefaultFleetError::Refused(_)) => {
                    let is_same = said.as_ref().is_some_and(|(version, _)| *version == found.resource_version());
                    refusals = if is_same { refusals + 1 } else { 1 };
                    again.reset_after(REFUSAL_PAUSES.pause(refusals));
                }
                _ => refusals = 0,
            }
            match &problem {
                None => {
                    // That a new manifest differs from what is there is no edit.
                    let undone = edit.filter(|_| !is_new);
                    reapply.done(undone.is_some(), now);
                    if let Some(edit) = undone {
                        let restored = restored(&found, &edit);
                        tracing::info!(configmap = name, "{}", restored.note);
                        self.events.publish(restored);
                    }
                    if is_new {
                        tracing::info!(configmap = name, "the default fleet is applied");
                    }
                }
                Some(problem) if is_new => {
                    tracing::warn!(configmap = name, %problem, "the default fleet is not as its ConfigMap says");
                    self.events.publish(event(found.object_ref(&()), problem));
                    if let Some(fleet) = named(&found, &there) {
                        self.events.publish(event(fleet.object_ref(&resource), problem));
                    }
                }
                Some(_) => {}
            }
            self.tell(match &problem {
                None => State::AsDefined,
                Some(problem) => not_as_defined(&found, &problem.to_string()),
            });
            said = Some((found.resource_version(), problem));
        }
    }

    /// Sets the state as far as a standby knows it: it sees the fleet, not why the API server refuses the manifest.
    fn look(&self, found: &ConfigMap, edit: Option<&Edit>, there: &BTreeMap<String, DynamicObject>) {
        let occupied = named(found, there).is_some_and(|fleet| !is_owned(&fleet.metadata, found));
        let why = match (fleet(found), named(found, there), edit) {
            (Err(problem), ..) => problem.to_string(),
            (Ok(_), None, _) => {
                format!("{KEY}: the fleet is not there: the operator that leads applies it, or says why not")
            }
            (Ok(_), Some(fleet), _) if occupied => DefaultFleetError::Occupied(fleet.name_any()).to_string(),
            (Ok(_), Some(_), Some(Edit { edit, .. })) => {
                let fields = edit.fields.join(", ");
                format!("{KEY}: the fleet is another in {fields}: the operator that leads applies it, or says why not")
            }
            (Ok(_), Some(_), None) => return self.tell(State::AsDefined),
        };
        self.tell(not_as_defined(found, &why));
    }

    fn tell(&self, state: State) {
        self.state.send_if_modified(|known| {
            let changes = *known != state;
            *known = state;
            changes
        });
    }
}

/// An edit of the fleet by somebody else.
#[derive(Debug)]
struct Edit {
    edit: managers::Edit,
    regarding: ObjectReference,
}

impl Edit {
    /// The fields of the manifest that differ in the live fleet; `None`: no difference.
    fn of(fleet: &Value, there: &BTreeMap<String, DynamicObject>) -> Option<Self> {
        let live = there.get(fleet["metadata"]["name"].as_str()?)?;
        let mut applied = fleet.clone();
        if is_scaled(&live.metadata)
            && let Some(scaling) = applied.pointer_mut("/spec/scaling").and_then(Value::as_object_mut)
        {
            scaling.remove("replicas");
        }
        let managed = live.metadata.managed_fields.as_deref().unwrap_or_default();
        let edit = managers::of_values(&applied, &serde_json::to_value(live).ok()?, managed, &[MANAGER])?;
        Some(Self { edit, regarding: live.object_ref(&ApiResource::erase::<crds::GatewayFleet>(&())) })
    }
}

/// The fleet that the manifest names, if it is there.
fn named<'t>(found: &ConfigMap, there: &'t BTreeMap<String, DynamicObject>) -> Option<&'t DynamicObject> {
    there.get(&manifest(found)?.name)
}

/// Which fleet the manifest is of, as far as it can be read.
fn manifest(found: &ConfigMap) -> Option<FleetRef> {
    let text = found.data.as_ref()?.get(KEY).filter(|text| text.len() <= MAX_MANIFEST_BYTES)?;
    let manifest: Value = serde_yaml::from_str(text).ok()?;
    let name = manifest["metadata"]["name"].as_str()?.to_owned();
    Some(FleetRef { namespace: found.namespace()?, name })
}

fn not_as_defined(found: &ConfigMap, why: &str) -> State {
    State::NotAsDefined { fleet: manifest(found), why: format!("ConfigMap {}: {why}", found.name_any()) }
}

/// Waits until who leads may have changed.
async fn changed(lead: &mut LeaderWatch) {
    if lead.changed().await.is_err() {
        // As it is now it stays.
        std::future::pending::<()>().await;
    }
}

#[derive(Debug)]
enum Failure {
    /// The manifest has to be changed.
    Manifest(DefaultFleetError),
    /// The fleet was changed by somebody else meanwhile.
    Changed(String),
    /// The API server fails; the manifest may be right.
    Later(String),
}

async fn apply(client: &Client, found: &ConfigMap) -> Result<(), Failure> {
    let defined = fleet(found).map_err(Failure::Manifest)?;
    let namespace = found.namespace().unwrap_or_default();
    let name = defined["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let api: Api<crds::GatewayFleet> = Api::namespaced(client.clone(), &namespace);
    let params = PatchParams::apply(MANAGER).force();
    let mut changed = 0;
    loop {
        let mut fleet = defined.clone();
        if let Some(there) = within(api.get_metadata_opt(&name)).await? {
            if !is_owned(&there.metadata, found) {
                return Err(Failure::Manifest(DefaultFleetError::Occupied(format!("{namespace}/{name}"))));
            }
            if is_scaled(&there.metadata)
                && let Some(scaling) = fleet.pointer_mut("/spec/scaling").and_then(Value::as_object_mut)
            {
                scaling.remove("replicas");
            }
            // Of that very one: who scales it in this moment is not overruled.
            fleet["metadata"]["resourceVersion"] = json!(there.metadata.resource_version);
        }
        match within(api.patch_metadata(&name, &params, &Patch::Apply(fleet))).await {
            Err(Failure::Changed(_)) if changed < MAX_CONFLICTS => changed += 1,
            done => return done.map(drop),
        }
    }
}

/// Whether an object is of this ConfigMap, or of one of that name that was deleted and made anew.
pub(crate) fn is_owned(object: &ObjectMeta, by: &ConfigMap) -> bool {
    let owners = object.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|o| o.controller == Some(true) && o.kind == "ConfigMap" && o.name == by.name_any())
}

/// Whether somebody set the replicas through `/scale`.
fn is_scaled(fleet: &ObjectMeta) -> bool {
    let mut through_scale =
        fleet.managed_fields.iter().flatten().filter(|entry| entry.subresource.as_deref() == Some("scale"));
    through_scale.any(|entry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:scaling/f:replicas").is_some())
    })
}

async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failure> {
    api::request(REQUEST_TIMEOUT, request).await.map_err(|error| match error.class() {
        // Forbidden: an admission policy, or a right that is missing.
        Class::Invalid | Class::Forbidden => Failure::Manifest(DefaultFleetError::Refused(error.message())),
        Class::Conflict => Failure::Changed(error.message()),
        // Among others that this operator does not lead any more: the process ends in a moment.
        _ => Failure::Later(error.to_string()),
    })
}

/// The fleet as it is to be applied.
fn fleet(found: &ConfigMap) -> Result<Value, DefaultFleetError> {
    let text = found.data.as_ref().and_then(|data| data.get(KEY)).filter(|text| !text.trim().is_empty());
    let text = text.ok_or(DefaultFleetError::NoManifest)?;
    if text.len() > MAX_MANIFEST_BYTES {
        return Err(DefaultFleetError::NoYaml(format!("it has more than {MAX_MANIFEST_BYTES} bytes")));
    }
    let mut fleet: Value = serde_yaml::from_str(text).map_err(|error| DefaultFleetError::NoYaml(error.to_string()))?;
    if fleet["apiVersion"] != crds::API_VERSION || fleet["kind"] != "GatewayFleet" {
        return Err(DefaultFleetError::NoFleet);
    }
    let namespace = found.namespace().unwrap_or_default();
    let metadata = fleet["metadata"].as_object_mut().ok_or(DefaultFleetError::NoFleet)?;
    match metadata.get("namespace").and_then(Value::as_str) {
        Some(other) if other != namespace => return Err(DefaultFleetError::Elsewhere(other.to_owned(), namespace)),
        _ => drop(metadata.insert("namespace".into(), namespace.clone().into())),
    }
    crds::admit(fleet.clone()).map_err(|violations| {
        let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
        DefaultFleetError::Invalid(all.join("; "))
    })?;
    let owner = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": found.name_any(),
        "uid": found.uid().unwrap_or_default(),
        "controller": true,
    });
    fleet["metadata"]["ownerReferences"] = json!([owner]);
    // Whoever looks at the fleet sees where to change it.
    let annotations = found.annotations();
    let of = |key: &str| annotations.get(key).map(String::as_str);
    let release = of("meta.helm.sh/release-namespace").zip(of("meta.helm.sh/release-name"));
    let release = release.map_or(String::new(), |(namespace, name)| format!(" of helm release {namespace}/{name}"));
    let defined_by = format!("ConfigMap {namespace}/{}{release}", found.name_any());
    match &mut fleet["metadata"]["annotations"] {
        Value::Object(annotations) => drop(annotations.insert(DEFINED_BY.into(), defined_by.into())),
        annotations => *annotations = json!({DEFINED_BY: defined_by}),
    }
    if let Some(object) = fleet.as_object_mut() {
        object.remove("status");
    }
    Ok(fleet)
}

fn event(regarding: ObjectReference, problem: &DefaultFleetError) -> Event {
    Event {
        regarding: plain(regarding),
        warning: true,
        reason: reason::INVALID_FLEET,
        action: "Apply",
        note: problem.to_string(),
    }
}

/// Says that the fleet is as its ConfigMap says again.
fn restored(found: &ConfigMap, edit: &Edit) -> Event {
    let annotations = found.annotations();
    let release = annotations.get("meta.helm.sh/release-name").map(|name| format!(" of release {name}"));
    let note = format!(
        "{}; it is as ConfigMap {} says again: change fleet.spec in the values{}",
        edit.edit,
        found.name_any(),
        release.unwrap_or_default(),
    );
    Event { regarding: plain(edit.regarding.clone()), warning: true, reason: reason::RESTORED, action: "Apply", note }
}

/// Without the version: an Event is of the object, not of one state of it.
fn plain(regarding: ObjectReference) -> ObjectReference {
    let ObjectReference { api_version, kind, namespace, name, uid, .. } = regarding;
    ObjectReference { api_version, kind, namespace, name, uid, ..ObjectReference::default() }
}

#[cfg(test)]
mod tests;
