//! Which object a document is about, also when it can't be parsed: then it counts as that object being broken, not as
//! that object being deleted.

use planner::{Kind, ObjectRef};
use serde_json::Value;

/// The identity within a parsed document. A kind of ours counts whatever its `apiVersion` says, since that may be what
/// is wrong; `Service` and the like exist in other groups too.
pub(crate) fn of_value(value: &Value) -> Option<ObjectRef> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let metadata = value.get("metadata")?;
    let namespace = match metadata.get("namespace") {
        None | Some(Value::Null) => None,
        Some(namespace) => Some(namespace.as_str()?.to_owned()),
    };
    let api = text(value, "apiVersion");
    identity(api.as_deref(), &text(value, "kind")?, namespace, text(metadata, "name")?)
}

fn identity(api: Option<&str>, kind: &str, namespace: Option<String>, name: String) -> Option<ObjectRef> {
    let kind = Kind::named(kind)?;
    if !kind.is_ours() && !api.is_some_and(|api| kind.api_versions().contains(&api)) {
        return None;
    }
    let namespace = match kind.is_namespaced() {
        true => namespace.filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into()),
        false => String::new(),
    };
    let fits = |name: &str| !name.is_empty() && name.len() <= 253;
    (fits(&name) && (fits(&namespace) || !kind.is_namespaced())).then_some(ObjectRef { kind, namespace, name })
}

/// The identity in text that does not parse: read off the lines `apiVersion:`, `kind:` and those within `metadata:`.
pub(crate) fn of_text(text: &str) -> Option<ObjectRef> {
    let lines: Vec<Line<'_>> = text.lines().filter_map(Line::new).collect();
    let top = lines.iter().find(|line| matches!(line.key, "apiVersion" | "kind" | "metadata"))?.indent;
    let at_top = |key| lines.iter().find(|line| line.indent == top && line.key == key);
    let value = |line: &Line<'_>| scalar(line.value);
    let kind = value(at_top("kind")?)?;
    let api = at_top("apiVersion").and_then(value);
    let start = lines.iter().position(|line| line.indent == top && line.key == "metadata")?;
    let within: Vec<Line<'_>> = match lines[start].value {
        "" | "{" => lines[start + 1..].iter().take_while(|line| line.indent > top).copied().collect(),
        inline => inline.split([',', '{', '}']).filter_map(Line::new).map(|line| Line { indent: 0, ..line }).collect(),
    };
    let indent = within.first()?.indent;
    let meta = |key| within.iter().find(|line| line.indent == indent && line.key == key).and_then(value);
    identity(api.as_deref(), &kind, meta("namespace"), meta("name")?)
}

/// `key: value` of a line, in block style or as JSON.
#[derive(Clone, Copy)]
struct Line<'a> {
    indent: usize,
    key: &'a str,
    value: &'a str,
}

impl<'a> Line<'a> {
    fn new(line: &'a str) -> Option<Self> {
        let content = line.trim_start();
        let (key, value) = content.split_once(':')?;
        let key = key.trim().trim_matches(['"', '\'']);
        let word = !key.is_empty() && key.len() < 64 && key.chars().all(|c| c.is_ascii_alphanumeric());
        word.then_some(Self { indent: line.len() - content.len(), key, value: value.trim() })
    }
}

/// A plain or quoted scalar, without the comment or comma behind it.
fn scalar(value: &str) -> Option<String> {
    let value = value.split(" #").next()?.trim().trim_end_matches([',', '}']).trim();
    let value = value.trim_matches(['"', '\'']);
    let word = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "-._/".contains(c));
    word.then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<&str>) {
        assert_eq!(of_text(text).map(|id| id.to_string()).as_deref(), expect, "{text}");
    }

    #[test]
    fn broken_text_still_names_its_object() {
        check(
            "# x\napiVersion: sluice.dev/v1alpha1\nkind: ApiRoute # y\nmetadata:\n  name: 'a'\n  namespace: b\nspec: [",
            Some("ApiRoute b/a"),
        );
        check("kind: ApiRoute\nmetadata: {name: a, namespace: b}\nspec:\n\t- x", Some("ApiRoute b/a"));
        check(
            "metadata:\n  labels:\n    name: no\n  name: a\nspec: {}\nkind: RatePolicy\n",
            Some("RatePolicy default/a"),
        );
        check(
            "{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"Secret\",\n  \"metadata\": {\n    \"name\": \"a\"\n  },\n",
            Some("Secret default/a"),
        );
        check("kind: Secret\nmetadata:\n  name: a\n", None); // apiVersion could be anything
        check("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\nspec: [", Some("Namespace a"));
        for version in ["v1", "v1beta1"] {
            let text = format!(
                "apiVersion: gateway.networking.k8s.io/{version}\nkind: ReferenceGrant\nmetadata: {{name: a, namespace: b}}\nspec: ["
            );
            check(&text, Some("ReferenceGrant b/a"));
        }
        check("kind: ApiRoute\nmetadata:\nspec:\n  name: a\n", None);
        check("kind: ApiRoute\nspec:\n  metadata:\n    name: a\n", None);
        check("kind: Pod\nmetadata:\n  name: a\n", None);
        check("kind: ApiRoute\nmetadata:\n  name: ../../x y\n", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,80}", rest in "(kind: ApiRoute\n|metadata:| *name: a\n|[{},\n\"é]){0,9}") {
            let _ = of_text(&text);
            let _ = of_text(&rest);
        }
    }
}
