//! A message's head on its way through, whatever protocol it came by.

use http::{Method, Response, StatusCode, Uri, Version, request, response};

use crate::fields::{self, Fields};

/// A request's head.
#[derive(Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target: as it came, then in origin form with the checked path.
    pub uri: Uri,
    /// The version that the client speaks.
    pub version: Version,
    /// The fields that are for the upstream.
    pub fields: Fields,
}

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The fields that are for the client.
    pub fields: Fields,
}

impl From<request::Parts> for RequestHead {
    fn from(parts: request::Parts) -> Self {
        let request::Parts { method, uri, version, headers, .. } = parts;
        Self { method, uri, version, fields: headers.into() }
    }
}

impl ResponseHead {
    /// A head without fields.
    pub(crate) fn new(status: StatusCode) -> Self {
        Self { status, fields: fields::take() }
    }
}

impl From<response::Parts> for ResponseHead {
    fn from(parts: response::Parts) -> Self {
        Self { status: parts.status, fields: parts.headers.into() }
    }
}

impl From<ResponseHead> for response::Parts {
    fn from(head: ResponseHead) -> Self {
        let (mut parts, ()) = Response::new(()).into_parts();
        (parts.status, parts.headers) = (head.status, head.fields.to_map());
        fields::give_back(head.fields);
        parts
    }
}
