//! The columns of `get`: those that the CustomResourceDefinitions print in `kubectl get`.

use serde_json::Value;

/// Evaluates a printer column's JSONPath: `.a.b`, `[0]` and `[?(@.k=="v")]`, which are the forms that ours have.
pub(super) fn evaluate<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = value;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[?(@.") {
            let (condition, after) = after.split_once(")]")?;
            let (key, wanted) = condition.split_once("==")?;
            let wanted = wanted.trim().trim_matches('"');
            value = value.as_array()?.iter().find(|item| item[key.trim()].as_str() == Some(wanted))?;
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']')?;
            value = value.get(index.parse::<usize>().ok()?)?;
            rest = after;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            value = value.get(&after[..end])?;
            rest = &after[end..];
        }
    }
    Some(value)
}

/// A cell as kubectl prints it.
pub(super) fn cell(value: Option<&Value>, kind: &str, now: jiff::Timestamp) -> String {
    match value {
        None | Some(Value::Null) if kind == "date" => "<unknown>".into(),
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) if kind == "date" => {
            text.parse::<jiff::Timestamp>().map_or_else(|_| "<unknown>".into(), |then| age(now.duration_since(then)))
        }
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// An age in the one or two units that kubectl uses.
fn age(age: jiff::SignedDuration) -> String {
    let s = age.as_secs().max(0);
    let (m, h, d) = (s / 60, s / 3600, s / 86400);
    match () {
        () if s < 120 => format!("{s}s"),
        () if m < 10 && s % 60 > 0 => format!("{m}m{}s", s % 60),
        () if h < 3 => format!("{m}m"),
        () if h < 8 && m % 60 > 0 => format!("{h}h{}m", m % 60),
        () if h < 48 => format!("{h}h"),
        () if d < 8 && h % 24 > 0 => format!("{d}d{}h", h % 24),
        () if d < 730 => format!("{d}d"),
        () => format!("{}y", d / 365),
    }
}

/// Rows below their heads, each column as wide as its widest cell.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("   ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths() {
        let value = json!({"a": {"b": [{"type": "X", "status": "True"}, {"type": "Y"}], "n": 3}});
        let check = |path, expect: Option<Value>| assert_eq!(evaluate(&value, path), expect.as_ref(), "{path}");
        check(".a.n", Some(json!(3)));
        check(".a.b[1].type", Some(json!("Y")));
        check(r#".a.b[?(@.type=="X")].status"#, Some(json!("True")));
        check(r#".a.b[?(@.type=="Z")].status"#, None);
        check(".a.c", None);
        check("a", None);
    }

    #[test]
    fn every_column_of_ours_is_understood() {
        for crd in crds::definitions() {
            for version in crd.spec.versions {
                for column in version.additional_printer_columns.unwrap_or_default() {
                    let path = column.json_path;
                    let known = path.replace(r#"[?(@.type==""#, "").replace(r#"")]"#, "").replace("[0]", "");
                    assert!(known.chars().all(|c| c.is_ascii_alphanumeric() || c == '.'), "{path}");
                }
            }
        }
    }

    #[test]
    fn ages() {
        let check = |s: i64, expect| assert_eq!(age(jiff::SignedDuration::from_secs(s)), expect);
        check(-5, "0s");
        check(119, "119s");
        check(125, "2m5s");
        check(3 * 3600 + 60, "3h1m");
        check(12 * 86400, "12d");
        check(800 * 86400, "2y");
    }
}
