//! Sets, adds and removes header fields, of requests or of responses.

use http::{HeaderName, HeaderValue};
use snapshot::{
    check::{Unfit, reason},
    proto,
};

use super::{Ctx, Filter, Flow, Stage};
use crate::{
    fields::Fields,
    message::{RequestHead, ResponseHead},
};

/// The changes, in this order: set, add, remove.
struct Changes {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

/// Changes requests.
pub(super) struct RequestHeaders(Changes);

/// Changes responses.
pub(super) struct ResponseHeaders(Changes);

impl RequestHeaders {
    pub(super) fn compile(modifier: &proto::HeaderModifier) -> Result<Self, Unfit> {
        Changes::compile("requestHeaderModifier", modifier).map(Self)
    }
}

impl ResponseHeaders {
    pub(super) fn compile(modifier: &proto::HeaderModifier) -> Result<Self, Unfit> {
        Changes::compile("responseHeaderModifier", modifier).map(Self)
    }
}

impl Filter for RequestHeaders {
    fn stage(&self) -> Stage {
        Stage::Rewrite
    }

    fn on_request(&self, head: &mut RequestHead, _ctx: &mut Ctx) -> Flow {
        self.0.apply(&mut head.fields);
        Flow::Continue
    }
}

impl Filter for ResponseHeaders {
    fn stage(&self) -> Stage {
        Stage::Rewrite
    }

    fn sees_responses(&self) -> bool {
        true
    }

    fn on_response(&self, head: &mut ResponseHead, _request: &RequestHead, _ctx: &mut Ctx) {
        self.0.apply(&mut head.fields);
    }
}

impl Changes {
    fn compile(within: &str, modifier: &proto::HeaderModifier) -> Result<Self, Unfit> {
        let unfit = |field: String, e: String| Unfit::new(format!("{within}.{field}"), reason::INVALID_HEADER, e);
        let name = |field: String, name: &str| {
            HeaderName::from_bytes(name.as_bytes()).map_err(|e| unfit(field, format!("{name:?}: {e}")))
        };
        let fields = |list: &str, headers: &[proto::Header]| {
            let field = |(i, header): (usize, &proto::Header)| {
                let value = HeaderValue::from_bytes(header.value.as_bytes());
                let value = value.map_err(|e| unfit(format!("{list}[{i}].value"), e.to_string()))?;
                Ok((name(format!("{list}[{i}].name"), &header.name)?, value))
            };
            headers.iter().enumerate().map(field).collect::<Result<_, Unfit>>()
        };
        let remove = modifier.remove.iter().enumerate().map(|(i, n)| name(format!("remove[{i}]"), n));
        Ok(Self {
            set: fields("set", &modifier.set)?,
            add: fields("add", &modifier.add)?,
            remove: remove.collect::<Result<_, Unfit>>()?,
        })
    }

    fn apply(&self, fields: &mut Fields) {
        for (name, value) in &self.set {
            fields.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            fields.append(name.clone(), value.clone());
        }
        for name in &self.remove {
            fields.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_add_remove() {
        let header = |name: &str, value: &str| proto::Header { name: name.into(), value: value.into() };
        let modifier = proto::HeaderModifier {
            set: vec![header("X-Set", "new")],
            add: vec![header("x-add", "2"), header("x-gone", "1")],
            remove: vec!["X-Gone".into(), "x-absent".into()],
        };
        let of = |fields: &[(&'static str, &'static str)]| -> Fields {
            let field = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            fields.iter().map(field).collect()
        };
        let mut fields = of(&[("x-set", "1"), ("x-set", "2"), ("x-add", "1"), ("x-gone", "0")]);
        Changes::compile("m", &modifier).unwrap().apply(&mut fields);
        let expect = of(&[("x-set", "new"), ("x-add", "1"), ("x-add", "2")]);
        assert_eq!(fields.to_map(), expect.to_map());
    }

    #[test]
    fn the_field_is_named() {
        let modifier = proto::HeaderModifier { remove: vec!["a".into(), "b c".into()], ..Default::default() };
        assert_eq!(Changes::compile("m", &modifier).err().unwrap().field, "m.remove[1]");
    }
}
