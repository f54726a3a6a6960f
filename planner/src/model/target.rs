//! Targets of policies: which objects of its own namespace a policy is about, whatever it says of them.

use crds::common::{PolicyTargetRef, TargetKind};
use serde_json::Value;

/// Most targets of a policy, as its schema has it.
const MAX_TARGETS: usize = 16;

/// A target of a policy, in the policy's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    pub(crate) name: String,
    /// A rule's name.
    pub(crate) rule: Option<String>,
}

/// The targets of a decoded policy.
pub(super) fn of(refs: &[PolicyTargetRef]) -> Vec<Target> {
    let target = |t: &PolicyTargetRef| Target { kind: t.kind, name: t.name.clone(), rule: t.section_name.clone() };
    refs.iter().map(target).collect()
}

/// The targets of a document that is no valid policy: each that can be read. One whose `sectionName` can't is taken as
/// the whole route, since the policy was meant to guard at least a part of it.
pub(super) fn of_document(document: &Value) -> Vec<Target> {
    let refs = document.pointer("/spec/targetRefs").and_then(Value::as_array);
    let target = |value: &Value| {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let kind = match text("kind")? {
            "ApiRoute" => TargetKind::ApiRoute,
            "GatewayFleet" => TargetKind::GatewayFleet,
            _ => return None,
        };
        Some(Target { kind, name: text("name")?.to_owned(), rule: text("sectionName").map(str::to_owned) })
    };
    refs.into_iter().flatten().take(MAX_TARGETS).filter_map(target).collect()
}
