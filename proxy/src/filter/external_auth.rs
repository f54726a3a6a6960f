//! External authorization by HTTP (Gateway API GEP-1494; Envoy's `ext_authz` in plain HTTP).
//!
//! A service is asked with the request's method, host and path, its `Authorization`, and the fields that the filter
//! names; never with its body. 200 lets the request go on, with the fields of that answer which the filter names in place
//! of the client's own. Redirections and 4xx are what the client gets. Everything else, and no answer in time, is a
//! failure: 503. When the filter fails open, a request goes on that found no service: no connection, no answer in time,
//! or 502, 503 or 504 of what stands before it. What a client can bring about by itself never opens.

use std::{fmt::Display, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{self, AUTHORIZATION, CONTENT_LENGTH, HOST},
    uri::PathAndQuery,
};
use snapshot::{
    Key,
    check::{Unfit, reason},
    proto,
};

use super::{Ctx, Filter, Flow, LocalReply, Resume, Stage, Wait, local_reply, parts::Parts};
use crate::{
    fields::Fields,
    http1::grammar::number,
    message::{RequestHead, ResponseHead},
    services::{self, Bounds, CallError, Response},
    telemetry::{AuthDecisions, ErrorSource, Sharded, Waiter},
    upstream::{ClusterSlot, ConnectError},
};

/// Bytes of the service's answer, which a client gets when it is refused.
const MAX_RESPONSE_BYTES: usize = 64 << 10;
/// Fields that a client needs of an answer that refuses it.
const OF_REFUSALS: [HeaderName; 8] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CACHE_CONTROL,
    header::LOCATION,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::WWW_AUTHENTICATE,
];

/// The word for requests that the service refuses.
const DENIED: &str = "external_auth_denied";

/// A failure to ask: what the client gets, and the words for metrics and log.
#[derive(Clone, Copy)]
struct Failure {
    status: StatusCode,
    reason: &'static str,
    source: ErrorSource,
}

const fn failure(status: StatusCode, reason: &'static str, source: ErrorSource) -> Failure {
    Failure { status, reason, source }
}

/// The snapshot lacks the service.
const MISSING: Failure = failure(StatusCode::INTERNAL_SERVER_ERROR, "external_auth_missing", ErrorSource::Internal);
/// The client's share of the descriptors is used up.
const CLIENT_EXHAUSTED: Failure =
    failure(StatusCode::SERVICE_UNAVAILABLE, "client_descriptors_exhausted", ErrorSource::Downstream);
/// The proxy has no descriptor left.
const EXHAUSTED: Failure = failure(StatusCode::SERVICE_UNAVAILABLE, "external_auth_failed", ErrorSource::Internal);
/// As many requests wait for the service as may.
const BUSY: Failure = failure(StatusCode::SERVICE_UNAVAILABLE, "external_auth_busy", ErrorSource::External);
/// The service did not answer in time.
const TIMEOUT: Failure = failure(StatusCode::SERVICE_UNAVAILABLE, "external_auth_timeout", ErrorSource::External);
/// The service can't be reached, broke off, or gave an answer that says neither yes nor no.
const FAILED: Failure = failure(StatusCode::SERVICE_UNAVAILABLE, "external_auth_failed", ErrorSource::External);

/// The filter that asks.
pub(super) struct ExternalAuth(Arc<Settings>);

struct Settings {
    service: Arc<ClusterSlot>,
    /// Before the request's path.
    path: Box<str>,
    /// Fields that the service is told, besides `Host` and `Authorization`.
    request_fields: Vec<HeaderName>,
    /// Fields of its answer that go upstream, or to a client that is refused.
    response_fields: Vec<HeaderName>,
    bounds: Bounds,
    fail_open: bool,
    decisions: Arc<Sharded<AuthDecisions>>,
}

impl ExternalAuth {
    pub(super) fn compile(auth: &proto::ExternalAuth, parts: &mut Parts<'_>) -> Result<Self, Unfit> {
        let names = |list: &str, names: &[String]| {
            let name = |(i, name): (usize, &String)| {
                let field = || format!("externalAuth.http.{list}[{i}]");
                HeaderName::from_bytes(name.as_bytes())
                    .map_err(|e| Unfit::new(field(), reason::INVALID_HEADER, format!("{name:?}: {e}")))
            };
            names.iter().enumerate().map(name).collect::<Result<_, Unfit>>()
        };
        let key = auth.cluster.parse::<Key>();
        let key = key.map_err(|e| Unfit::new("externalAuth.backendRef", reason::WRONG_REFERENCE, e.to_string()))?;
        let timeout = Duration::from_millis(auth.timeout_ms);
        Ok(Self(Arc::new(Settings {
            service: (parts.slots)(&key),
            path: auth.path.trim_end_matches('/').into(),
            request_fields: names("allowedHeaders", &auth.request_headers)?,
            response_fields: names("allowedResponseHeaders", &auth.response_headers)?,
            bounds: Bounds { timeout, response_bytes: MAX_RESPONSE_BYTES },
            fail_open: auth.fail_open,
            decisions: Arc::clone(&parts.telemetry.auth_decisions),
        })))
    }
}

impl Filter for ExternalAuth {
    fn stage(&self) -> Stage {
        Stage::Authz
    }

    fn on_request(&self, head: &mut RequestHead, _ctx: &mut Ctx) -> Flow {
        if head.fields.get_all(&AUTHORIZATION).nth(1).is_some() {
            // The service might read one of them, and the backend another.
            let detail = "The request has more than one Authorization field.";
            return local_reply::reply(StatusCode::BAD_REQUEST, "several_credentials", detail);
        }
        let Some(question) = self.0.question(head) else {
            let detail = "The request target is too long to be checked.";
            return local_reply::reply(StatusCode::URI_TOO_LONG, "target_too_long", detail);
        };
        let settings = Arc::clone(&self.0);
        Flow::Wait(Wait::new(Waiter::ExternalAuth, |caller| async move {
            let question = (question, Bytes::new());
            let answer = services::call(&caller, &settings.service, question, settings.bounds).await;
            Box::new(move |head: &mut RequestHead, _: &mut Ctx| settings.decide(answer, head)) as Resume
        }))
    }
}

impl Settings {
    /// The request to the service; `None`: its target would be too long.
    fn question(&self, head: &RequestHead) -> Option<RequestHead> {
        let mut fields = Fields::default();
        for name in [HOST, AUTHORIZATION].iter().chain(&self.request_fields) {
            // Named twice, it is told once.
            if fields.get(name).is_none() {
                carry(&head.fields, name, &mut fields);
            }
        }
        let target = head.uri.path_and_query().filter(|target| target.path() != "*");
        let target = match (&*self.path, target) {
            ("", Some(target)) => target.clone(),
            (prefix, target) => {
                let path = target.map_or("/", PathAndQuery::as_str);
                PathAndQuery::try_from(format!("{prefix}{path}")).ok()?
            }
        };
        Some(RequestHead { method: head.method.clone(), uri: target.into(), version: Version::HTTP_11, fields })
    }

    fn decide(&self, answer: Result<Response, CallError>, head: &mut RequestHead) -> Flow {
        let Response { head: answer, body } = match answer {
            Ok(answer) => answer,
            Err(e @ CallError::NoCluster) => return self.fail(&e, MISSING),
            // Clients that send enough requests, or hold enough connections, would open the route otherwise.
            Err(e @ CallError::Full) => return self.fail(&e, BUSY),
            Err(e @ CallError::Exhausted) => return self.fail(&e, CLIENT_EXHAUSTED),
            Err(e @ CallError::Connect(ConnectError::Exhausted)) => return self.fail(&e, EXHAUSTED),
            Err(e) if self.fail_open && is_away(&e) => return self.pass_unchecked(&e, head),
            Err(e @ CallError::Timeout) => return self.fail(&e, TIMEOUT),
            Err(e) => return self.fail(&e, FAILED),
        };
        match answer.status {
            StatusCode::OK => {
                self.decisions.own().allowed.count();
                for name in &self.response_fields {
                    head.fields.remove_disguised(name);
                    carry(&answer.fields, name, &mut head.fields);
                }
                Flow::Continue
            }
            status if is_refusal(status) => {
                self.decisions.own().denied.count();
                self.refuse(&answer, body, &head.method)
            }
            // Said by what stands before the service. An error of its own may be of the client's making.
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
                if self.fail_open =>
            {
                self.pass_unchecked(&answer.status, head)
            }
            status => self.fail(&status, FAILED),
        }
    }

    /// The service's answer is the client's; a refusal whose body is not whole is one all the same.
    fn refuse(&self, answer: &ResponseHead, body: Result<Bytes, CallError>, method: &Method) -> Flow {
        let Ok(body) = body else {
            let body = local_reply::problem(answer.status, "The request is refused.");
            let head = local_reply::head(answer.status);
            return Flow::Reply(LocalReply { head, body, reason: DENIED, error_source: None });
        };
        let mut head = ResponseHead::new(answer.status);
        for name in OF_REFUSALS.iter().chain(self.response_fields.iter().filter(|name| !OF_REFUSALS.contains(name))) {
            carry(&answer.fields, name, &mut head.fields);
        }
        if *method == Method::HEAD && answer.fields.get(&CONTENT_LENGTH).is_some_and(|length| number(length).is_some())
        {
            // Asked by HEAD, the service says no body, but may say how long it would be.
            carry(&answer.fields, &CONTENT_LENGTH, &mut head.fields);
        }
        Flow::Reply(LocalReply { head, body, reason: DENIED, error_source: None })
    }

    /// Nobody has checked the request, which goes on all the same: without what only the service may say of it.
    fn pass_unchecked(&self, why: &dyn Display, head: &mut RequestHead) -> Flow {
        tracing::debug!(service = %self.service.key, error = %why, "not checked");
        self.decisions.own().unchecked.count();
        self.response_fields.iter().for_each(|name| head.fields.remove_disguised(name));
        Flow::Continue
    }

    fn fail(&self, why: &dyn Display, failure: Failure) -> Flow {
        tracing::debug!(service = %self.service.key, error = %why, "not checked");
        self.decisions.own().failed.count();
        let Failure { status, reason, source } = failure;
        let body = local_reply::problem(status, "The request could not be checked.");
        Flow::Reply(LocalReply { head: local_reply::head(status), body, reason, error_source: Some(source) })
    }
}

/// Whether there is no service that could have answered: anything else may be of the client's making.
fn is_away(error: &CallError) -> bool {
    matches!(error, CallError::NoEndpoint | CallError::Connect(_) | CallError::Timeout)
}

/// Whether an answer refuses the request: a redirection, to where one logs in, or an error of the client's.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() || status.is_redirection() && status != StatusCode::NOT_MODIFIED
}

/// Adds every value of a name to other fields.
fn carry(from: &Fields, name: &HeaderName, to: &mut Fields) {
    for value in from.get_all(name) {
        // It was found valid when it came.
        if let Ok(value) = HeaderValue::from_bytes(value) {
            to.append(name.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests;
