//! JSON objects that all parsers read alike: what two of them could read differently is refused (RFC 8259 section 4 leaves
//! open which of two members of one name counts; RFC 7519 section 4 lets them be refused).

use std::{cell::Cell, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::Reason;

/// Deepest nesting of an object, itself counted.
const MAX_DEPTH: usize = 16;

/// The object that the text is, whole. `known`: names that are read, in lower case; another spelling of one of them in the
/// object itself is refused.
pub(crate) fn object(text: &[u8], known: &[&str], most_members: usize) -> Result<Map<String, Value>, Reason> {
    let (fault, members) = (Cell::new(Reason::Malformed), Cell::new(most_members));
    let mut parser = serde_json::Deserializer::from_slice(text);
    let read = Seed { depth: MAX_DEPTH, members: &members, fault: &fault }.deserialize(&mut parser);
    match read.and_then(|value| parser.end().map(|()| value)) {
        Ok(Value::Object(object)) if object.keys().all(|name| !is_disguised(name, known)) => Ok(object),
        Ok(Value::Object(_)) => Err(Reason::AmbiguousMember),
        Ok(_) => Err(Reason::Malformed),
        Err(_) => Err(fault.get()),
    }
}

/// Whether some parsers take a name for another one that is known: Go's compare without regard to case, by Unicode's simple
/// folding, and those in C end a name at a NUL.
fn is_disguised(name: &str, known: &[&str]) -> bool {
    if known.contains(&name) {
        return false;
    }
    let folded = || {
        name.chars().map(|c| match c {
            'ſ' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
    };
    name.contains('\0') || known.iter().any(|known| folded().eq(known.chars()))
}

/// Reads a value. (`serde_json`'s own would take the last of two members of one name.)
struct Seed<'a> {
    /// Levels that may still be opened.
    depth: usize,
    /// Members that may still come.
    members: &'a Cell<usize>,
    /// Why it is refused, if not for its grammar.
    fault: &'a Cell<Reason>,
}

impl Seed<'_> {
    fn refuse<E: de::Error>(&self, reason: Reason) -> E {
        self.fault.set(reason);
        E::custom(reason)
    }

    fn inner<E: de::Error>(&self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| self.refuse(Reason::TooDeep))?;
        Ok(Self { depth, ..*self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = vec![];
        while let Some(value) = list.next_element_seed(self.inner()?)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let left = self.members.get().checked_sub(1).ok_or_else(|| self.refuse(Reason::Malformed))?;
            self.members.set(left);
            if object.contains_key(&name) {
                return Err(self.refuse(Reason::AmbiguousMember));
            }
            let value = members.next_value_seed(Seed { ..inner })?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: impl AsRef<[u8]>, reason: Reason) {
        let text = text.as_ref();
        assert_eq!(object(text, &["iss", "kid"], usize::MAX), Err(reason), "{}", String::from_utf8_lossy(text));
    }

    #[test]
    fn an_object_is_read_as_serde_json_reads_it() {
        let text = r#" {"a": [1, -2, 1.5, true, null, "\u0041\ud83d\ude00"], "A": {"a": {}}, "iss": "", "": 18446744073709551615} "#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(object(text.as_bytes(), &["iss", "kid"], usize::MAX).map(Value::Object), Ok(value));
    }

    #[test]
    fn what_two_parsers_read_differently_is_refused() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"b":[{"a":1,"b":2,"a":3}]}"#] {
            refused(text, Reason::AmbiguousMember);
        }
        for name in ["ISS", "Iss", "iSs", "iſs", "Kid", "\u{212a}id", "iss\\u0000", "a\\u0000"] {
            refused(format!(r#"{{"{name}":"a"}}"#), Reason::AmbiguousMember);
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(object(nested(MAX_DEPTH - 1).as_bytes(), &[], usize::MAX).is_ok());
        refused(nested(MAX_DEPTH), Reason::TooDeep);
        refused(nested(1_000_000), Reason::TooDeep);
        refused(r#"{"a":"#.repeat(MAX_DEPTH + 1), Reason::TooDeep);
    }

    #[test]
    fn members_are_bounded() {
        let text = br#"{"a":{"b":1},"c":[{"d":1}]}"#;
        assert_eq!(object(text, &[], 3), Err(Reason::Malformed));
        assert!(object(text, &[], 4).is_ok());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in [
            "",
            "1",
            "[]",
            "null",
            "\"{}\"",
            "{",
            "{}{}",
            "{} x",
            "{,}",
            r#"{"a":1,}"#,
            "{a:1}",
            "{'a':1}",
            r#"{"a":01}"#,
            r#"{"a":+1}"#,
            r#"{"a":0x1}"#,
            r#"{"a":NaN}"#,
            r#"{"a":1e400}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\x41"}"#,
            "{\"a\":\"\n\"}",
            "\u{feff}{}",
            "{}//",
            "{/**/}",
            "{\"a\":1}\0",
        ] {
            refused(text, Reason::Malformed);
        }
        refused(b"{\"a\":\"\xff\"}", Reason::Malformed);
        refused(b"{\"a\":\"\xc0\xaf\"}", Reason::Malformed);
        refused(b"{\"a\":\"\xed\xa0\x80\"}", Reason::Malformed);
    }
}
