//! The API server of unit tests: answers by a function, and tells what it was asked. What a real one does is for the tests that
//! have one (`operator/tests`).

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use hyper::{HeaderMap, Method, Request, Response, Uri};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A request, as the API server got it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    headers: HeaderMap,
    /// Null if there is none.
    pub(crate) body: Value,
}

impl Asked {
    /// The value of a header field; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A status code and a body.
    Sent(u16, String),
    /// No answer, ever.
    Silence,
}

impl Answer {
    pub(crate) fn json(code: u16, body: impl Into<Value>) -> Self {
        Self::Sent(code, body.into().to_string())
    }

    /// The refusal of a request.
    pub(crate) fn status(code: u16) -> Self {
        Self::json(code, status(code))
    }
}

/// What an API server says of a failure; its message is `m`.
pub(crate) fn status(code: u16) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "Unknown",
    };
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "m"})
}

/// A client of an API server that answers so, and what that is asked, each before it is answered.
pub(crate) fn api_server(
    answer: impl FnMut(&Asked) -> Answer + Send + 'static,
) -> (Client, mpsc::UnboundedReceiver<Asked>) {
    let (told, requests) = mpsc::unbounded_channel();
    let answer = Arc::new(Mutex::new(answer));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, told) = (Arc::clone(&answer), told.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
            let asked = Asked { method: head.method, uri: head.uri, headers: head.headers, body };
            let answer = (answer.lock().unwrap())(&asked);
            // Not every test asks.
            let _ = told.send(asked);
            match answer {
                Answer::Silence => std::future::pending().await,
                Answer::Sent(code, body) => {
                    Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(body.into_bytes())).unwrap())
                }
            }
        }
    });
    (Client::new(service, "sys"), requests)
}
