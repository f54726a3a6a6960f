//! SECURITY.md names, for what each may not do, a test that holds it: that test is there.

use devcluster::files;

use crate::shell;

#[test]
fn what_the_threat_model_promises_is_tested() {
    let text = files::read(&shell::root().join("SECURITY.md")).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().filter(|line| line.starts_with("| ")).map(cells).collect();
    assert!(rows.len() > 15 && rows.iter().all(|row| row.len() == 4), "{rows:#?}");
    for row in &rows[1..] {
        let [file, test] = row[3].split("`: `").collect::<Vec<_>>()[..] else {
            panic!("{row:?}: the last cell is no `FILE`: `TEST`")
        };
        let (file, test) = (file.trim_matches('`'), test.trim_matches('`'));
        let code = files::read(&shell::root().join(file)).unwrap_or_else(|error| panic!("SECURITY.md: {error:#}"));
        assert!(code.contains(&format!("fn {test}(")), "SECURITY.md: {file} has no test {test}");
        assert!(!row[2].is_empty(), "{row:?}: a test of nothing that may not be");
    }
    for who in ["an anonymous client", "a tenant", "a fleet's owner", "a proxy", "any pod"] {
        assert!(rows.iter().any(|row| row[0].starts_with(who)), "nothing of {who}");
    }
}

/// The Dockerfiles' bases are named by what they are at least, and can be pinned by their digests.
#[test]
fn bases_of_images_can_be_pinned() {
    for name in ["Dockerfile.operator", "Dockerfile.proxy", "e2e/Dockerfile"] {
        let text = files::read(&shell::root().join(name)).unwrap();
        let bases: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
        assert_eq!(bases, ["${BASE} AS base", "base AS runtime", "${RUST} AS builder", "base"], "{name}");
        for base in ["RUST", "BASE"] {
            let default = text.lines().find_map(|line| line.strip_prefix(&format!("ARG {base}=")));
            let default = default.unwrap_or_else(|| panic!("{name}: no ARG {base}"));
            let (_, tag) = default.rsplit_once(':').unwrap_or_else(|| panic!("{name}: {default} has no tag"));
            assert!(!tag.contains('/') && tag != "latest", "{name}: {default}");
        }
    }
}

fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|'));
    inner.unwrap_or_default().split('|').map(str::trim).collect()
}
