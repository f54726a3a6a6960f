//! Where objects come from. A source watches, admits each object by itself, and says what there is as a whole; it never
//! says what changed. The manifest directory is one, an API server's watches are the other.

pub mod budget;
pub mod directory;
mod document;
mod identity;
pub mod in_force;
pub mod kube;
mod latest;
pub mod scan;
mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::{Object, Violation};
use planner::{Cluster, ObjectRef, Origin, Problem};
use serde_json::Value;
use snapshot::Hash;

/// Everything a source has at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Objects by identity.
    pub objects: BTreeMap<ObjectRef, SourceObject>,
    /// Objects of which only the name is held: their namespace has too much ([`budget`]).
    pub left_out: BTreeSet<ObjectRef>,
    /// Problems of documents that are no object.
    pub document_problems: Vec<Problem>,
    /// The objects are a cluster's. `None`: of a folder.
    pub cluster: Option<Cluster>,
    /// Counts what an API server's watches sent, so that the loop can say how far it is.
    pub number: u64,
}

/// An object as a source has it.
#[derive(Clone, Debug)]
pub struct SourceObject {
    /// Admitted, or why not.
    pub current: Result<Arc<Object>, Vec<Violation>>,
    /// The document as written, while `current` is an error; `None` also when it does not even parse.
    pub raw: Option<Arc<Value>>,
    /// Counts the changes of its content.
    pub generation: i64,
    /// Hash of its content.
    pub content: Hash,
    /// Where it stands; `None`: in an API server.
    pub origin: Option<Origin>,
    /// When it was created, and which of those of its name it is: what only an API server knows.
    pub creation: Option<CreationMeta>,
}

/// The identity of one of several objects of a name: what an API server says of its creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreationMeta {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.creationTimestamp`.
    pub created: jiff::Timestamp,
}

/// Generation and content of each object as last seen, so that counting goes on after a restart.
pub type Generations = BTreeMap<ObjectRef, (i64, Hash)>;

pub use in_force::{FollowInForce, InForce};
pub use latest::Latest;

/// Reasons of problems that a source finds.
pub mod reason {
    /// An object that stands in two documents.
    pub const DUPLICATE: &str = "Duplicate";
    /// No YAML.
    pub const INVALID_YAML: &str = "InvalidYAML";
    /// YAML that names no object of a known kind.
    pub const NOT_AN_OBJECT: &str = "NotAnObject";
    /// A file or folder that can't be read.
    pub const UNREADABLE: &str = "Unreadable";
}
