//! The fuzz targets, run on what is committed of their corpus: seeds, and what fuzzing has found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, panic, path::Path};

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub)] // a crate of its own when it is fuzzed
mod targets;

#[test]
fn what_must_hold_of_any_input_holds_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut failures = vec![];
    for (name, check) in targets::TARGETS {
        let mut files: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{name} has no corpus");
        for file in files {
            let input = fs::read(&file).unwrap();
            if panic::catch_unwind(|| check(&input)).is_err() {
                failures.push(file);
            }
        }
        check(b"");
    }
    assert!(failures.is_empty(), "what was printed above was found by {failures:?}");
}
