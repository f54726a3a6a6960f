//! Values that look like YAML, like templates, or like anything but what they are: whatever string a value is, the chart
//! gives the same objects with that very string in its place, or helm says which value it is that can't be.
//!
//! A value is rendered once with a harmless string and once with each hostile one. The two results may differ where the harmless
//! string stood, and in nothing else.

use std::{fmt, io::Write as _, path::Path};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::shell::Tool;

/// Stands in the objects wherever the value does, and nowhere else.
const HARMLESS: &str = "harmless";

/// Hostile values. The first has everything that YAML and templates mind.
const HOSTILE: [&str; 21] = [
    "x\"'\n: {{ .Release.Name }} # *a &b !!c\n---\nkind: ClusterRole\nmetadata: {name: evil}\n- |\n\t%TAG\\",
    "true",
    "null",
    "~",
    "1e3",
    "0x1f",
    "1_000",
    " x ",
    "a: b",
    "a #b",
    "- a",
    "? a",
    "*a",
    "&a b",
    "!!binary a",
    "{{ fail \"no\" }}",
    "\n",
    "a\n  b: c\n",
    "\u{a0}é😀",
    "[",
    "x', 'y') || true || ('",
];

/// A value: where it is, and what is there beside it. `@` stands for the string.
struct Place {
    path: &'static str,
    content: fn(&str) -> Value,
}

macro_rules! places {
    ($($path:literal: $content:expr;)*) => { &[$(Place { path: $path, content: $content }),*] };
}

/// Every value that is or has a string, by its path; the last is the name of a key.
const PLACES: &[Place] = places! {
    "nameOverride": |s| json!(s);
    "fullnameOverride": |s| json!(s);
    "commonLabels": |s| json!({"team": s});
    "fleet.name": |s| json!(s);
    "fleet.labels": |s| json!({"tier": s});
    "fleet.annotations": |s| json!({"note": s});
    "fleet.spec.service.annotations": |s| json!({"note": s});
    "fleet.spec.service.labels": |s| json!({"note": s});
    "fleet.spec.service.type": |s| json!(s);
    "fleet.spec.template.annotations": |s| json!({"note": s});
    "fleet.spec.template.nodeSelector": |s| json!({"note": s});
    "fleet.spec.template.priorityClassName": |s| json!(s);
    "fleet.spec.listeners": |s| json!([{"name": s, "protocol": "HTTP", "port": 80}]);
    "fleet.spec.scaling.targets": |s| json!([{"type": "RequestRate", "averageValue": s}]);
    "fleetNamespaces": |s| json!([s]);
    "rbac.scope": |s| json!(s);
    "proxy.image.repository": |s| json!(s);
    "proxy.image.tag": |s| json!(s);
    "proxy.image.digest": |s| json!(s);
    "proxy.image.pullPolicy": |s| json!(s);
    "proxy.networkPolicy.metricsFrom": |s| json!([{"podSelector": {"matchLabels": {"app": s}}}]);
    "imagePullSecrets": |s| json!([s]);
    "operator.image.repository": |s| json!(s);
    "operator.image.tag": |s| json!(s);
    "operator.image.digest": |s| json!(s);
    "operator.image.pullPolicy": |s| json!(s);
    "operator.log": |s| json!(s);
    "operator.extraArgs": |s| json!([s]);
    "operator.extraEnv": |s| json!([{"name": "A", "value": s}]);
    "operator.resources": |s| json!({"limits": {"memory": s}});
    "operator.priorityClassName": |s| json!(s);
    "operator.nodeSelector": |s| json!({"disk": s});
    "operator.tolerations": |s| json!([{"key": s, "operator": "Exists"}]);
    "operator.affinity": |s| json!({"podAntiAffinity": {"note": s}});
    "operator.topologySpreadConstraints": |s| json!([{"topologyKey": s}]);
    "operator.podAnnotations": |s| json!({"note": s});
    "operator.podLabels": |s| json!({"ring": s});
    "operator.networkPolicy.metricsFrom": |s| json!([{"podSelector": {"matchLabels": {"app": s}}}]);
    "serviceAccount.name": |s| json!(s);
    "serviceAccount.annotations": |s| json!({"role": s});
    "monitoring.serviceMonitor": |s| json!({"enabled": true, "labels": {"release": s}});
    "monitoring.serviceMonitor.interval": |s| json!(s);
    "monitoring.podMonitor": |s| json!({"enabled": true, "labels": {"release": s}});
    "monitoring.podMonitor.interval": |s| json!(s);
    "test.timeout": |s| json!(s);
    "operator.podAnnotations (keys)": |s| json!({s: "x"});
};

/// Renders every value with hostile strings: with the worst alone, or with each.
pub(crate) fn check(helm: &Path, long: bool) -> anyhow::Result<String> {
    let strings = if long { &HOSTILE[..] } else { &HOSTILE[..1] };
    let (mut same, mut refused) = (0, 0);
    for place in PLACES {
        let harmless = render(helm, place, HARMLESS)?;
        for hostile in strings {
            let wrong = || format!("{} = {hostile:?}", place.path);
            match (&harmless, render(helm, place, hostile)?) {
                (Rendered::Objects(expect), Rendered::Objects(got)) => {
                    compare(expect, &got, hostile).with_context(wrong)?;
                    same += 1;
                }
                (Rendered::Refused(_), Rendered::Objects(_)) => {
                    anyhow::bail!("{}: taken, and {HARMLESS:?} is not", wrong());
                }
                (_, Rendered::Refused(why)) => {
                    // helm's words for a value that its schema refuses, or the chart's own.
                    let said =
                        ["values don't meet the specifications of the schema", "execution error at (sluice/templates/"];
                    let is_clear = said.iter().any(|said| why.contains(said));
                    anyhow::ensure!(
                        is_clear,
                        "{}: refused, and neither by the schema nor by a rule of the chart: {why}",
                        wrong()
                    );
                    refused += 1;
                }
            }
        }
    }
    Ok(format!(
        "{} values with {} hostile strings: {same} rendered the same, {refused} refused",
        PLACES.len(),
        strings.len()
    ))
}

enum Rendered {
    Objects(Vec<Value>),
    Refused(String),
}

fn render(helm: &Path, place: &Place, string: &str) -> anyhow::Result<Rendered> {
    let path = place.path.split(' ').next().unwrap_or_default();
    let mut values = (place.content)(string);
    for key in path.rsplit('.') {
        values = json!({key: values});
    }
    values["crds"] = json!({"enabled": false});
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(values.to_string().as_bytes())?;
    let template = ["template", "sluice", "charts/sluice", "--namespace", "sluice-system", "--values"];
    let (rendered, given, said) = Tool::new(helm).args(template).args([file.path()]).outcome()?;
    if !rendered {
        return Ok(Rendered::Refused(said));
    }
    let objects =
        serde_yaml::from_multiple(&given).with_context(|| format!("{} = {string:?} gives no YAML", place.path))?;
    Ok(Rendered::Objects(objects))
}

/// The differences, but for strings that only have the hostile one in place of the harmless one.
fn compare(expect: &[Value], got: &[Value], hostile: &str) -> anyhow::Result<()> {
    anyhow::ensure!(expect.len() == got.len(), "{} objects instead of {}", got.len(), expect.len());
    for (expect, got) in expect.iter().zip(got) {
        same(expect, got, hostile, &mut At(vec![]))?;
    }
    Ok(())
}

fn same(expect: &Value, got: &Value, hostile: &str, at: &mut At) -> anyhow::Result<()> {
    match (expect, got) {
        (Value::Object(expect), Value::Object(got)) => {
            let replaced = |key: &String| key.replace(HARMLESS, hostile);
            let mut keys: Vec<_> = expect.keys().map(replaced).collect();
            keys.sort();
            let mut found: Vec<_> = got.keys().cloned().collect();
            found.sort();
            anyhow::ensure!(keys == found, "{at}: {found:?} instead of {keys:?}");
            for (key, value) in expect {
                at.0.push(key.clone());
                same(value, &got[&replaced(key)], hostile, at)?;
                at.0.pop();
            }
        }
        (Value::Array(expect), Value::Array(got)) => {
            anyhow::ensure!(expect.len() == got.len(), "{at}: {} items instead of {}", got.len(), expect.len());
            for (i, (expect, got)) in expect.iter().zip(got).enumerate() {
                at.0.push(i.to_string());
                same(expect, got, hostile, at)?;
                at.0.pop();
            }
        }
        // A manifest within an object.
        (Value::String(expect), Value::String(got)) if expect.starts_with("apiVersion:") => {
            let parse = |text: &str| serde_yaml::from_multiple::<Value>(text).with_context(|| at.to_string());
            compare(&parse(expect)?, &parse(got)?, hostile)?;
        }
        // JSON within an argument.
        (Value::String(expect), Value::String(got)) if expect.contains("=[{") => {
            let parse = |text: &str| {
                let (option, json) = text.split_once('=').with_context(|| at.to_string())?;
                anyhow::Ok(json!([option, serde_json::from_str::<Value>(json)?]))
            };
            same(&parse(expect)?, &parse(got)?, hostile, at)?;
        }
        (Value::String(expect), Value::String(got)) => {
            let expect = expect.replace(HARMLESS, hostile);
            anyhow::ensure!(expect == *got, "{at}: {got:?} instead of {expect:?}");
        }
        _ => anyhow::ensure!(expect == got, "{at}: {got} instead of {expect}"),
    }
    Ok(())
}

/// A place in an object.
struct At(Vec<String>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

#[cfg(test)]
mod tests {
    use devcluster::files;

    use super::*;
    use crate::chart::folder;

    /// A value that is added is hostile, too.
    #[test]
    fn every_value_is_tried() {
        let schema: Value =
            serde_json::from_str(&files::read(&folder().join("values.schema.in.json")).unwrap()).unwrap();
        let mut untried = vec![];
        strings(&schema, &schema["properties"], &mut vec![], &mut untried);
        let is_of = |path: &str, place: &str| path.starts_with(place) || place.starts_with(path);
        let is_tried = |path: &String| PLACES.iter().any(|place| is_of(path, place.path.split(' ').next().unwrap()));
        untried.retain(|path| !is_tried(path));
        assert_eq!(untried, [""; 0], "values that are or have strings, and are not rendered with hostile ones");
    }

    fn strings(whole: &Value, properties: &Value, path: &mut Vec<String>, found: &mut Vec<String>) {
        for (name, schema) in properties.as_object().unwrap() {
            let reference = schema["$ref"].as_str().map(|reference| reference.trim_start_matches('#'));
            let schema = reference.map_or(schema, |reference| whole.pointer(reference).unwrap());
            path.push(name.clone());
            if schema["properties"].is_object() && *path != ["operator", "resources"] {
                strings(whole, &schema["properties"], path, found);
            } else if !["boolean", "integer"].iter().any(|plain| schema["type"] == *plain) && name != "global" {
                found.push(path.join("."));
            }
            path.pop();
        }
    }

    #[test]
    fn another_structure_is_seen() {
        let expect = [json!({"a": ["harmless"], "b": 1})];
        let check = |got: Value| compare(&expect, &[got], "x: y").map_err(|error| error.to_string());
        assert_eq!(check(json!({"a": ["x: y"], "b": 1})), Ok(()));
        assert_eq!(check(json!({"a": [{"x": "y"}], "b": 1})), Err("a.0: {\"x\":\"y\"} instead of \"harmless\"".into()));
        assert_eq!(
            check(json!({"a": ["x: y"], "b": 1, "x": "y"})).unwrap_err(),
            ": [\"a\", \"b\", \"x\"] instead of [\"a\", \"b\"]"
        );
        assert!(compare(&expect, &[], "").is_err());
        let manifest = [json!({"text": "apiVersion: v1\nname: harmless"})];
        compare(&manifest, &[json!({"text": "apiVersion: v1\nname: 'x: y'"})], "x: y").unwrap();
        assert!(compare(&manifest, &[json!({"text": "apiVersion: v1\nname: true"})], "true").is_err());
    }
}
