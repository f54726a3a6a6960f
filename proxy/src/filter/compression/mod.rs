//! Content coding of responses for clients that accept it (RFC 9110 sections 8.4 and 12.5.3).
//!
//! Coded is what gains by it and may be changed: never what is coded already, a part of a representation, forbidden to be
//! transformed (`Cache-Control: no-transform`, by either side), or accompanied by a digest of its content (RFC 9530),
//! which the client would find wrong. What could have been coded says so (`Vary`), whether it was or not. The answer to
//! HEAD has the fields that the answer to GET would have.

mod accept;
mod digests;
mod gzip;

use http::{
    HeaderValue, Method, StatusCode, Version,
    header::{
        ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
        ETAG, IF_NONE_MATCH,
    },
};
use snapshot::{check::Unfit, proto};

use self::{accept::Coding, digests::DIGESTS, gzip::Gzip};
use super::{BodyPlan, Ctx, Filter, Flow, Stage, vary};
use crate::{
    fields::Fields,
    http1::{
        body::Framing,
        grammar::{items, number},
    },
    message::{RequestHead, ResponseHead},
};

/// Media types that are coded unless a rule names its own: those of text, by whatever name.
const DEFAULT_TYPES: [&str; 22] = [
    "text/*",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/atom+xml",
    "application/geo+json",
    "application/graphql-response+json",
    "application/hal+json",
    "application/ld+json",
    "application/manifest+json",
    "application/problem+json",
    "application/problem+xml",
    "application/rss+xml",
    "application/vnd.api+json",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-ndjson",
    "application/xhtml+xml",
    "application/yaml",
    "font/otf",
    "font/ttf",
    "image/svg+xml",
];
/// Media types whose messages say themselves how they are coded, whatever a rule names.
const SELF_CODED: [&str; 2] = ["application/grpc", "application/connect+"];

/// Codes responses.
pub(super) struct Compression {
    /// The codings that it may choose from, the best first.
    codings: Box<[Coding]>,
    /// `type/subtype` or `type/*`; empty: the default ones.
    types: Box<[Box<str>]>,
    min_bytes: u64,
}

impl Compression {
    pub(super) fn compile(compression: &proto::Compression) -> Result<Self, Unfit> {
        let coding = |algorithm| match algorithm {
            proto::CompressionAlgorithm::Gzip => Coding::Gzip,
        };
        Ok(Self {
            codings: compression.algorithms().map(coding).collect(),
            types: compression.types.iter().map(|of| of.as_str().into()).collect(),
            min_bytes: compression.min_bytes,
        })
    }

    /// Whether a response could be coded, for a client that accepts that.
    fn is_for(&self, head: &ResponseHead, method: &Method, framing: Framing) -> bool {
        let fields = &head.fields;
        let length = match framing {
            // Of the body that GET would get.
            Framing::Empty if *method == Method::HEAD => fields.get(&CONTENT_LENGTH).map_or(Some(u64::MAX), number),
            Framing::Empty => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::CloseDelimited => Some(u64::MAX),
        };
        let without = matches!(
            head.status,
            StatusCode::NO_CONTENT
                | StatusCode::RESET_CONTENT
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::RANGE_NOT_SATISFIABLE
        );
        length.is_some_and(|length| length >= self.min_bytes.max(1))
            && !without
            && fields.get(&CONTENT_RANGE).is_none()
            && fields.get(&CONTENT_ENCODING).is_none()
            && fields.get(&CONTENT_TYPE).is_some_and(|media_type| self.is_of_type(media_type))
            && !forbids_transforming(fields)
            && DIGESTS.iter().all(|digest| fields.get(digest).is_none())
    }

    fn is_of_type(&self, media_type: &[u8]) -> bool {
        let begins =
            |with: &str| media_type.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()));
        let is = |of: &str| match of.strip_suffix('*') {
            Some(any) => begins(any),
            None => begins(of) && matches!(media_type.get(of.len()), None | Some(b';' | b' ' | b'\t')),
        };
        let named = match &*self.types {
            [] => DEFAULT_TYPES.iter().any(|of| is(of)),
            types => types.iter().any(|of| is(of)),
        };
        named && !SELF_CODED.iter().any(|with| begins(with))
    }
}

impl Filter for Compression {
    fn stage(&self) -> Stage {
        Stage::Compress
    }

    fn on_request(&self, head: &mut RequestHead, ctx: &mut Ctx) -> Flow {
        // To HTTP/1.0 what is coded could only be ended by the connection's end: a client would lose that, and not see where
        // a body broke off.
        if head.version > Version::HTTP_10
            && let Some(coding) = accept::preferred(&head.fields, &self.codings)
            && !forbids_transforming(&head.fields)
        {
            ctx.state.keep(coding);
        }
        Flow::Continue
    }

    fn sees_responses(&self) -> bool {
        true
    }

    fn on_response(&self, head: &mut ResponseHead, request: &RequestHead, ctx: &mut Ctx) {
        let coding = ctx.state.take::<Coding>();
        let Some(BodyPlan { framing, steps, has_room }) = &mut ctx.body else { return };
        if head.status == StatusCode::NOT_MODIFIED {
            // It is about a response of which it does not say whether that was coded.
            vary::add(&mut head.fields, &ACCEPT_ENCODING);
            if coding.is_some() && !has_uncoded(&request.fields, head.fields.get(&ETAG)) {
                head.fields.remove(&CONTENT_LENGTH);
                weaken(&mut head.fields);
            }
            return;
        }
        if !self.is_for(head, &request.method, *framing) {
            return;
        }
        vary::add(&mut head.fields, &ACCEPT_ENCODING);
        let Some(coding) = coding.filter(|_| *has_room) else { return };
        head.fields.insert(CONTENT_ENCODING, coding.name());
        head.fields.remove(&CONTENT_LENGTH);
        // Of ranges that it has before it is coded.
        head.fields.remove(&ACCEPT_RANGES);
        weaken(&mut head.fields);
        if *framing != Framing::Empty {
            match coding {
                Coding::Gzip => steps.push(Gzip::default()),
            }
        }
    }
}

/// Makes an entity tag a weak one: what is coded here is not the same, byte for byte (RFC 9110 section 8.8.3).
fn weaken(fields: &mut Fields) {
    let strong = fields.get(&ETAG).filter(|tag| tag.starts_with(b"\""));
    if let Some(weak) = strong.and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag].concat()).ok()) {
        fields.insert(ETAG, weak);
    }
}

/// Whether a client names this very tag: then what it has was not coded here, whose tag would be a weak one.
fn has_uncoded(request: &Fields, tag: Option<&[u8]>) -> bool {
    tag.is_some_and(|tag| request.get_all(&IF_NONE_MATCH).flat_map(items).any(|item| item == tag))
}

/// Whether nobody on the way may change the content (RFC 9111 sections 5.2.1.6 and 5.2.2.6).
fn forbids_transforming(fields: &Fields) -> bool {
    fields.get_all(&CACHE_CONTROL).any(|value| items(value).any(|item| item.eq_ignore_ascii_case(b"no-transform")))
}

#[cfg(test)]
mod tests;
