//! The objects that the sources have, each as it stands and as it was last accepted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use crds::Kind;
use crds::{Object, Violation};

pub use crate::object::{FleetRef, ObjectRef, Origin};
use crate::{LastReady, Millis, Problem, holds::Holds};

/// An object as its source has it, and as it was last accepted.
#[derive(Clone, Debug)]
pub struct WorldObject {
    /// The content that the source has now: admitted (`crds::admit`), or why not.
    pub current: Result<Arc<Object>, Vec<Violation>>,
    /// The document of a policy that guards as it was written, kept only while `current` is an error: the targets of a policy that
    /// was never valid are read from it, so that they answer 500 instead of standing open. Of a Secret it is not kept:
    /// what prints a world would show it.
    pub raw: Option<Arc<serde_json::Value>>,
    /// The content that [`crate::Plan::accepted`] last named; in force while `current` can't be used.
    pub accepted: Option<Arc<Object>>,
    /// The time at which that was accepted, as far as it is known: of what others refer to.
    pub accepted_at: Option<Millis>,
    /// `metadata.generation`; standalone: counted by the source, one more for each change of content.
    pub generation: i64,
    /// The time at which the source first had it: its age, where `metadata.creationTimestamp` does not say. The same in
    /// every world; `None` counts as the oldest.
    pub created: Option<Millis>,
    /// The place of its document.
    pub origin: Option<Origin>,
}

impl WorldObject {
    /// The content that counts: as it is now, or as last accepted.
    pub fn in_force(&self) -> Option<&Arc<Object>> {
        self.current.as_ref().ok().or(self.accepted.as_ref())
    }
}

/// An object that others refer to, and that the source has no more. Names outlive objects: what is deleted is often there
/// again within seconds, so for a time what was accepted of it last stays in force.
#[derive(Clone, Debug)]
pub struct Absent {
    /// The content accepted last.
    pub accepted: Arc<Object>,
    /// The time at which that was accepted.
    pub accepted_at: Option<Millis>,
    /// The time until which it stays in force.
    pub until: Millis,
}

/// Every object, and the problems of documents that are no object.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Objects by identity.
    pub objects: BTreeMap<ObjectRef, WorldObject>,
    /// Objects that are gone, and count for a while; none of them is in `objects`.
    pub absent: BTreeMap<ObjectRef, Absent>,
    /// The time of this world.
    pub now: Millis,
    /// [`crate::Plan::last_ready`] of the world before; `None`: there was none, so that nobody knows.
    pub last_ready: Option<Arc<LastReady>>,
    /// The objects whose content the source does not hold, because their namespace has too much: they are an error, and
    /// nothing of them is in force.
    pub left_out: BTreeSet<ObjectRef>,
    /// Documents that name no object, duplicates, unreadable files.
    pub strays: Vec<Problem>,
    /// The objects are a cluster's: proxies are pods, and what an address reaches needs permission. `None`: standalone.
    pub cluster: Option<Cluster>,
    /// The holders of hostnames, as the last plan left them.
    pub holds: Arc<Holds>,
}

/// The facts of the cluster that the planner must know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The operator's own namespace: the fleet `default` in it is that of every namespace without one.
    pub operator_namespace: String,
    /// The namespaces where the operator may run fleets; `None`: every one.
    pub fleet_namespaces: Option<Arc<BTreeSet<String>>>,
    /// The operator's ServiceAccount, there: to whom rights are given.
    pub service_account: String,
    /// The namespaces whose Secrets can't be read, of those that something refers to.
    pub unreadable: BTreeMap<String, Unreadable>,
}

/// The reason why the Secrets of a namespace can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The operator has no right to.
    Denied,
    /// Secrets of more namespaces than this are referred to, and others were sooner.
    TooMany(usize),
}

impl Cluster {
    /// The message of a namespace whose Secrets can't be read, with what is to be done about it.
    pub(crate) fn unreadable(&self, namespace: &str) -> Option<String> {
        let Self { operator_namespace, service_account, .. } = self;
        Some(match self.unreadable.get(namespace)? {
            Unreadable::Denied => {
                let role = format!("{service_account}-certificates");
                format!(
                    "the operator may not read the Secrets of namespace {namespace}; whoever administers it permits that by: kubectl \
                     create role {role} --namespace={namespace} --verb=get,list,watch --resource=secrets && kubectl create \
                     rolebinding {role} --namespace={namespace} --role={role} \
                     --serviceaccount={operator_namespace}:{service_account}"
                )
            }
            Unreadable::TooMany(most) => format!(
                "Secrets of more than {most} namespaces are referred to, and others were sooner: keep them in fewer"
            ),
        })
    }

    /// Whether the operator may run a fleet there.
    pub fn runs_fleets_in(&self, namespace: &str) -> bool {
        self.fleet_namespaces.as_ref().is_none_or(|all| all.contains(namespace))
    }
}
