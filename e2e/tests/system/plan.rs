//! `sluice-operator plan` tells before it runs.

use std::{path::Path, process::Command};

use e2e::harness::program;

fn plan(folder: &Path) -> (bool, String) {
    let output =
        Command::new(program("sluice-operator").unwrap()).args(["plan", "--manifests"]).arg(folder).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_examples_have_no_problem() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut folders = 0;
    // That for a Kubernetes has a mistake on purpose, and Deployments; the tests on a cluster apply it.
    let here = |path: &Path| path.is_dir() && !path.ends_with("kubernetes");
    for entry in std::fs::read_dir(examples).unwrap().flatten().filter(|entry| here(&entry.path())) {
        let (clean, text) = plan(&entry.path());
        assert!(clean, "{}:\n{text}", entry.path().display());
        folders += 1;
    }
    assert!(folders > 0);
}

/// What a proxy is trained with before a release (`cargo xtask dist`), which no other test serves.
#[test]
fn what_releases_are_trained_with_has_no_problem() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = include_str!("../../../xtask/src/dist/training.yaml");
    let certificate = rcgen::generate_simple_self_signed(["train.example".to_owned()]).unwrap();
    let indented = |pem: String| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let manifest = manifest
        .replace("$HTTPS", "8443")
        .replace("$HTTP", "8080")
        .replace("$ECHO", "9001")
        .replace("CHAIN\n", &indented(certificate.cert.pem()))
        .replace("KEY\n", &indented(certificate.signing_key.serialize_pem()));
    std::fs::write(folder.path().join("all.yaml"), manifest).unwrap();
    let (clean, text) = plan(folder.path());
    assert!(clean, "{text}");
}

#[test]
fn a_problem_is_named_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = "apiVersion: sluice.dev/v1alpha1\nkind: ApiRoute\nmetadata: {name: broken, namespace: shop}\n\
                    spec:\n  rules:\n  - backendRefs: [{address: \"127.0.0.1:9000\", wieght: 5}]\n";
    std::fs::write(folder.path().join("broken.yaml"), manifest).unwrap();
    let (clean, text) = plan(folder.path());
    assert!(!clean, "{text}");
    assert!(text.contains("broken.yaml") && text.contains("wieght") && text.contains("shop/broken"), "{text}");
}
