//! Claims: what a token says of its subject (RFC 7519 section 4), and where in it something stands.

use std::{borrow::Cow, fmt};

use serde_json::{Map, Number, Value};

use crate::Reason;

/// Claims that are read, whatever is asked of a token.
pub(crate) const READ: [&str; 7] = ["iss", "aud", "exp", "nbf", "iat", "scope", "scp"];
/// Latest time that a claim may name, in seconds: the end of the year 9999. What lies behind it was not meant as seconds.
const MAX_NUMERIC_DATE: i64 = 253_402_300_799;

/// The claims of a token that was verified.
#[derive(Clone, PartialEq)]
pub struct Claims(pub(crate) Map<String, Value>);

/// The place of a claim: a name, or if it begins with `/` a JSON Pointer (RFC 6901), such as `/realm_access/roles`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(String);

/// A place of a claim that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "name a claim (`sub`), or one within claims by a JSON Pointer (`/realm_access/roles`), where ~ is written ~0 and / in a \
     name ~1"
)]
pub struct InvalidPath;

/// A claim that a token must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredClaim {
    /// The place of the claim.
    pub path: ClaimPath,
    /// The values of which it must have one; empty: any will do but `null`.
    pub values: Vec<String>,
}

impl ClaimPath {
    /// The place that a text names.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        let pointer = text.starts_with('/');
        let mut escapes = text.split('~').skip(1);
        let is_valid = match pointer {
            true => escapes.all(|rest| rest.starts_with(['0', '1'])),
            false => !text.is_empty(),
        };
        if is_valid { Ok(Self(text.to_owned())) } else { Err(InvalidPath) }
    }

    /// The name at the top that it begins with.
    pub fn top(&self) -> Cow<'_, str> {
        match self.0.strip_prefix('/') {
            Some(pointer) => {
                let first = pointer.split('/').next().unwrap_or_default();
                first.replace("~1", "/").replace("~0", "~").into()
            }
            None => self.0.as_str().into(),
        }
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names alone: values are the client's own.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Claims {
    /// The value at a place.
    pub fn get(&self, path: &ClaimPath) -> Option<&Value> {
        let Some(pointer) = path.0.strip_prefix('/') else { return self.0.get(&path.0) };
        let mut value = self.0.get(&*path.top())?;
        if let Some((_, rest)) = pointer.split_once('/') {
            value = value.pointer(&path.0[path.0.len() - rest.len() - 1..])?;
        }
        Some(value)
    }

    /// The value at a place as text: of a string itself, of a boolean or a whole number what JSON writes.
    pub fn text(&self, path: &ClaimPath) -> Option<Cow<'_, str>> {
        text(self.get(path)?)
    }

    /// The value at a place as that of a header field: as text, or of a list the texts with commas between. `None`: there is
    /// none, or a field would say something else: it would lose spaces at its ends, or a list get more elements.
    pub fn field(&self, path: &ClaimPath) -> Option<String> {
        let value = self.get(path)?;
        let joined = match value {
            Value::Array(list) => {
                let list: Option<Vec<_>> = list.iter().map(element).collect();
                list?.join(",")
            }
            value => text(value)?.into_owned(),
        };
        let is_plain = !joined.bytes().any(|byte| byte.is_ascii_control());
        let is_whole = joined.trim_ascii().len() == joined.len() && !joined.is_empty();
        (is_plain && is_whole).then_some(joined)
    }

    pub(crate) fn issuer(&self) -> Option<&str> {
        self.0.get("iss")?.as_str()
    }

    /// Whether the token is for one of these, or where there is none says nothing of whom it is for (RFC 7519 section
    /// 4.1.3).
    pub(crate) fn is_for(&self, audiences: &[String]) -> Result<bool, Reason> {
        let is_one = |text: &str| audiences.iter().any(|audience| audience == text);
        match self.0.get("aud") {
            None => Ok(audiences.is_empty()),
            Some(Value::String(audience)) => Ok(is_one(audience)),
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
                Ok(list.iter().filter_map(Value::as_str).any(is_one))
            }
            Some(_) => Err(Reason::InvalidClaim),
        }
    }

    /// A time, in milliseconds since 1970.
    pub(crate) fn time(&self, name: &str) -> Result<Option<i64>, Reason> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let number = value.as_number().ok_or(Reason::InvalidClaim)?;
        let ms = millis(number).ok_or(Reason::InvalidClaim)?;
        Ok(Some(ms))
    }

    pub(crate) fn has(&self, required: &RequiredClaim) -> bool {
        let is_one = |value: &Value| text(value).is_some_and(|text| required.values.iter().any(|one| **one == text));
        match self.get(&required.path) {
            None | Some(Value::Null) => false,
            Some(_) if required.values.is_empty() => true,
            Some(Value::Array(list)) => list.iter().any(is_one),
            Some(value) => is_one(value),
        }
    }

    /// The scopes: `scope` as RFC 8693 section 4.2 has it, or else `scp`; either a text with spaces between, or a list.
    pub fn scopes(&self) -> Result<Vec<&str>, Reason> {
        match self.0.get("scope").or_else(|| self.0.get("scp")) {
            None => Ok(vec![]),
            Some(Value::String(text)) => Ok(text.split(' ').filter(|scope| !scope.is_empty()).collect()),
            Some(Value::Array(list)) => list.iter().map(|scope| scope.as_str().ok_or(Reason::InvalidClaim)).collect(),
            Some(_) => Err(Reason::InvalidClaim),
        }
    }
}

fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Bool(value) => Some(value.to_string().into()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string().into()),
        _ => None,
    }
}

/// An element of a list in a field.
fn element(value: &Value) -> Option<Cow<'_, str>> {
    text(value).filter(|text| !text.contains(',') && text.trim_ascii().len() == text.len() && !text.is_empty())
}

fn millis(number: &Number) -> Option<i64> {
    let seconds = match (number.as_i64(), number.as_f64()) {
        (Some(seconds), _) => return (seconds <= MAX_NUMERIC_DATE).then(|| seconds.max(0) * 1000),
        (None, Some(seconds)) => seconds,
        (None, None) => return None,
    };
    (seconds <= MAX_NUMERIC_DATE as f64).then(|| (seconds.max(0.0) * 1000.0) as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        let Value::Object(object) = value else { panic!("no object") };
        Claims(object)
    }

    fn path(text: &str) -> ClaimPath {
        ClaimPath::parse(text).unwrap()
    }

    #[test]
    fn a_claim_is_named_or_pointed_at() {
        let claims = claims(json!({
            "sub": "a", "https://shop.example/roles": "b", "a.b": "c", "a": {"b": "d", "c/d": {"~": "e"}, "": "f"},
            "list": ["g", {"h": "i"}], "": "j",
        }));
        for (at, value) in [
            ("sub", "a"),
            ("/sub", "a"),
            ("https://shop.example/roles", "b"),
            ("a.b", "c"),
            ("/a/b", "d"),
            ("/a/c~1d/~0", "e"),
            ("/a/", "f"),
            ("/list/0", "g"),
            ("/list/1/h", "i"),
            ("/", "j"),
        ] {
            assert_eq!(claims.text(&path(at)).as_deref(), Some(value), "{at}");
        }
        for at in ["Sub", "a/b", "/a/b/c", "/a/x", "/sub/x", "/list/2", "/list/-", "/list/00", "/x/y"] {
            assert_eq!(claims.get(&path(at)), None, "{at}");
        }
        assert_eq!(path("/c~1d/e").top(), "c/d");
        for at in ["", "/a~", "/a~2", "/~/b"] {
            assert_eq!(ClaimPath::parse(at), Err(InvalidPath), "{at}");
        }
    }

    #[test]
    fn a_field_says_what_the_claim_says_or_is_not_there() {
        for (value, field) in [
            (json!("alice"), Some("alice")),
            (json!("a b, c"), Some("a b, c")),
            (json!("zoë"), Some("zoë")),
            (json!(9_007_199_254_740_993_u64), Some("9007199254740993")),
            (json!(-1), Some("-1")),
            (json!(true), Some("true")),
            (json!(["a", 1, false]), Some("a,1,false")),
            (json!(1.5), None),
            (json!(null), None),
            (json!({}), None),
            (json!([]), None),
            (json!(""), None),
            (json!(" admin"), None),
            (json!("admin\t"), None),
            (json!("a\r\nX-User: admin"), None),
            (json!("a\0"), None),
            (json!(["user", "x,admin"]), None),
            (json!(["user", " admin"]), None),
            (json!(["user", ""]), None),
            (json!(["user", ["admin"]]), None),
        ] {
            assert_eq!(claims(json!({"a": value})).field(&path("a")).as_deref(), field, "{value}");
        }
        assert_eq!(claims(json!({})).field(&path("a")), None);
    }

    #[test]
    fn scopes_are_a_text_or_a_list() {
        let scopes = |value| claims(value).scopes().map(|scopes| scopes.join("|"));
        assert_eq!(scopes(json!({"scope": "read  write "})).as_deref(), Ok("read|write"));
        assert_eq!(scopes(json!({"scp": ["read", "write all"]})).as_deref(), Ok("read|write all"));
        assert_eq!(scopes(json!({"scope": "", "scp": ["admin"]})).as_deref(), Ok(""));
        assert_eq!(scopes(json!({})).as_deref(), Ok(""));
        for value in
            [json!({"scope": 1}), json!({"scp": [1]}), json!({"scope": {"admin": true}}), json!({"scope": null})]
        {
            assert_eq!(scopes(value), Err(Reason::InvalidClaim));
        }
    }
}
