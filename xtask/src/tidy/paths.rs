//! The modules of a crate, and the paths that their code names.

use std::collections::{BTreeMap, BTreeSet};

use super::files::product_lines;

/// A module of a crate.
pub(super) struct Module {
    /// The module's path, as in `http1/encode`; the crate's root has none.
    pub(super) name: String,
    /// The module's file, within `src`.
    pub(super) file: String,
    /// The paths that its code names, but for its tests.
    pub(super) named: Vec<Named>,
}

/// A path that code names.
pub(super) struct Named {
    /// The path from the crate's root.
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    /// Whether the module hands it on under its last name, or under all of them (`*`).
    reexport: bool,
}

impl Module {
    /// Whether it only hands on what a module within it has.
    pub(super) fn reexports_own(&self, named: &Named) -> bool {
        let own: Vec<&str> = self.name.split('/').filter(|part| !part.is_empty()).collect();
        named.reexport && named.path.len() > own.len() && own.iter().zip(&named.path).all(|(own, part)| own == part)
    }
}

/// Modules by name, but for those of tests.
pub(super) fn modules(sources: &BTreeMap<String, String>) -> BTreeMap<String, Module> {
    let of_product = |file: &&String| !file.split(['/', '.']).any(|part| matches!(part, "tests" | "testing"));
    let files: Vec<(&String, String)> =
        sources.keys().filter(of_product).filter(|file| *file != "main.rs").map(|file| (file, name(file))).collect();
    let names: BTreeSet<&str> = files.iter().map(|(_, name)| name.as_str()).collect();
    let module = |(file, name): &(&String, String)| {
        let named = named(name, &sources[*file], &names);
        (name.clone(), Module { name: name.clone(), file: (*file).clone(), named })
    };
    files.iter().map(module).collect()
}

/// The module that a path leads to, by what modules hand on; `None`: the root, or nothing of this crate.
pub(super) fn target<'a>(modules: &'a BTreeMap<String, Module>, path: &[String]) -> Option<&'a Module> {
    let mut path = path.to_vec();
    // Far more than there are modules between a name and what it stands for.
    for _ in 0..8 {
        let length = (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length].join("/")))?;
        let module = &modules[&path[..length].join("/")];
        let handed_on = path.get(length).and_then(|name| {
            let is_it = |named: &&Named| named.reexport && named.path.last() == Some(name);
            module.named.iter().find(is_it).map(|named| &named.path)
        });
        match handed_on {
            Some(other) if !module.name.is_empty() || other.len() > 1 => {
                path = other.iter().chain(&path[length + 1..]).cloned().collect();
            }
            _ => return Some(module).filter(|module| !module.name.is_empty()),
        }
    }
    None
}

fn name(file: &str) -> String {
    let name = file.trim_end_matches(".rs");
    match name {
        "lib" => String::new(),
        name => name.trim_end_matches("/mod").to_owned(),
    }
}

fn named(module: &str, text: &str, modules: &BTreeSet<&str>) -> Vec<Named> {
    let mut found = vec![];
    let mut statement: Option<(usize, bool, String)> = None;
    let mut is_for_tests = false;
    let mut add = |path: Vec<String>, line, reexport| {
        found.extend(absolute(module, path, modules).map(|path| Named { path, line, reexport }));
    };
    for (line, code) in product_lines(text) {
        let code = code.trim();
        if let Some((_, _, text)) = &mut statement {
            text.push_str(code);
        } else if let Some((reexport, tree)) = import(code) {
            statement = Some((line, reexport, tree.to_owned()));
        } else {
            let paths = if is_for_tests { vec![] } else { inline(code) };
            paths.into_iter().for_each(|path| add(path, line, false));
            is_for_tests = code == "#[cfg(test)]";
        }
        if let Some((first, reexport, text)) = statement.take_if(|(_, _, text)| text.ends_with(';'))
            && !std::mem::take(&mut is_for_tests)
        {
            expand(text.trim_end_matches(';'), &[], &mut |path| add(path, first, reexport));
        }
    }
    found
}

/// Whether a line begins an import, whether others may import it from there, and what it imports.
fn import(code: &str) -> Option<(bool, &str)> {
    if let Some(tree) = code.strip_prefix("use ") {
        return Some((false, tree));
    }
    let code = code.strip_prefix("pub")?;
    let code = if code.starts_with('(') { code.split_once(')')?.1 } else { code };
    Some((true, code.trim_start().strip_prefix("use ")?))
}

/// The paths of a `use` tree.
fn expand(tree: &str, before: &[String], found: &mut impl FnMut(Vec<String>)) {
    let parts = |text: &str| -> Vec<String> {
        let text = text.split(" as ").next().unwrap_or_default();
        text.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let Some((start, rest)) = tree.split_once('{') else {
        let mut path = [before, &parts(tree)].concat();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        return found(path);
    };
    let before = [before, &parts(start)].concat();
    let within = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut from) = (0, 0);
    for (at, c) in within.char_indices().chain([(within.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = within[from..at].trim();
                if !item.is_empty() {
                    expand(item, &before, found);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// The paths that a line of code names.
fn inline(code: &str) -> Vec<Vec<String>> {
    let is_of_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':');
    // Who may see something is no use of it.
    let code = match code.split_once("pub(in ") {
        Some((before, rest)) => [before, rest.split_once(')').map_or("", |(_, after)| after)].concat(),
        None => code.to_owned(),
    };
    let paths = code.split(|c| !is_of_path(c)).filter(|path| path.contains("::") && !path.starts_with(':'));
    paths.map(|path| path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()).collect()
}

/// A path from the crate's root, if it is one of this crate.
fn absolute(module: &str, path: Vec<String>, modules: &BTreeSet<&str>) -> Option<Vec<String>> {
    let mut base: Vec<String> = module.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([base, path[1..].to_vec()].concat()),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            base.truncate(base.len().saturating_sub(ups));
            Some([base, path[ups..].to_vec()].concat())
        }
        child => {
            let name = [&base[..], &[child.to_owned()]].concat().join("/");
            modules.contains(name.as_str()).then(|| [base, path].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(String, usize)> {
        let names = BTreeSet::from(["a", "a/b", "a/b/c", "d"]);
        named("a/b", text, &names).into_iter().map(|named| (named.path.join("/"), named.line)).collect()
    }

    #[test]
    fn paths_are_found_wherever_they_stand() {
        let found = |path: &str, line| (path.to_owned(), line);
        assert_eq!(
            of("use crate::{\n    d::{self, X as Y},\n    a,\n};\n"),
            ["d", "d/X", "a"].map(|path| found(path, 1))
        );
        assert_eq!(of("use super::b;\nuse std::fmt;\nuse c::Z;\n"), [found("a/b", 1), found("a/b/c/Z", 3)]);
        assert_eq!(
            of("fn f(x: &crate::d::X) -> super::T { c::g() }\n"),
            ["d/X", "a/T", "a/b/c/g"].map(|p| found(p, 1))
        );
        assert_eq!(of("pub(in crate::d) fn f() {} // crate::d::X\n"), []);
    }
}
