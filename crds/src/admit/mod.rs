//! The API server's verdict on a document, computed locally, in the API server's order and by the same rules:
//!
//! ```text
//!  kind known? ─► unknown fields, nulls, defaults ─► metadata ─► schema ─► lists ─► CEL ─► decoded
//!  kind.rs        prepare.rs                         metadata.rs structural.rs lists.rs  cel.rs  object.rs
//! ```
//!
//! The custom resources are held to the very schemas of [`crate::definitions()`]; Service, EndpointSlice, Secret and
//! Namespace to the schemas of their types and the checks of core.rs. Unlike the API server, which stops at the first stage that
//! finds something, this goes on as far as the finds of later stages mean something.

mod cel;
mod core;
mod kind;
mod lists;
mod metadata;
mod object;
mod prepare;
mod rules;
mod structural;
mod violations;

use serde_json::{Value, json};

pub use object::{Manifest, Object};
pub use violations::Violation;

pub use rules::Rules;
use violations::Violations;

use crate::Kind;

/// Admits one document, or says everything that is wrong with it (at most 20 things).
///
/// A `status` in it is ignored, as the API server does with a status that comes with a spec; but a Node's, where its
/// addresses stand.
pub fn admit(value: Value) -> Result<Object, Vec<Violation>> {
    let kind = kind::of(&value)?;
    let value = checked(kind, kind::rules(kind), value)?;
    object::decode(kind, value)
}

/// The outcome of [`admit`] by other rules than the kind's own: for tests of what each part of a schema is there for.
pub fn admit_by(rules: &Rules, value: Value) -> Result<(), Vec<Violation>> {
    let kind = kind::of(&value)?;
    checked(kind, rules, value).map(drop)
}

/// The schema that [`admit`] holds a kind to.
pub fn schema(kind: Kind) -> Value {
    rules::schema(kind)
}

/// The value with its defaults.
fn checked(kind: Kind, rules: &Rules, mut value: Value) -> Result<Value, Vec<Violation>> {
    let mut found = Violations::new(kind);

    if let Value::Object(document) = &mut value {
        if kind != Kind::Node {
            document.remove("status");
        }
        if let Some(Value::Object(metadata)) = document.get_mut("metadata") {
            metadata.remove("managedFields"); // the API server's own books
            if metadata.get("namespace").is_none_or(|namespace| namespace.is_null() || namespace == "") {
                match kind.is_namespaced() {
                    true => metadata.insert("namespace".into(), json!("default")),
                    false => metadata.remove("namespace"),
                };
            }
        }
    }
    prepare::prepare(&rules.schema, &mut value, &mut found);
    metadata::check(&value, &mut found);
    structural::check(rules, &value, &mut found);
    lists::check(&rules.schema, &value, &mut found);
    cel::check(&rules.cel, &value, &mut found);
    core::check(kind, &value, &mut found);

    found.into_result()?;
    Ok(value)
}
