//! Sizes and heads of files.

use super::Findings;
use crate::shell;

/// Lines of code at which a file asks to be split, and at which it must be.
const ASKS_TO_BE_SPLIT: usize = 400;
const MUST_BE_SPLIT: usize = 600;
const MAX_BYTES: u64 = 1 << 20;

pub(super) fn check(files: &[String], findings: &mut Findings) -> anyhow::Result<()> {
    for path in files {
        let file = shell::root().join(path);
        let bytes = std::fs::metadata(&file)?.len();
        if is_too_large(path, bytes, findings) {
            continue;
        }
        if path.ends_with(".rs") {
            rust(path, &std::fs::read_to_string(&file)?, findings);
        } else if path.ends_with(".md") {
            prose(path, &std::fs::read_to_string(&file)?, findings);
        }
    }
    Ok(())
}

fn is_too_large(path: &str, bytes: u64, findings: &mut Findings) -> bool {
    let is_too_large = bytes > MAX_BYTES;
    if is_too_large {
        findings.problems.push(format!("{path}: {bytes} bytes; nothing above 1 MiB is kept in the repository"));
    }
    is_too_large
}

fn rust(path: &str, text: &str, findings: &mut Findings) {
    // A module of tests is what its name says, and may be as long as it needs to be.
    if path.ends_with("/tests.rs") || path.ends_with("_tests.rs") {
        return;
    }
    if !text.starts_with("//!") {
        findings.problems.push(format!("{path}:1: open it with a `//!` line that says what it is for"));
    }
    if path.contains("/tests/") {
        return;
    }
    let lines = product_lines(text).count();
    if lines > MUST_BE_SPLIT {
        findings.problems.push(format!("{path}: {lines} lines of code; split it along a seam below {MUST_BE_SPLIT}"));
    } else if lines > ASKS_TO_BE_SPLIT {
        findings.notes.push(format!("{path}: {lines} lines of code; above {ASKS_TO_BE_SPLIT} it asks to be split"));
    }
}

fn prose(path: &str, text: &str, findings: &mut Findings) {
    for (number, line) in (1..).zip(text.lines()) {
        if line.contains('\t') {
            findings.problems.push(format!("{path}:{number}: a tab; use spaces"));
        }
        if line.ends_with(' ') {
            findings.problems.push(format!("{path}:{number}: spaces at the end of the line"));
        }
    }
}

/// The lines of code with their numbers: no blank lines, comments, or tests (which stand last in a file).
pub(super) fn product_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = |line: &str| line.split(" // ").next().unwrap_or_default().trim_end().len();
    let begins = ["\n#[cfg(test)]\nmod tests {", "\n#[cfg(test)]\npub(super) mod tests {"];
    let tests = begins.iter().filter_map(|begin| text.find(begin)).min().map_or(text.len(), |at| at + 1);
    (1..)
        .zip(text[..tests].lines())
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
        .map(move |(number, line)| (number, &line[..code(line)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn problems(path: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        let check = if path.ends_with(".rs") { rust } else { prose };
        check(path, text, &mut findings);
        findings.problems.into_iter().chain(findings.notes).collect()
    }

    #[test]
    fn comments_blank_lines_and_tests_are_not_code() {
        let body = "fn f() {}\n\n// why\n".repeat(400);
        assert_eq!(problems("a/src/x.rs", &format!("//! x\n{body}#[cfg(test)]\nmod tests {{}}\n")), [""; 0]);
    }

    #[test]
    fn long_files_and_missing_heads_are_found() {
        let body = "fn f() {}\n".repeat(601);
        assert_eq!(problems("a/src/x.rs", &body).len(), 2);
        assert_eq!(problems("a/tests/x.rs", &format!("//! x\n{body}")), [""; 0]);
        let body = "fn f() {}\n".repeat(401);
        let note = "a/src/x.rs: 401 lines of code; above 400 it asks to be split";
        assert_eq!(problems("a/src/x.rs", &format!("//! x\n{body}")), [note]);
    }

    #[test]
    fn large_files_are_found() {
        let mut findings = Findings::default();
        assert!(!is_too_large("a", MAX_BYTES, &mut findings) && findings.problems.is_empty());
        assert!(is_too_large("a", MAX_BYTES + 1, &mut findings));
        assert_eq!(findings.problems, ["a: 1048577 bytes; nothing above 1 MiB is kept in the repository"]);
    }

    #[test]
    fn prose_has_no_tabs_or_trailing_spaces() {
        assert_eq!(problems("A.md", "a\tb\nc \nd\n").len(), 2);
    }
}
