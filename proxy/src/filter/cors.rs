//! Cross-origin requests (Fetch section 3.2; Gateway API GEP-1767): which pages may make them and read the answers.
//!
//! Preflights are answered here, before anybody is authenticated, since browsers send no credentials with them. What a
//! response says of this is the proxy's word, in place of the backend's: also what the proxy answers itself says it, so that
//! pages can read why they were refused. Where the answer depends on the origin, every response says so (`Vary`).

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    },
};
use snapshot::{
    check::{Unfit, reason},
    origin::{Origin, Pattern},
    proto,
};

use super::{Ctx, Filter, Flow, LocalReply, Stage, local_reply, origins, vary};
use crate::{
    fields::Fields,
    message::{RequestHead, ResponseHead},
};

/// The fields by which a response may be read by pages of other origins.
const OF_RESPONSES: [HeaderName; 3] =
    [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS];

/// The filter that says which origins may.
pub(super) struct Cors {
    origins: Box<[Pattern]>,
    credentials: bool,
    methods: Names,
    headers: Names,
    exposed: Names,
    max_age: HeaderValue,
}

/// Names as one value.
enum Names {
    None,
    Any,
    These(HeaderValue),
}

/// The origin of a request that is allowed, as its response names it.
struct Allowed(HeaderValue);

/// The method that a preflight asks about; `None`: the request is none.
pub(crate) fn asked(method: &Method, fields: &Fields) -> Option<Method> {
    let asked = (*method == Method::OPTIONS && fields.get(&ORIGIN).is_some())
        .then(|| fields.get(&ACCESS_CONTROL_REQUEST_METHOD))??;
    Method::from_bytes(asked).ok()
}

impl Cors {
    pub(super) fn compile(cors: &proto::Cors) -> Result<Self, Unfit> {
        Ok(Self {
            origins: origins::compile("cors.allowOrigins", &cors.allow_origins)?,
            credentials: cors.allow_credentials,
            methods: Names::compile("allowMethods", &cors.allow_methods)?,
            headers: Names::compile("allowHeaders", &cors.allow_headers)?,
            exposed: Names::compile("exposeHeaders", &cors.expose_headers)?,
            max_age: cors.max_age_seconds.into(),
        })
    }

    /// Whether every response says the same, to whomever: also to who names no origin, since caches keep it for others.
    fn is_for_all(&self) -> bool {
        !self.credentials && self.origins.contains(&Pattern::Any)
    }

    /// The origin, as the response names it; `None`: it is not allowed, or there is none.
    fn allowed(&self, fields: &Fields) -> Option<HeaderValue> {
        // Of several, each reader might take another one.
        let value = fields.only(&ORIGIN).ok()??;
        let origin = str::from_utf8(&value).ok().and_then(Origin::parse);
        // What is `null` is anybody's page, in a frame of its own: it gets nothing that a caller's credentials open.
        let may_be = origin.is_some() || !self.credentials;
        let is_allowed = may_be && self.origins.iter().any(|pattern| pattern.has(origin.as_ref()));
        is_allowed.then(|| HeaderValue::from_bytes(&value).ok())?
    }

    /// The answer to a preflight of an origin that is allowed. That origin is named on the response's way.
    fn preflight(&self, method: &Method, request: &Fields) -> Flow {
        let mut head = ResponseHead::new(StatusCode::NO_CONTENT);
        // What is asked for, not `*`: where credentials are allowed that is a name like any other, and where they are not it
        // does not stand for `Authorization`.
        let method = HeaderValue::from_str(method.as_str()).ok();
        self.methods.append(&mut head, ACCESS_CONTROL_ALLOW_METHODS, method);
        let asked = request.get_all(&ACCESS_CONTROL_REQUEST_HEADERS);
        let asked = asked.filter_map(|value| HeaderValue::from_bytes(value).ok());
        self.headers.append(&mut head, ACCESS_CONTROL_ALLOW_HEADERS, asked);
        head.fields.append(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        Flow::Reply(LocalReply { head, body: Bytes::new(), reason: "preflight", error_source: None })
    }
}

impl Filter for Cors {
    fn stage(&self) -> Stage {
        Stage::Cors
    }

    fn answers_preflights(&self) -> bool {
        true
    }

    fn on_request(&self, head: &mut RequestHead, ctx: &mut Ctx) -> Flow {
        let allowed = self.allowed(&head.fields);
        let is_allowed = allowed.is_some();
        if let Some(origin) = allowed.filter(|_| !self.is_for_all()) {
            ctx.state.keep(Allowed(origin));
        }
        match asked(&head.method, &head.fields) {
            None => Flow::Continue,
            Some(method) if is_allowed => self.preflight(&method, &head.fields),
            Some(_) => {
                let detail = "Pages of this origin may not make such requests.";
                local_reply::reply(StatusCode::FORBIDDEN, "origin_not_allowed", detail)
            }
        }
    }

    fn sees_responses(&self) -> bool {
        true
    }

    fn on_response(&self, head: &mut ResponseHead, _request: &RequestHead, ctx: &mut Ctx) {
        OF_RESPONSES.iter().for_each(|name| head.fields.remove(name));
        let origin = if self.is_for_all() {
            HeaderValue::from_static("*")
        } else {
            vary::add(&mut head.fields, &ORIGIN);
            let Some(Allowed(origin)) = ctx.state.take() else { return };
            origin
        };
        head.fields.append(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            head.fields.append(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        self.exposed.append(head, ACCESS_CONTROL_EXPOSE_HEADERS, [HeaderValue::from_static("*")]);
    }
}

impl Names {
    fn compile(list: &str, names: &[String]) -> Result<Self, Unfit> {
        match names {
            [] => Ok(Self::None),
            [any] if any == "*" => Ok(Self::Any),
            names => {
                let value = HeaderValue::try_from(names.join(", "));
                let unfit = |e: http::header::InvalidHeaderValue| {
                    Unfit::new(format!("cors.{list}"), reason::INVALID_HEADER, e.to_string())
                };
                Ok(Self::These(value.map_err(unfit)?))
            }
        }
    }

    /// Adds them as a field; `any`: what stands for any name.
    fn append(&self, head: &mut ResponseHead, name: HeaderName, any: impl IntoIterator<Item = HeaderValue>) {
        match self {
            Self::None => {}
            Self::Any => any.into_iter().for_each(|value| head.fields.append(name.clone(), value)),
            Self::These(names) => head.fields.append(name, names.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
