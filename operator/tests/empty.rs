//! `plan` on a folder without any object says so: it may be the wrong folder.

use std::process::Command;

#[test]
fn a_folder_without_objects_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let plan = |dir: &std::path::Path| {
        Command::new(env!("CARGO_BIN_EXE_sluice-operator")).args(["plan", "--manifests"]).arg(dir).output().unwrap()
    };
    let output = plan(dir.path());
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("no object found in {}\n", dir.path().display()));
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
    std::fs::write(dir.path().join("a.yaml"), service).unwrap();
    let said = String::from_utf8(plan(dir.path()).stderr).unwrap();
    assert!(!said.contains("no object"), "{said}");
}
