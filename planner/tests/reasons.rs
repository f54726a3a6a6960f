//! Every reason that a condition can have is explained in `docs/conditions.md`, and nothing else is.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use planner::problem::reason;
use snapshot::check;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The first column of every table that has reasons in it.
fn documented() -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/conditions.md")).unwrap();
    let (mut reasons, mut of_reasons) = (vec![], false);
    for line in page.lines() {
        match line.strip_prefix("| ") {
            None => of_reasons &= line.starts_with("|--"),
            Some(row) if row.starts_with("reason |") => of_reasons = true,
            Some(row) if of_reasons => {
                let cells: Vec<&str> = row.trim_end_matches('|').split(" | ").map(str::trim).collect();
                assert!(cells.len() >= 2 && cells.iter().all(|cell| !cell.is_empty()), "{line}");
                reasons.push(cells[0].trim_matches('`').to_owned());
            }
            Some(_) => {}
        }
    }
    reasons
}

/// The source files below a folder, without tests.
fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.contains("test") && !path.to_string_lossy().contains("tests/") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
            found.push((path, code));
        }
    }
}

/// The words in quotes that follow `before`, whatever white space is between.
fn words_after(code: &str, before: &str) -> Vec<String> {
    let follow = |rest: &str| {
        let word = rest.trim_start().strip_prefix('"')?.split('"').next()?;
        let camel =
            word.starts_with(|c: char| c.is_ascii_uppercase()) && word.bytes().all(|b| b.is_ascii_alphanumeric());
        camel.then(|| word.to_owned())
    };
    code.split(before).skip(1).filter_map(follow).collect()
}

/// Reasons that the operator itself finds.
fn of_the_operator() -> BTreeSet<String> {
    let mut files = vec![];
    sources(&root().join("operator/src"), &mut files);
    assert!(files.len() > 30, "the operator's sources are gone");
    let mut reasons = BTreeSet::new();
    for (path, code) in &files {
        reasons.extend(words_after(code, "reason:"));
        let path = path.to_string_lossy();
        let tells = ["operator/src/reason.rs", "source/mod.rs"];
        if tells.iter().any(|file| path.ends_with(file)) {
            // `pub const PROXY_CRASHES: &str = "ProxyCrashes"`.
            reasons.extend(words_after(code, ": &str ="));
        }
    }
    reasons
}

#[test]
fn every_reason_is_explained_once() {
    let documented = documented();
    let unique: BTreeSet<String> = documented.iter().cloned().collect();
    assert_eq!(documented.len(), unique.len(), "a reason is explained twice: {documented:?}");
    let known = reason::ALL.iter().chain(check::reason::ALL).map(|word| (*word).to_owned());
    let known: BTreeSet<String> = known.chain(of_the_operator()).collect();
    let missing: Vec<_> = known.difference(&unique).collect();
    assert!(missing.is_empty(), "docs/conditions.md does not explain {missing:?}");
    let stale: Vec<_> = unique.difference(&known).collect();
    assert!(stale.is_empty(), "docs/conditions.md explains what no condition says: {stale:?}");
    let page = fs::read_to_string(root().join("docs/conditions.md")).unwrap();
    for word in check::reason::of_proxies::ALL {
        assert!(page.contains(&format!("`{word}`")), "docs/conditions.md does not say that {word} is of proxies");
    }
}

/// So that the lists are whole: the words stand there, and nowhere else.
#[test]
fn reasons_are_named_by_their_constants() {
    let mut files = vec![];
    sources(&root().join("planner/src"), &mut files);
    sources(&root().join("snapshot/src/check"), &mut files);
    sources(&root().join("proxy/src/config"), &mut files);
    sources(&root().join("proxy/src/filter"), &mut files);
    sources(&root().join("proxy/src/control"), &mut files);
    let check = root().join("snapshot/src/check.rs");
    files.push((check.clone(), fs::read_to_string(check).unwrap().split("#[cfg(test)]").next().unwrap().to_owned()));
    for (path, code) in files.iter().filter(|(path, _)| !path.ends_with("reason.rs")) {
        let all = reason::ALL.iter().chain(check::reason::ALL).chain(check::reason::of_proxies::ALL);
        // A condition's type and a reason share some words.
        let types = ["Accepted", "ResolvedRefs", "Programmed", "Ready"];
        for word in all.filter(|word| !types.contains(word)) {
            assert!(
                !code.contains(&format!("\"{word}\"")),
                "{}: {word} in quotes, not by its constant",
                path.display()
            );
        }
        for call in ["Verdict::good(", "Verdict::bad(", "Verdict::unknown("] {
            assert_eq!(words_after(code, call), [""; 0], "{}", path.display());
        }
    }
}
