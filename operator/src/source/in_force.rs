//! The contents in force, as the loop tells them to a source that reads only what is referred to.

use std::collections::{BTreeMap, BTreeSet};

use planner::{
    ObjectRef,
    references::{self, SecretRef},
};
use tokio::sync::watch;

use crate::state::objects::ObjectRecord;

/// The references of the contents in force, as the loop has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// Number of the world that it planned last.
    pub world: u64,
    /// Their references to Secrets.
    pub secrets: BTreeSet<SecretRef>,
    /// The objects of which another content is in force than what they are now: both are held.
    pub stale: BTreeSet<ObjectRef>,
}

/// A receiver of [`InForce`]; `None`: the contents in force are not known yet.
pub type FollowInForce = watch::Receiver<Option<InForce>>;

/// The references of these contents to Secrets, as far as they were accepted.
pub fn secrets(objects: &BTreeMap<ObjectRef, ObjectRecord>) -> BTreeSet<SecretRef> {
    let accepted = objects.iter().filter_map(|(id, known)| Some((id, known.accepted.as_deref()?)));
    accepted.flat_map(|(id, content)| references::secrets(id, content)).collect()
}
