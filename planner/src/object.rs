//! Identities of objects, and the places of their documents.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crds::Kind;
use serde::{Deserialize, Serialize};
use snapshot::Key;

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

/// The place of a document, for messages. Objects from an API server have none.
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
