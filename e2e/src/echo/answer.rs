//! The upstream's answers: one function from request to response.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming};
use serde_json::json;

use super::websocket;

/// The body of every answer.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

/// Sent by `/bytes/N` in slices, so that N is no matter of memory.
static ZEROS: [u8; 64 * 1024] = [b'.'; 64 * 1024];

/// Answers one request of the upstream called `name`.
pub(super) async fn answer(name: &str, request: Request<Incoming>) -> Response<AnswerBody> {
    if websocket::wanted(&request) {
        return websocket::accept(request);
    }
    let path = request.uri().path().to_owned();
    let mut words = path.split('/').skip(1);
    let (command, first, second) = (words.next().unwrap_or_default(), number(words.next()), number(words.next()));
    match (command, first, second) {
        ("bytes", Some(count), None) => bytes(request, count).await,
        ("delay", Some(millis), None) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            drain(request.into_body()).await;
            text("ok\n")
        }
        ("status", Some(code), None) => {
            drain(request.into_body()).await;
            let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
            let mut response = text("");
            *response.status_mut() = status.unwrap_or(StatusCode::BAD_REQUEST);
            response
        }
        ("trailers", None, None) => trailers(request).await,
        ("upload", None, None) => {
            let count = drain(request.into_body()).await;
            document(&json!({ "bodyBytes": count }))
        }
        ("stream", Some(chunks), Some(millis)) => chunked(chunks, Duration::from_millis(millis)),
        _ => describe(name, request).await,
    }
}

fn number(word: Option<&str>) -> Option<u64> {
    word?.parse().ok()
}

async fn describe(name: &str, request: Request<Incoming>) -> Response<AnswerBody> {
    let (parts, body) = request.into_parts();
    let body_bytes = drain(body).await;
    let mut headers = serde_json::Map::new();
    for key in parts.headers.keys() {
        let values: Vec<_> = parts.headers.get_all(key).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        headers.insert(key.as_str().to_owned(), values.join(", ").into());
    }
    // HTTP/2 carries the host in `:authority`, which hyper puts into the URI.
    if let (None, Some(authority)) = (parts.headers.get(header::HOST), parts.uri.authority()) {
        headers.insert("host".to_owned(), authority.as_str().into());
    }
    document(&json!({
        "name": name,
        "method": parts.method.as_str(),
        "path": parts.uri.path_and_query().map_or("/", |path| path.as_str()),
        "version": format!("{:?}", parts.version),
        "headers": headers,
        "bodyBytes": body_bytes,
    }))
}

async fn bytes(request: Request<Incoming>, count: u64) -> Response<AnswerBody> {
    let head_only = request.method() == Method::HEAD;
    drain(request.into_body()).await;
    let body = match usize::try_from(count) {
        Ok(count) if count <= ZEROS.len() => Full::new(Bytes::from_static(&ZEROS[..count])).boxed_unsync(),
        _ => {
            let slices = stream::unfold(count, |left| async move {
                let now = left.min(ZEROS.len() as u64);
                let slice = Bytes::from_static(&ZEROS[..now as usize]);
                (now > 0).then(|| (Ok::<_, Infallible>(Frame::data(slice)), left - now))
            });
            StreamBody::new(slices).boxed_unsync()
        }
    };
    let mut response = Response::new(if head_only { Full::default().boxed_unsync() } else { body });
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    response
}

/// HTTP/1.1 sends trailers only to a client that said `TE: trailers`; HTTP/2 always does.
async fn trailers(request: Request<Incoming>) -> Response<AnswerBody> {
    drain(request.into_body()).await;
    let mut fields = HeaderMap::new();
    fields.insert("x-checksum", HeaderValue::from_static("abc123"));
    let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"hello\n"))), Ok(Frame::trailers(fields))];
    let mut response = Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-checksum"));
    response
}

fn chunked(chunks: u64, gap: Duration) -> Response<AnswerBody> {
    let frames = stream::unfold(0, move |sent| async move {
        if sent == chunks {
            return None;
        }
        if sent > 0 {
            tokio::time::sleep(gap).await;
        }
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("chunk {sent}\n")))), sent + 1))
    });
    Response::new(StreamBody::new(frames).boxed_unsync())
}

/// Reads a body to its end without keeping it, and counts its bytes. A body that breaks off counts as far as it came.
async fn drain(mut body: Incoming) -> u64 {
    let mut count = 0;
    if body.is_end_stream() {
        return count;
    }
    while let Some(Ok(frame)) = body.frame().await {
        count += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    count
}

fn text(body: &'static str) -> Response<AnswerBody> {
    Response::new(Full::new(Bytes::from_static(body.as_bytes())).boxed_unsync())
}

fn document(value: &serde_json::Value) -> Response<AnswerBody> {
    let mut text = value.to_string();
    text.push('\n');
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
