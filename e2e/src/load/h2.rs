//! HTTP/2 clients: kept connections with concurrent streams.
//!
//! Built on the h2 crate itself, because it tells a stream above GOAWAY's last id (which the server promises not to have
//! seen) from a stream that failed.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Uri, Version};
use tokio::{sync::Mutex, task::JoinSet};

use super::{Context, h1::reason, net::Protocol, report::Answer};

/// New connections that one request may need: its own may be retired while it waits, and so may the next.
const MAX_ATTEMPTS: usize = 4;

/// Starts one kept connection: `h2_streams` tasks that share it.
pub(super) fn kept(context: &Context, clients: &mut JoinSet<()>) {
    let slot = Arc::new(Mutex::new(Slot { sender: None, generation: 0 }));
    for _ in 0..context.plan.h2_streams.max(1) {
        clients.spawn(stream(context.clone(), Arc::clone(&slot)));
    }
}

struct Slot {
    sender: Option<SendRequest<Bytes>>,
    generation: u64,
}

async fn stream(mut context: Context, slot: Arc<Mutex<Slot>>) {
    // Opened before the first request is due. A failure shows at the first request.
    let _ = open(&context, &slot).await;
    while let Some(from) = context.due().await {
        let path = context.next_path();
        send(&context, &slot, path, from).await;
    }
}

async fn send(context: &Context, slot: &Mutex<Slot>, path: usize, from: Instant) {
    let path = &context.plan.paths[path];
    let outcome = tokio::time::timeout(context.plan.timeout, attempts(context, slot, path)).await;
    match outcome {
        Ok(Ok(answer)) => context.stats.answered(from, &answer, path),
        Ok(Err(reason)) => context.stats.failed(&reason, path),
        Err(_) => context.stats.failed("h2 timeout", path),
    }
}

async fn attempts(context: &Context, slot: &Mutex<Slot>, path: &str) -> Result<Answer, String> {
    for _ in 0..MAX_ATTEMPTS {
        let (sender, generation) = open(context, slot).await?;
        // Not ready, or refused by the library itself: nothing was sent, and the connection takes no more requests.
        let mut sender = match sender.ready().await {
            Ok(sender) => sender,
            Err(error) => {
                leave(context, slot, generation, &error).await;
                continue;
            }
        };
        match exchange(context, &mut sender, path).await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Unsent(error)) => leave(context, slot, generation, &error).await,
            Err(Failure::Sent(error)) if above_last_id(&error) => {
                context.stats.above_goaway();
                leave(context, slot, generation, &error).await;
            }
            Err(Failure::Sent(error)) => return Err(describe(&error)),
            Err(Failure::Request(error)) => return Err(error),
        }
    }
    Err(format!("h2: {MAX_ATTEMPTS} connections retired before the request could be sent"))
}

/// The current connection, opened if there is none.
async fn open(context: &Context, slot: &Mutex<Slot>) -> Result<(SendRequest<Bytes>, u64), String> {
    let mut slot = slot.lock().await;
    if let Some(sender) = &slot.sender {
        return Ok((sender.clone(), slot.generation));
    }
    let io = context.dialer.dial(Protocol::Http2).await.map_err(|error| reason("h2 connect", &error))?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(4 << 20).enable_push(false);
    let (sender, connection) = builder.handshake::<_, Bytes>(io).await.map_err(|error| describe(&error))?;
    context.stats.connected();
    // Ends by itself when the server closes or the last sender is dropped; its error reaches every open stream.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    slot.sender = Some(sender.clone());
    slot.generation += 1;
    Ok((sender, slot.generation))
}

/// Takes a connection out of use: its open streams finish, new requests open another one.
async fn leave(context: &Context, slot: &Mutex<Slot>, generation: u64, error: &h2::Error) {
    let mut slot = slot.lock().await;
    if slot.generation == generation && slot.sender.take().is_some() && error.is_go_away() {
        context.stats.retired();
    }
}

enum Failure {
    Request(String),
    Unsent(h2::Error),
    Sent(h2::Error),
}

async fn exchange(context: &Context, sender: &mut SendRequest<Bytes>, path: &str) -> Result<Answer, Failure> {
    let plan = &context.plan;
    let request = request(context, path).map_err(|error| Failure::Request(format!("bad request: {error}")))?;
    let (response, mut upload) = sender.send_request(request, plan.body == 0).map_err(Failure::Unsent)?;
    if plan.body > 0 {
        // The library buffers it and sends it as the window allows.
        upload.send_data(Bytes::from(vec![b'.'; plan.body]), true).map_err(Failure::Sent)?;
    }
    let (head, mut body) = response.await.map_err(Failure::Sent)?.into_parts();
    while let Some(data) = body.data().await {
        let length = data.map_err(Failure::Sent)?.len();
        let _ = body.flow_control().release_capacity(length);
    }
    body.trailers().await.map_err(Failure::Sent)?;
    let upstream = head.headers.get("x-upstream").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Ok(Answer { status: head.status.as_u16(), upstream, keep: true })
}

fn request(context: &Context, path: &str) -> Result<Request<()>, http::Error> {
    let plan = &context.plan;
    let scheme = if plan.tls.is_some() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(plan.host.as_str()).path_and_query(path).build()?;
    let mut request = Request::builder().method(plan.method()).uri(uri).version(Version::HTTP_2);
    for (name, value) in &plan.headers {
        request = request.header(name, value);
    }
    request.body(())
}

/// The library gives this error to exactly the streams above the last id of a GOAWAY without an error code.
fn above_last_id(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

fn describe(error: &h2::Error) -> String {
    if let Some(io) = error.get_io() {
        return reason("h2 connection", io);
    }
    let kind = if error.is_go_away() { "GOAWAY" } else { "stream error" };
    match error.reason() {
        Some(reason) => format!("h2 {kind} {reason:?}"),
        None => format!("h2 {error}"),
    }
}
