//! What the tests of admission share.
#![allow(clippy::unwrap_used, dead_code)] // helpers of tests, of which not every file uses all

use std::{
    fs,
    path::{Path, PathBuf},
};

use crds::Object;
use serde_json::Value;

/// The manifests of testdata, in order.
pub(crate) fn inputs() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".in.yaml"))
        .collect();
    paths.sort();
    paths
}

/// An object as the API server would give it back.
pub(crate) fn json(object: &Object) -> Value {
    serde_json::to_value(crds::admit::Manifest(object)).unwrap()
}
