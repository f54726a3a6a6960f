//! A bill of materials: every crate that is linked into a program, with version, licence and checksum, in CycloneDX's JSON. What is
//! needed only to build or to test is not in it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde_json::{Value, json};

/// Of one package of the workspace, from what `cargo metadata` says and the text of Cargo.lock. The same of the same.
pub(super) fn generate(metadata: &Value, lock: &str, package: &str) -> anyhow::Result<Value> {
    let packages: BTreeMap<&str, &Value> = list(&metadata["packages"]).map(|of| (text(&of["id"]), of)).collect();
    let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"]["nodes"]).map(|of| (text(&of["id"]), of)).collect();
    let is_ours = |of: &&&Value| of["name"] == package && of["source"].is_null();
    let root = packages.values().find(is_ours).with_context(|| format!("there is no package {package}"))?;
    let sums = checksums(lock);

    let (mut linked, mut next) = (BTreeSet::new(), vec![text(&root["id"])]);
    while let Some(id) = next.pop() {
        if linked.insert(id) {
            next.extend(nodes.get(id).into_iter().flat_map(|node| dependencies(node)));
        }
    }
    let reference = |id: &str| packages.get(id).map(|of| purl(of)).unwrap_or_default();
    let component = |id: &&str| {
        let of = packages.get(id).with_context(|| format!("{id} is resolved and not described"))?;
        let mut component = json!({
            "type": "library", "bom-ref": purl(of), "purl": purl(of), "name": of["name"], "version": of["version"],
        });
        if let Some(license) = of["license"].as_str() {
            component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
        }
        if let Some(sum) = sums.get(&(text(&of["name"]), text(&of["version"]))) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
        }
        anyhow::Ok(component)
    };
    let others: Vec<&str> = linked.iter().copied().filter(|id| *id != text(&root["id"])).collect();
    let mut main = component(&text(&root["id"]))?;
    main["type"] = json!("application");
    let depends = |id: &&str| {
        let on: BTreeSet<String> =
            nodes.get(id).into_iter().flat_map(|node| dependencies(node)).map(reference).collect();
        json!({"ref": reference(id), "dependsOn": on})
    };
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": main},
        "components": others.iter().map(component).collect::<anyhow::Result<Vec<_>>>()?,
        "dependencies": linked.iter().map(depends).collect::<Vec<_>>(),
    }))
}

/// What is linked: neither build scripts' nor tests' needs, nor other systems'.
fn dependencies(node: &Value) -> impl Iterator<Item = &str> {
    let is_linked = |dependency: &&Value| {
        list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null() && is_here(kind["target"].as_str()))
    };
    list(&node["deps"]).filter(is_linked).map(|dependency| text(&dependency["pkg"]))
}

/// Whether a dependency that is for some systems only is one of Linux's. In doubt it is: a bill may name too much.
fn is_here(target: Option<&str>) -> bool {
    let elsewhere = [
        "windows", "wasm", "macos", "apple", "ios", "android", "wasi", "uefi", "hermit", "redox", "solaris", "fuchsia",
    ];
    let is_elsewhere =
        |target: &str| !target.contains("not(") && elsewhere.iter().any(|system| target.contains(system));
    // `any(...)` may have Linux among others.
    target.is_none_or(|target| target.contains("linux") || target.contains("any(") || !is_elsewhere(target))
}

fn purl(of: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(&of["name"]), text(&of["version"]))
}

/// Checksums by name and version.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let mut sums = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let field = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
            line.map(|value| value.trim_end_matches('"'))
        };
        if let (Some(name), Some(version), Some(sum)) = (field("name"), field("version"), field("checksum")) {
            sums.insert((name, version), sum);
        }
    }
    sums
}

fn list(value: &Value) -> impl Iterator<Item = &Value> + Clone {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{files, shell};

    #[test]
    fn what_is_linked_is_named_with_licence_and_checksum() {
        let package = |name: &str, source: Value| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": source});
        let on = |name: &str, kind: Value, target: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind, "target": target}]});
        let registry = || json!("registry");
        let none = Value::Null;
        let metadata = json!({
            "packages": [
                package("proxy", none.clone()), package("a", registry()), package("b", registry()), package("build", registry()),
                package("test", registry()), package("win", registry()),
            ],
            "resolve": {"nodes": [
                {"id": "proxy", "deps": [
                    on("a", none.clone(), none.clone()), on("build", json!("build"), none.clone()), on("test", json!("dev"), none.clone()),
                    on("win", none.clone(), json!("cfg(windows)")),
                ]},
                {"id": "a", "deps": [on("b", none, json!("cfg(not(windows))"))]},
                {"id": "b", "deps": []},
            ]},
        });
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n";
        let bill = generate(&metadata, lock, "proxy").unwrap();
        let names: Vec<_> = list(&bill["components"]).map(|of| text(&of["name"])).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(bill["components"][0]["hashes"][0]["content"], "abc");
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["metadata"]["component"]["purl"], "pkg:cargo/proxy@1.0.0");
        let depends = list(&bill["dependencies"]).find(|of| of["ref"] == "pkg:cargo/a@1.0.0").unwrap();
        assert_eq!(depends["dependsOn"], json!(["pkg:cargo/b@1.0.0"]));
        assert!(generate(&metadata, lock, "other").is_err());
    }

    /// Of this very checkout: what comes from a registry has its checksum, and everything its licence.
    #[test]
    fn nothing_that_is_linked_lacks_its_checksum() {
        let metadata = shell::cargo(&["metadata", "--locked", "--format-version=1"]).read().unwrap();
        let metadata = serde_json::from_str(&metadata).unwrap();
        let lock = files::read(&shell::root().join("Cargo.lock")).unwrap();
        for (package, least) in [("operator", "kube"), ("proxy", "rustls")] {
            let bill = generate(&metadata, &lock, package).unwrap();
            let all: Vec<_> = list(&bill["components"]).collect();
            assert!(all.len() > 50 && all.iter().any(|of| of["name"] == least), "{package}: {}", all.len());
            for of in all {
                let ours = ["allocator", "crds", "snapshot", "planner", "limits", "jwt"]
                    .iter()
                    .any(|name| of["name"] == *name);
                assert!(ours || of["hashes"].is_array(), "{of}");
                assert!(of["licenses"].is_array(), "{of}");
            }
        }
    }
}
