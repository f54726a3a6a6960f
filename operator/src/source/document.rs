//! A document of a manifest file: parsed, identified, admitted.

use std::{collections::BTreeMap, sync::Arc};

use crds::{Object, Role, Violation};
use planner::{ObjectRef, Origin, Problem, Severity};
use serde_json::Value;
use snapshot::Hash;

use super::{
    budget, identity, reason,
    yaml::{self, Chunk},
};

/// Largest document, in bytes: the API server takes no request that is larger.
const MAX_DOCUMENT_BYTES: usize = 3 << 20;
/// The weight of a line that is remembered.
const LINE_BYTES: u64 = 128;

/// A document, read.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// Hash of its text: while it stays, nothing is parsed or admitted again.
    pub(crate) text: Hash,
    /// Line within the file where its text begins.
    pub(crate) line: u32,
    /// About what it takes of memory.
    pub(crate) weight: u64,
    pub(crate) content: Content,
}

/// The content of a document.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Object {
        id: ObjectRef,
        current: Result<Arc<Object>, Vec<Violation>>,
        /// A RatePolicy as written, while `current` is an error.
        raw: Option<Arc<Value>>,
        /// Hash of the value; of the text where that has none.
        hash: Hash,
        origin: Origin,
        /// Only its name is held.
        left_out: bool,
    },
    Problems(Vec<Problem>),
}

/// Reads a document.
pub(crate) fn read(file: &Arc<str>, chunk: Chunk<'_>) -> Document {
    let text = Hash::of(chunk.text.as_bytes());
    let origin = |lines: BTreeMap<String, u32>| Origin {
        file: Arc::clone(file),
        line: chunk.first_line(),
        lines: Arc::new(lines.into_iter().map(|(path, line)| (path, line + chunk.line - 1)).collect()),
    };
    let broken = |origin: Origin, message: String| {
        let violations = vec![Violation { path: String::new(), message }];
        match identity::of_text(chunk.text) {
            Some(id) => {
                Content::Object { id, current: Err(violations), raw: None, hash: text, origin, left_out: false }
            }
            None => Content::Problems(document_problems(&origin, reason::INVALID_YAML, violations)),
        }
    };
    let (content, weight) = if chunk.text.len() > MAX_DOCUMENT_BYTES {
        let message = format!("larger than {} MiB, which no API server takes: split it", MAX_DOCUMENT_BYTES >> 20);
        (broken(origin(BTreeMap::new()), message), 0)
    } else {
        match yaml::parse(chunk.text) {
            Ok(parsed) => {
                let weight = budget::weight(&parsed.value) + LINE_BYTES * parsed.lines.len() as u64;
                (admit(parsed.value, origin(parsed.lines)), weight)
            }
            Err(error) => {
                // The whole document is at fault: its empty path gets the line of the error.
                let origin = origin(BTreeMap::from([(String::new(), error.line)]));
                (broken(origin, format!("not YAML: {}", error.message)), 0)
            }
        }
    };
    Document { text, line: chunk.line, weight, content }
}

fn admit(value: Value, origin: Origin) -> Content {
    let id = identity::of_value(&value);
    let hash = Hash::of(value.to_string().as_bytes());
    let result = crds::admit(value.clone());
    match (id, result) {
        (Some(id), result) => {
            // Of others nothing is read from it, and a Secret would be seen wherever this is printed.
            let raw = (result.is_err() && id.kind.info().role == Role::Guard).then(|| Arc::new(value));
            Content::Object { id, current: result.map(Arc::new), raw, hash, origin, left_out: false }
        }
        (None, Err(violations)) => Content::Problems(document_problems(&origin, reason::NOT_AN_OBJECT, violations)),
        // Admission wants a kind and a name, so there is an identity; should it ever be lax, the document is refused.
        (None, Ok(_)) => {
            let message = "metadata.name is missing or no name".into();
            Content::Problems(document_problems(
                &origin,
                reason::NOT_AN_OBJECT,
                vec![Violation { path: "metadata.name".into(), message }],
            ))
        }
    }
}

fn document_problems(origin: &Origin, reason: &'static str, violations: Vec<Violation>) -> Vec<Problem> {
    let problem = |violation: Violation| Problem {
        object: None,
        origin: Some(origin.clone()),
        field: violation.path,
        reason,
        message: violation.message,
        severity: Severity::Rejected,
    };
    violations.into_iter().map(problem).collect()
}

impl Document {
    /// The object that it is.
    pub(crate) fn id(&self) -> Option<&ObjectRef> {
        match &self.content {
            Content::Object { id, .. } => Some(id),
            Content::Problems(_) => None,
        }
    }

    /// Whether only its name is held, or not even that.
    pub(crate) fn is_left_out(&self) -> bool {
        match &self.content {
            Content::Object { left_out, .. } => *left_out,
            Content::Problems(problems) => problems.is_empty(),
        }
    }

    /// Leaves of it the name of its object, and of a policy what it guards.
    pub(crate) fn leave_out(&mut self, message: String) {
        let Content::Object { current, raw, origin, left_out, .. } = &mut self.content else { return };
        *raw = budget::targets_of(current.as_deref().ok(), raw.as_deref()).map(Arc::new);
        *current = Err(vec![Violation { path: String::new(), message }]);
        origin.lines = Arc::default();
        *left_out = true;
    }

    /// Leaves nothing of it.
    pub(crate) fn forget(&mut self) {
        self.content = Content::Problems(vec![]);
    }

    /// The document where its text begins at another line.
    pub(crate) fn moved_to(&self, line: u32) -> Document {
        let mut moved = self.clone();
        if line != self.line {
            let shift = |origin: &mut Origin| {
                let at = |n: u32| (n + line).saturating_sub(self.line);
                origin.line = at(origin.line);
                origin.lines = Arc::new(origin.lines.iter().map(|(path, n)| (path.clone(), at(*n))).collect());
            };
            moved.line = line;
            match &mut moved.content {
                Content::Object { origin, .. } => shift(origin),
                Content::Problems(problems) => problems.iter_mut().filter_map(|p| p.origin.as_mut()).for_each(shift),
            }
        }
        moved
    }
}
