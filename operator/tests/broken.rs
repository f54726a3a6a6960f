//! `plan` on a folder of manifests, each broken in one way: `e2e/testdata/broken.out` is what it says. UPDATE=1 writes it
//! anew.

use std::{env, fs, path::Path, process::Command};

#[test]
fn each_broken_manifest_gets_one_precise_problem() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/testdata");
    let plan = Command::new(env!("CARGO_BIN_EXE_sluice-operator"))
        .args(["plan", "--manifests"])
        .arg(data.join("broken"))
        .output()
        .unwrap();
    assert_eq!(plan.status.code(), Some(1));
    let said = String::from_utf8(plan.stderr).unwrap();

    let mut broken = 0;
    for file in fs::read_dir(data.join("broken")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let lines = said.lines().filter(|line| line.starts_with(&format!("{file}:"))).count();
        let sound = file == "good.yaml";
        assert_eq!(lines, usize::from(!sound), "problems of {file} in:\n{said}");
        broken += usize::from(!sound);
    }
    assert_eq!(broken, 30);
    assert_eq!(said.lines().count(), broken, "lines that name no file:\n{said}");

    let golden = data.join("broken.out");
    if env::var_os("UPDATE").is_some() {
        fs::write(&golden, &said).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&golden).unwrap_or_default(),
        said,
        "other problems than in e2e/testdata/broken.out; if they are right, run UPDATE=1 cargo test -p operator --test broken"
    );
}
