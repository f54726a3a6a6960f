//! `crds/yaml` holds what the types say.

use std::{collections::BTreeSet, env, fs, path::Path};

use crds::{Kind, Watch};
use serde_json::Value;

#[test]
fn yaml_is_fresh() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let mut stale = Vec::new();
    for (name, expect) in crds::definitions_yaml() {
        let path = dir.join(&name);
        if fs::read_to_string(&path).ok().as_deref() == Some(&expect) {
            continue;
        }
        if env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(&path, expect).unwrap();
        } else {
            stale.push(name);
        }
    }
    assert!(stale.is_empty(), "crds/yaml is stale: {stale:?}; run UPDATE=1 cargo test -p crds --test generated");
}

#[test]
fn nothing_else_is_there() {
    let names: Vec<_> = crds::definitions_yaml().into_iter().map(|(name, _)| name).collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    for entry in fs::read_dir(dir).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&file), "crds/yaml/{file} belongs to no kind: remove it");
    }
}

#[test]
fn small_enough_for_client_side_apply() {
    // `kubectl apply` keeps a copy in an annotation, of which Kubernetes allows 256 KiB together.
    for (name, yaml) in crds::definitions_yaml() {
        assert!(yaml.len() <= 200 * 1024, "{name} has {} bytes, above 200 KiB: shorten descriptions", yaml.len());
    }
}

/// What the table of kinds says is what the chart's ClusterRole allows; of our own group nothing else.
#[test]
fn the_chart_gives_the_rights() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/sluice/testdata/default.yaml");
    let (mut rights, mut definitions) = (BTreeSet::new(), BTreeSet::new());
    let chart: Vec<Value> = serde_yaml::from_multiple(&fs::read_to_string(path).unwrap()).unwrap();
    for rule in rules(chart) {
        let words = |key: &str| -> Vec<String> { serde_json::from_value(rule[key].clone()).unwrap_or_default() };
        for (resource, verb) in words("resources").iter().flat_map(|r| words("verbs").into_iter().map(move |v| (r, v)))
        {
            rights.extend(words("apiGroups").into_iter().map(|group| (group, resource.clone(), verb.clone())));
        }
        if words("resources") == ["customresourcedefinitions"] {
            definitions.extend(words("resourceNames"));
        }
    }
    let mut expect = BTreeSet::new();
    for info in Kind::ALL.map(Kind::info) {
        let right = |resource: String, verb: &str| (info.group().to_owned(), resource, verb.to_owned());
        if info.watch != Watch::ByReference {
            expect.extend(["list", "watch"].map(|verb| right(info.plural().to_owned(), verb)));
        }
        if info.has_status {
            expect.insert(right(format!("{}/status", info.plural()), "patch"));
        }
        let is_optional = matches!(info.watch, Watch::WhereDefined { .. });
        assert_eq!(definitions.contains(info.resource), is_optional, "{}", info.name);
    }
    let missing: Vec<_> = expect.difference(&rights).collect();
    assert!(missing.is_empty(), "charts/sluice/templates/rbac.yaml does not allow {missing:?}");
    // The operator makes the default fleet, and looks at it first.
    expect.insert((crds::GROUP.to_owned(), "gatewayfleets".to_owned(), "get".to_owned()));
    let more: Vec<_> = rights.iter().filter(|right| right.0 == crds::GROUP && !expect.contains(right)).collect();
    assert!(more.is_empty(), "charts/sluice/templates/rbac.yaml allows {more:?}, which nothing needs");
}

/// The rules of the operator's ClusterRole for all namespaces.
fn rules(chart: Vec<Value>) -> Vec<Value> {
    let is_role =
        |document: &Value| document["kind"] == "ClusterRole" && document["metadata"]["name"] == "sluice-operator";
    chart.into_iter().filter(is_role).flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default()).collect()
}
