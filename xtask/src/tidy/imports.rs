//! The import rules: a crate exists where such a rule needs enforcing.

use serde_json::Value;

use super::Findings;
use crate::shell::{self, cargo};

/// The rule of one crate.
struct Rule {
    name: &'static str,
    /// Crates that it must not depend on (for its tests it may).
    without: &'static [&'static str],
    /// Whether it is free of I/O, clocks and logging, which its sources then must not name.
    pure: bool,
}

const OURS: &[&str] = &["allocator", "crds", "snapshot", "planner", "limits", "jwt", "transport", "operator", "proxy"];

/// Crates that the product is not made of: nothing depends on them, not for its tests either, but for `xtask`, whose
/// `cluster` commands are `devcluster`.
const TOOLS: &[&str] = &["e2e", "devcluster", "xtask"];

const RULES: &[Rule] = &[
    Rule {
        name: "allocator",
        without: &["tokio", "crds", "snapshot", "planner", "limits", "jwt", "transport", "operator", "proxy"],
        pure: false,
    },
    Rule {
        name: "crds",
        without: &["tokio", "snapshot", "planner", "limits", "jwt", "transport", "operator", "proxy"],
        pure: false,
    },
    Rule {
        name: "snapshot",
        without: &["kube", "k8s-openapi", "crds", "planner", "limits", "transport", "operator", "proxy"],
        pure: false,
    },
    Rule {
        name: "planner",
        without: &[
            "tokio",
            "hyper",
            "hyper-util",
            "tonic",
            "tracing",
            "log",
            "limits",
            "transport",
            "operator",
            "proxy",
        ],
        pure: true,
    },
    Rule {
        name: "limits",
        without: &[
            "tokio",
            "hyper",
            "tracing",
            "log",
            "kube",
            "k8s-openapi",
            "crds",
            "planner",
            "transport",
            "operator",
            "proxy",
        ],
        pure: true,
    },
    // What it carries is for both sides to say.
    Rule {
        name: "transport",
        without: &["kube", "k8s-openapi", "crds", "snapshot", "planner", "limits", "jwt", "operator", "proxy"],
        pure: false,
    },
    Rule {
        name: "jwt",
        without: &[
            "tokio",
            "hyper",
            "tracing",
            "log",
            "kube",
            "k8s-openapi",
            "crds",
            "snapshot",
            "planner",
            "limits",
            "transport",
            "operator",
            "proxy",
        ],
        pure: true,
    },
    Rule { name: "operator", without: &["proxy", "limits", "jwt"], pure: false },
    Rule { name: "proxy", without: &["kube", "k8s-openapi", "crds", "planner", "operator"], pure: false },
    // They run the built programs and link to none of them.
    Rule { name: "e2e", without: OURS, pure: false },
    Rule { name: "devcluster", without: OURS, pure: false },
    Rule { name: "xtask", without: OURS, pure: false },
];

/// Names that a pure crate's sources must not contain, and what to do instead.
const IMPURE: &[(&str, &str)] = &[
    ("Instant::now", "take `now` as an argument"),
    ("SystemTime::now", "take `now` as an argument"),
    ("Timestamp::now", "take `now` as an argument"),
    ("Zoned::now", "take `now` as an argument"),
    ("std::fs", "take the content as an argument"),
    ("std::env", "take the value as an argument"),
    ("std::net::Tcp", "return what is to be sent"),
    ("std::net::Udp", "return what is to be sent"),
    ("std::process", "return what is to be run"),
    ("std::thread", "leave threads to the caller"),
    ("tokio::", "leave async to the caller"),
    ("tracing::", "return a Problem instead of logging"),
    ("println!", "return a Problem instead of printing"),
    ("kube::Client", "return what is to be written"),
    ("kube::Api", "return what is to be written"),
];

pub(super) fn check(files: &[String], findings: &mut Findings) -> anyhow::Result<()> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"]).read()?)?;
    dependencies(&metadata, findings);
    for rule in RULES.iter().filter(|rule| rule.pure) {
        let folder = format!("{}/src/", rule.name);
        for path in files.iter().filter(|path| path.starts_with(&folder) && path.ends_with(".rs")) {
            let text = std::fs::read_to_string(shell::root().join(path))?;
            for (line, name, instead) in impure(&text) {
                findings
                    .problems
                    .push(format!("{path}:{line}: {} is pure and must not use {name}; {instead}", rule.name));
            }
        }
    }
    Ok(())
}

/// Looks at the packages that `cargo metadata` lists.
fn dependencies(metadata: &Value, findings: &mut Findings) {
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(rule) = RULES.iter().find(|rule| rule.name == name) else {
            findings.problems.push(format!("{name}: no import rule; add one in xtask/src/tidy/imports.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let other = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"] == "dev";
            let is_tool = TOOLS.contains(&other) && (name, other) != ("xtask", "devcluster");
            if is_tool || (rule.without.contains(&other) && !for_tests) {
                findings.problems.push(format!("{name}/Cargo.toml: {name} must not depend on {other}"));
            }
        }
    }
}

fn impure(text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let mut found = Vec::new();
    for (number, line) in super::files::product_lines(text) {
        for &(name, instead) in IMPURE {
            if line.contains(name) {
                found.push((number, name, instead));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependency: &str, kind: Option<&str>) -> Vec<String> {
        let dependencies = [serde_json::json!({"name": dependency, "kind": kind})];
        let metadata = serde_json::json!({"packages": [{"name": name, "dependencies": dependencies}]});
        let mut findings = Findings::default();
        super::dependencies(&metadata, &mut findings);
        findings.problems
    }

    #[test]
    fn each_forbidden_dependency_is_found() {
        for rule in RULES {
            for other in rule.without {
                let found = format!("{0}/Cargo.toml: {0} must not depend on {other}", rule.name);
                assert_eq!(package(rule.name, other, None), [found]);
                assert_eq!(package(rule.name, other, Some("dev")), [""; 0], "{}: its tests may", rule.name);
            }
            for tool in TOOLS.iter().filter(|tool| (rule.name, **tool) != ("xtask", "devcluster")) {
                let found = format!("{0}/Cargo.toml: {0} must not depend on {tool}", rule.name);
                for kind in [None, Some("dev")] {
                    assert_eq!(package(rule.name, tool, kind), [&*found]);
                }
            }
            assert_eq!(package(rule.name, "serde", None), [""; 0]);
        }
        assert_eq!(package("xtask", "devcluster", None), [""; 0]);
        assert_eq!(package("new", "serde", None), ["new: no import rule; add one in xtask/src/tidy/imports.rs"]);
    }

    #[test]
    fn each_impure_name_is_found() {
        for (name, instead) in IMPURE {
            let found = impure(&format!("//! x\nfn f() {{\n    {name}\n}}\n"));
            assert!(found.contains(&(3, *name, *instead)), "{name}: {found:?}");
        }
    }

    #[test]
    fn impure_names_are_found_in_code_only() {
        let text = "//! Uses no Instant::now.\nfn f() {\n    let now = Instant::now(); // std::fs\n}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(impure(text), [(3, "Instant::now", "take `now` as an argument")]);
    }
}
