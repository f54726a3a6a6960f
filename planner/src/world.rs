//! What the sources know: every object, as it stands and as it was last accepted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

pub use crds::Kind;
use crds::{Object, Violation};
use serde::{Deserialize, Serialize};
use snapshot::Key;

use crate::{LastReady, Millis, Problem, holds::Holds};

/// An object's identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a Namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectRef {
    /// The key of what it is compiled to.
    pub(crate) fn key(&self, kind: snapshot::Kind) -> Key {
        Key::of_object(kind, self.kind.name(), &self.namespace, &self.name)
    }

    /// `namespace/name`; of a Namespace its name.
    pub(crate) fn path(&self) -> String {
        match self.kind.is_namespaced() {
            true => format!("{}/{}", self.namespace, self.name),
            false => self.name.clone(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.path())
    }
}

/// A GatewayFleet's identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FleetRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl From<&ObjectRef> for FleetRef {
    fn from(object: &ObjectRef) -> Self {
        Self { namespace: object.namespace.clone(), name: object.name.clone() }
    }
}

impl fmt::Display for FleetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where a document stands: for messages. Objects from an API server have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file, relative to the manifest directory.
    pub file: Arc<str>,
    /// The document's first line, from 1.
    pub line: u32,
    /// Line of each field path (`spec.rules[0].matches[0].path.value`) within the file.
    pub lines: Arc<BTreeMap<String, u32>>,
}

impl Origin {
    /// The line of a field; of the nearest enclosing one when the field itself is absent.
    pub fn line_of(&self, field: &str) -> u32 {
        let mut path = field;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.line,
            }
        }
    }
}

/// One object.
#[derive(Clone, Debug)]
pub struct WorldObject {
    /// What the source has now: admitted (`crds::admit`), or why not.
    pub current: Result<Arc<Object>, Vec<Violation>>,
    /// The document of a policy that guards as it was written, kept only while `current` is an error: the targets of a policy that
    /// was never valid are read from it, so that they answer 500 instead of standing open. Of a Secret it is not kept:
    /// what prints a world would show it.
    pub raw: Option<Arc<serde_json::Value>>,
    /// The content that [`crate::Plan::accepted`] last named; in force while `current` can't be used.
    pub accepted: Option<Arc<Object>>,
    /// When that was accepted, as far as it is known: of what others refer to.
    pub accepted_at: Option<Millis>,
    /// `metadata.generation`; standalone: counted by the source, one more for each change of content.
    pub generation: i64,
    /// When the source first had it: its age, where `metadata.creationTimestamp` does not say. The same in every world;
    /// `None` counts as the oldest.
    pub created: Option<Millis>,
    /// Where it stands.
    pub origin: Option<Origin>,
}

/// An object that others refer to, and that the source has no more. Names outlive objects: what is deleted is often there
/// again within seconds, so for a time what was accepted of it last stays in force.
#[derive(Clone, Debug)]
pub struct Absent {
    /// The content accepted last.
    pub accepted: Arc<Object>,
    /// When that was accepted.
    pub accepted_at: Option<Millis>,
    /// Until when it stays in force.
    pub until: Millis,
}

/// Every object, and the problems of documents that are no object.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Objects by identity.
    pub objects: BTreeMap<ObjectRef, WorldObject>,
    /// Objects that are gone, and count for a while; none of them is in `objects`.
    pub absent: BTreeMap<ObjectRef, Absent>,
    /// When this is.
    pub now: Millis,
    /// [`crate::Plan::last_ready`] of the world before; `None`: there was none, so that nobody knows.
    pub last_ready: Option<Arc<LastReady>>,
    /// Those of them whose content the source does not hold, because their namespace has too much: they are an error, and
    /// nothing of them is in force.
    pub left_out: BTreeSet<ObjectRef>,
    /// Documents that name no object, duplicates, unreadable files.
    pub strays: Vec<Problem>,
    /// The objects are a cluster's: proxies are pods, and what an address reaches needs permission. `None`: standalone.
    pub cluster: Option<Cluster>,
    /// Who had which hostname, as the last plan left it.
    pub holds: Arc<Holds>,
}

/// What the planner must know of the cluster.
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

/// Why the Secrets of a namespace can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The operator has no right to.
    Denied,
    /// Secrets of more namespaces than this are referred to, and others were sooner.
    TooMany(usize),
}

impl Cluster {
    /// Why the Secrets of a namespace can't be read, if they can't, and what is to be done about it.
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
