//! YAML text: cut into documents, each parsed by itself into JSON together with the line of every field.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_yaml::Spanned;

/// The text of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk<'a> {
    /// Line within the file of the text's first line, from 1.
    pub(crate) line: u32,
    /// The text, without document markers.
    pub(crate) text: &'a str,
}

/// A parsed document.
#[derive(Debug, PartialEq)]
pub(crate) struct Parsed {
    /// The content.
    pub(crate) value: Value,
    /// Line of each field path, from 1 within the text.
    pub(crate) lines: BTreeMap<String, u32>,
}

/// Why a text is no YAML document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SyntaxError {
    /// From 1 within the text.
    pub(crate) line: u32,
    /// The fault.
    pub(crate) message: String,
}

/// Deepest nesting. The deepest field of our types is at 14.
const MAX_DEPTH: usize = 48;
/// Most nodes of one document, aliases expanded: a Secret or EndpointSlice of the largest allowed size is below.
const MAX_NODES: usize = 200_000;

/// Cuts a file at its document markers. A marker at the start of a line ends a document whatever stands before it, so a
/// broken document can't swallow the next. What holds nothing (blank, comments, directives) is left out.
pub(crate) fn documents(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = vec![];
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (number, line) in (1u32..).zip(text.split_inclusive('\n')) {
        if let Some(marker) = marker(line) {
            chunks.push(Chunk { line: start_line, text: &text[start..offset] });
            // What follows `---` on its line belongs to the next document; nothing follows `...`.
            (start, start_line) = match marker {
                "---" => (offset + 3, number),
                _ => (offset + line.len(), number + 1),
            };
        }
        offset += line.len();
    }
    chunks.push(Chunk { line: start_line, text: &text[start..] });
    chunks.retain(|chunk| chunk.text.lines().any(is_content));
    chunks
}

fn marker(line: &str) -> Option<&str> {
    let (head, rest) = line.split_at_checked(3)?;
    let ends = rest.chars().next().is_none_or(char::is_whitespace);
    (ends && matches!(head, "---" | "...")).then_some(head)
}

/// Whether a line says anything: not blank, a comment or a directive.
fn is_content(line: &str) -> bool {
    !line.starts_with('%') && line.trim_start().chars().next().is_some_and(|c| c != '#')
}

impl Chunk<'_> {
    /// Line within the file of the first line that says something.
    pub(crate) fn first_line(&self) -> u32 {
        let skipped = self.text.lines().take_while(|line| !is_content(line)).count();
        self.line + u32::try_from(skipped).unwrap_or(0)
    }
}

/// Parses one document.
pub(crate) fn parse(text: &str) -> Result<Parsed, SyntaxError> {
    // Comments are skipped, not kept; duplicate keys are errors; aliases are counted as often as they are expanded.
    let mut budget = serde_yaml::Budget::default();
    budget.max_depth = MAX_DEPTH;
    budget.max_nodes = MAX_NODES;
    budget.max_events = 2 * MAX_NODES;
    let mut limits = serde_yaml::options::AliasLimits::default();
    limits.max_total_replayed_events = MAX_NODES;
    let options = serde_yaml::options! {
        budget: Some(budget),
        alias_limits: limits,
        duplicate_keys: serde_yaml::DuplicateKeyPolicy::Error,
        emit_comments: false,
        with_snippet: false,
    };
    let root: Spanned<Tree> = serde_yaml::from_str_with_options(text, options).map_err(|error| SyntaxError {
        line: error.location().map_or(1, |at| line_of(at.line())),
        message: without_position(&error.without_snippet().to_string()),
    })?;
    let mut lines = BTreeMap::new();
    let value = flatten(root.value, "", &mut lines);
    Ok(Parsed { value, lines })
}

fn line_of(line: u64) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX).max(1)
}

/// The message less ` at line 3, column 5`, which counts from the document's start; ours says file and line before it.
fn without_position(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    let at = message.find(" at line ").or_else(|| message.find(", line "));
    let message = at.map_or(message, |at| &message[..at]);
    // What it advises is for whoever calls the parser.
    let message = message.split_once(", set DuplicateKeyPolicy").map_or(message, |(said, _)| said);
    message.trim_start_matches("error: ").chars().take(500).collect()
}

fn flatten(tree: Tree, path: &str, lines: &mut BTreeMap<String, u32>) -> Value {
    match tree {
        Tree::Scalar(value) => value,
        Tree::Seq(items) => items
            .into_iter()
            .enumerate()
            .map(|(i, item)| {
                let path = format!("{path}[{i}]");
                lines.insert(path.clone(), line_of(item.referenced.line()));
                flatten(item.value, &path, lines)
            })
            .collect(),
        Tree::Map(entries) => {
            let mut map = Map::with_capacity(entries.len());
            for (key, item) in entries {
                let path = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                let line = [key.referenced.line(), item.referenced.line()].into_iter().find(|line| *line > 0);
                lines.insert(path.clone(), line_of(line.unwrap_or(1)));
                map.insert(key.value, flatten(item.value, &path, lines));
            }
            Value::Object(map)
        }
    }
}

/// A JSON value with positions.
enum Tree {
    Scalar(Value),
    Seq(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what JSON can express")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(v.into()))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(v.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Tree, E> {
        let number = Number::from_f64(v).ok_or_else(|| E::custom(format!("{v} is no number that JSON has")))?;
        Ok(Tree::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, v: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(v.into()))
    }

    fn visit_string<E>(self, v: String) -> Result<Tree, E> {
        Ok(Tree::Scalar(v.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = vec![];
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries: Vec<(Spanned<String>, Spanned<Tree>)> = vec![];
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            if key.value.len() > 1024 {
                return Err(A::Error::custom("a key is longer than 1024 bytes"));
            }
            entries.push((key, map.next_value()?));
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check_documents(text: &str, expect: &[(u32, &str)]) {
        let got: Vec<_> = documents(text).iter().map(|c| (c.first_line(), c.text.trim())).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn files_are_cut_at_markers() {
        check_documents("", &[]);
        check_documents("# nothing\n---\n---\n", &[]);
        check_documents("a: 1\n---\n\n# c\nb: 2", &[(1, "a: 1"), (5, "# c\nb: 2")]);
        check_documents("\u{feff}%YAML 1.2\n--- # first\na: 1\n...\n", &[(3, "# first\na: 1")]);
        check_documents("a: |\n  ---\n  x\n--- {b: 2}\n", &[(1, "a: |\n  ---\n  x"), (4, "{b: 2}")]);
        check_documents("a: [\n---\nb: 2\n", &[(1, "a: ["), (3, "b: 2")]);
        check_documents("a: 1\r\n---\r\nb: 2\r\n", &[(1, "a: 1"), (3, "b: 2")]);
        check_documents("----\n", &[(1, "----")]);
    }

    #[test]
    fn fields_have_lines() {
        let parsed = parse("a:\n  b:\n  - x: 1\n    y: 'z'\n  - {x: 2}\nc: true\n").unwrap();
        assert_eq!(parsed.value, json!({"a": {"b": [{"x": 1, "y": "z"}, {"x": 2}]}, "c": true}));
        let lines: Vec<_> = parsed.lines.iter().map(|(path, line)| (path.as_str(), *line)).collect();
        let expect = [
            ("a", 1),
            ("a.b", 2),
            ("a.b[0]", 3),
            ("a.b[0].x", 3),
            ("a.b[0].y", 4),
            ("a.b[1]", 5),
            ("a.b[1].x", 5),
            ("c", 6),
        ];
        assert_eq!(lines, expect);
    }

    #[test]
    fn json_is_yaml() {
        assert_eq!(
            parse("{\n\t\"a\": [1, 2.5, null, \"\\u00e9\"]\n}").unwrap().value,
            json!({"a": [1, 2.5, null, "é"]})
        );
    }

    #[track_caller]
    fn check_error(text: &str, line: u32, part: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.line == line && error.message.contains(part), "{error:?}");
        assert!(!error.message.contains("line"), "{error:?}");
    }

    #[test]
    fn errors_have_lines() {
        check_error("a: 1\nb: [1, 2\nc: 3\n", 3, "");
        check_error("a: 1\nb: 2\na: 3\n", 3, "duplicate");
        assert_eq!(parse("a: 1\na: 2\n").unwrap_err().message, "duplicate mapping key: a");
        check_error("a: 1\n  b: 2\n", 2, "");
        check_error("a: *nowhere\n", 1, "");
        check_error("a: .inf\n", 1, "");
    }

    #[test]
    fn bombs_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let aliases = vec![format!("*a{}", i - 1); 9].join(", ");
            text += &format!("a{i}: &a{i} [{aliases}]\n");
        }
        assert!(parse(&text).is_err());
        assert!(parse(&"[".repeat(10_000)).is_err());
        assert!(parse(&"- ".repeat(10_000)).is_err());
    }

    const PIECES: &[&str] = &[
        "---", "...", "\n", "a: ", "- ", "[", "]", "{", "}", "*x", "&x ", "|\n", "\"", "'", "\t", "  ", "!!int ",
        "<<: ", "x", ",",
    ];

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(
            text in "\\PC{0,200}",
            pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..60),
        ) {
            for text in [text, pieces.concat()] {
                for chunk in documents(&text) {
                    let _ = parse(chunk.text);
                }
            }
        }
    }
}
