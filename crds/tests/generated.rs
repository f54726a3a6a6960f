//! `crds/yaml` holds what the types say.

use std::{env, fs, path::Path};

#[test]
fn yaml_is_fresh() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let mut stale = Vec::new();
    for (name, expect) in crds::definitions_yaml() {
        let path = dir.join(name);
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
    let names: Vec<_> = crds::definitions_yaml().into_iter().map(|(name, _)| name.to_owned()).collect();
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
