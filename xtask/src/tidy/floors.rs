//! Floors inside crates: a module uses what stands on its own floor or below, never what stands above it.
//!
//! Crates can't depend on each other in a circle, but the files of one crate can, and then none of them can be understood,
//! tested or replaced without all others. The tables here say which way imports go, and how far a circle may reach: see
//! [`Circles`].

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Findings,
    paths::{self, Module, Named},
};
use crate::shell;

/// The floors of one crate, the lowest first.
struct House {
    name: &'static str,
    circles: Circles,
    floors: &'static [Floor],
}

/// The reach of circles between modules of one floor.
#[derive(Clone, Copy, PartialEq)]
enum Circles {
    /// No circle: no two files use each other, not even by a detour.
    None,
    /// Circles within a folder: a module and those below it share types, and are understood together.
    WithinFolders,
}

/// A name, and the modules that stand there: `a/b` and all below it, but for those that another floor names; `a/mod` is
/// the file `a/mod.rs` alone.
type Floor = (&'static str, &'static [&'static str]);

const HOUSES: &[House] = &[
    House {
        name: "proxy",
        circles: Circles::None,
        floors: &[
            (
                "foundations",
                &[
                    "backoff",
                    "client_address",
                    "clock",
                    "consumers",
                    "date",
                    "fd_limit",
                    "fields",
                    "forwarded",
                    "lookup",
                    "memory",
                    "message",
                    "message_limits",
                    "rate_limit_fields",
                    "sockopt",
                    "timers",
                    "header_value",
                    "wall_clock",
                ],
            ),
            ("connection", &["connection"]),
            ("codecs", &["http1", "http2"]),
            ("bodies", &["body"]),
            ("telemetry", &["telemetry"]),
            ("parts of a rule", &["filter", "services", "upstream"]),
            ("rules", &["rule"]),
            ("router", &["router"]),
            ("configuration", &["config/mod", "config/settings"]),
            ("shared", &["shared"]),
            ("users of shared", &["config", "telemetry/exposition", "telemetry/report", "worker"]),
            ("exchange", &["exchange"]),
            (
                "protocols",
                &[
                    "http1/client",
                    "http1/serve",
                    "http2/respond",
                    "http2/serve",
                    "http2/source",
                    "http2/stream",
                    "websocket",
                ],
            ),
            ("server", &["keeper", "server"]),
            ("control", &["admin", "control"]),
            ("program", &["cli"]),
        ],
    },
    House {
        name: "limits",
        circles: Circles::None,
        floors: &[("keys and arithmetic", &["bucket", "key"]), ("table", &["table"]), ("limiter", &["limiter"])],
    },
    House {
        name: "jwt",
        circles: Circles::None,
        floors: &[
            ("words", &["algorithm", "reason"]),
            ("readers", &["claims", "json", "remembered"]),
            ("tokens", &["token"]),
            ("keys", &["jwk"]),
            ("verifier", &["verifier"]),
        ],
    },
    House {
        name: "snapshot",
        circles: Circles::None,
        floors: &[
            ("words", &["check/reason", "credential", "handover", "key", "latency", "origin", "path"]),
            ("expressions", &["expression"]),
            ("references", &["refs"]),
            ("resources", &["check", "closed", "sensitive", "set"]),
            ("messages", &["codec", "report", "wire"]),
        ],
    },
    House {
        name: "transport",
        circles: Circles::None,
        floors: &[
            ("both sides", &["connect", "mtls"]),
            ("bounds", &["keyed_limiter", "slots"]),
            ("connections", &["connection"]),
            ("accept", &["accept"]),
        ],
    },
    House {
        name: "crds",
        circles: Circles::None,
        floors: &[
            ("schema", &["duration", "schema"]),
            ("kinds", &["access", "common", "consumer", "fleet", "grant", "policy", "route"]),
            ("table of kinds", &["kind"]),
            ("definitions", &["definitions"]),
            ("admission", &["admit"]),
        ],
    },
    House {
        name: "planner",
        circles: Circles::WithinFolders,
        floors: &[
            ("words", &["credentials", "model/quantity", "object", "problem/reason", "scale/decision", "share"]),
            ("what plans leave", &["holds", "last_ready", "problem"]),
            ("world", &["problem/collected", "references", "world"]),
            ("fleets", &["fleet"]),
            ("numbers of fleets", &["publish", "rebalance", "rollout", "scale"]),
            ("model", &["model"]),
            ("compiler", &["compile"]),
            ("plan", &["plan"]),
            ("statuses", &["status"]),
        ],
    },
    House {
        name: "operator",
        circles: Circles::WithinFolders,
        floors: &[
            ("foundations", &["admin/metrics", "log_throttle", "reason", "state/file"]),
            ("API server", &["kube"]),
            ("leader", &["leader"]),
            ("events", &["events"]),
            (
                "inputs of the loop",
                &["fleet/mod", "push/published", "reconcile/event", "reconcile/load", "source/latest", "source/mod"],
            ),
            ("memory", &["state"]),
            ("edges", &["default_fleet", "fleet", "identity", "push", "source", "status"]),
            ("what is known", &["events/changes", "reconcile/fleet_state", "reconcile/pace", "reconcile/world"]),
            ("views", &["admin"]),
            ("loop", &["reconcile"]),
            ("program", &["cli"]),
        ],
    },
];

pub(super) fn check(files: &[String], findings: &mut Findings) -> anyhow::Result<()> {
    for house in HOUSES {
        let folder = format!("{}/src/", house.name);
        let mut sources = BTreeMap::new();
        for path in files.iter().filter(|path| path.starts_with(&folder) && path.ends_with(".rs")) {
            let module = path.trim_start_matches(&folder).to_owned();
            sources.insert(module, std::fs::read_to_string(shell::root().join(path))?);
        }
        findings.problems.extend(house.problems(&sources));
    }
    Ok(())
}

impl House {
    /// Problems of the crate whose sources these are, by path within `src`.
    fn problems(&self, sources: &BTreeMap<String, String>) -> Vec<String> {
        let modules = paths::modules(sources);
        let mut problems = vec![];
        let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        // The root only says which modules there are.
        for module in modules.values().filter(|module| !module.name.is_empty()) {
            let Some((height, floor)) = self.floor(module) else {
                problems.push(format!(
                    "{}/src/{}: on no floor; name its module in xtask/src/tidy/floors.rs",
                    self.name, module.file
                ));
                continue;
            };
            let mut seen = BTreeSet::new();
            for Named { path, line, .. } in module.named.iter().filter(|named| !module.reexports_own(named)) {
                let Some(used) = paths::target(&modules, path) else { continue };
                if used.name == module.name || !seen.insert(&used.name) {
                    continue;
                }
                edges.entry(&module.name).or_default().insert(&used.name);
                if let Some((other_height, other)) = self.floor(used)
                    && other_height > height
                {
                    problems.push(format!(
                        "{}/src/{}:{line}: {} ({floor}) must not use {} ({other}), which stands above it; \
                         move what it needs down to its own floor, or take it as an argument",
                        self.name, module.file, module.name, used.name
                    ));
                }
            }
        }
        let edges = match self.circles {
            Circles::None => edges,
            Circles::WithinFolders => self.between_folders(&modules, &edges),
        };
        problems.extend(circles(&edges).into_iter().map(|circle| {
            format!(
                "{}/src: {} use each other in a circle; move what they share to a file of its own",
                self.name,
                circle.join(", ")
            )
        }));
        problems
    }

    /// The edges between the folders of each floor. From a floor to a lower one there is no way back.
    fn between_folders<'a>(
        &self,
        modules: &'a BTreeMap<String, Module>,
        edges: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    ) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let folder = |name: &'a str| name.split('/').next().unwrap_or(name);
        let height = |name: &str| modules.get(name).and_then(|module| self.floor(module)).map(|(height, _)| height);
        let mut between: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (from, used) in edges {
            let beside = used.iter().filter(|to| folder(to) != folder(from) && height(to) == height(from));
            between.entry(folder(from)).or_default().extend(beside.map(|to| folder(to)));
        }
        between
    }

    /// The floor of a module, and how high that is: the longest entry that fits decides.
    fn floor(&self, module: &Module) -> Option<(usize, &'static str)> {
        let fits = |entry: &str| match entry.strip_suffix("/mod") {
            Some(folder) if module.file.ends_with("/mod.rs") && module.name == folder => Some(entry.len()),
            _ if module.name == entry || module.name.starts_with(&format!("{entry}/")) => Some(entry.len()),
            _ => None,
        };
        let of_floor = |(height, (name, entries)): (usize, &Floor)| {
            entries.iter().filter_map(|entry| fits(entry)).max().map(|length| (length, height, *name))
        };
        let (_, height, name) = self.floors.iter().enumerate().filter_map(of_floor).max_by_key(|found| found.0)?;
        Some((height, name))
    }
}

/// Sets of modules that reach each other.
fn circles<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let reach = |from: &'a str| {
        let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(module) = left.pop() {
            left.extend(edges.get(module).into_iter().flatten().filter(|next| reached.insert(**next)));
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = edges.keys().map(|module| (*module, reach(module))).collect();
    let mut circles = BTreeSet::new();
    for (module, far) in reached.iter().filter(|(module, far)| far.contains(*module)) {
        let back = |other: &&&str| reached.get(**other).is_some_and(|far| far.contains(module));
        circles.insert(far.iter().filter(back).copied().collect::<Vec<_>>());
    }
    circles.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANTED: House = House {
        name: "a",
        circles: Circles::None,
        floors: &[("cellar", &["low", "high/mod"]), ("hall", &["middle"]), ("attic", &["high"])],
    };

    const OF_FOLDERS: House = House {
        name: "a",
        circles: Circles::WithinFolders,
        floors: &[("ground", &["left/low"]), ("first", &["left", "right"])],
    };

    #[track_caller]
    fn check(sources: &[(&str, &str)], expect: &[&str]) {
        check_in(&PLANTED, sources, expect);
    }

    #[track_caller]
    fn check_in(house: &House, sources: &[(&str, &str)], expect: &[&str]) {
        let sources = sources.iter().map(|(path, text)| ((*path).to_owned(), format!("//! x\n{text}"))).collect();
        let problems = house.problems(&sources);
        let fits = problems.len() == expect.len() && problems.iter().zip(expect).all(|(got, part)| got.contains(part));
        assert!(fits, "{problems:#?}");
    }

    const HALL: (&str, &str) = ("middle.rs", "pub fn f() {}\n");

    #[test]
    fn imports_go_down() {
        check(&[("low.rs", ""), HALL, ("high/roof.rs", "use crate::{low, middle::f};\n")], &[]);
        check(&[HALL, ("middle/room.rs", "use super::f;\n")], &[]);
        // Tests, comments and a parent that re-exports its own are no imports.
        let tests = "// crate::middle::f\n#[cfg(test)]\nuse crate::middle::f;\n#[cfg(test)]\nmod tests {\n    use crate::middle::f;\n}\n";
        check(&[("low.rs", tests), HALL, ("low/tests.rs", "use crate::middle::f;\n")], &[]);
        check(&[("high/mod.rs", "mod roof;\npub use roof::g;\n"), ("high/roof.rs", "pub fn g() {}\n")], &[]);
    }

    #[test]
    fn an_import_of_a_higher_floor_is_found() {
        let found = "a/src/low.rs:2: low (cellar) must not use middle (hall), which stands above it; move what";
        for low in [
            "use crate::middle::f;\n",
            "use crate::{\n    middle::f,\n};\n",
            "use super::middle;\n",
            "fn g() { crate::middle::f() }\n",
            "pub use crate::middle::f;\n",
        ] {
            check(&[("low.rs", low), HALL], &[found]);
        }
        // By the name under which another module hands it on, and from a folder's own file.
        let lib = ("lib.rs", "mod middle;\npub use middle::f;\n");
        check(&[lib, ("low.rs", "use crate::f;\n"), HALL], &[found]);
        let parent = ("high/mod.rs", "mod roof;\nfn f() { roof::g() }\n");
        check(&[parent, ("high/roof.rs", "")], &["a/src/high/mod.rs:3: high (cellar) must not use high/roof (attic)"]);
    }

    #[test]
    fn a_circle_is_found() {
        let a = ("middle/a.rs", "use super::b;\n");
        check(&[a, ("middle/b.rs", "use super::c;\n"), ("middle/c.rs", "")], &[]);
        let circle = "a/src: middle/a, middle/b, middle/c use each other in a circle";
        check(&[a, ("middle/b.rs", "use super::c;\n"), ("middle/c.rs", "use crate::middle::a;\n")], &[circle]);
    }

    #[test]
    fn a_circle_of_folders_is_found_and_one_within_a_folder_is_not() {
        let (a, b) = (("left/a.rs", "use super::b;\n"), ("left/b.rs", "use super::a;\n"));
        check_in(&OF_FOLDERS, &[a, b, ("left/low.rs", ""), ("right.rs", "use crate::left::{a, low};\n")], &[]);
        // No two of these files use each other.
        let (to, from) = (("left/a.rs", "use crate::right;\n"), ("right.rs", "use crate::left::b;\n"));
        let circle = "a/src: left, right use each other in a circle";
        check_in(&OF_FOLDERS, &[to, ("left/b.rs", ""), from], &[circle]);
        // What stands below both is no way back.
        check_in(&OF_FOLDERS, &[to, ("left/low.rs", ""), ("right.rs", "use crate::left::low;\n")], &[]);
        let up = "a/src/left/low.rs:2: left/low (ground) must not use right (first), which stands above it";
        check_in(&OF_FOLDERS, &[("left/low.rs", "use crate::right;\n"), ("right.rs", "")], &[up]);
    }

    #[test]
    fn a_module_without_a_floor_is_found() {
        check(&[("shed.rs", "")], &["a/src/shed.rs: on no floor"]);
    }
}
