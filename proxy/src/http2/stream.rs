//! One stream: its request to the exchange, and what that comes to back.

use std::{future::poll_fn, pin::pin, sync::Arc};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::Request;

use super::{
    head::{self, Head},
    respond::respond,
    source::Http2Source,
};
use crate::{
    exchange::{self, Exchange, Reply},
    http1::{buffers, limits::Limits, request::Refused},
    message::RequestHead,
    server::{Conn, Worker},
};

/// Serves a stream to its end.
pub(super) async fn run(
    worker: Arc<Worker>,
    conn: Arc<Conn>,
    request: Request<RecvStream>,
    mut sender: SendResponse<Bytes>,
) {
    conn.note_request();
    let (parts, body) = request.into_parts();
    let Head { parts: mut head, wants, length } = head::parse(parts);
    let mut source = Http2Source::new(body, length, Arc::clone(&conn));
    let mut exchange = Exchange::open(worker, conn, &head);
    let reply = match beyond(&head, length, &exchange.conn.limits) {
        Some(why) => Some(exchange::refuse(exchange::refused(why), &mut exchange)),
        None => {
            let mut serving = pin!(exchange::serve(&mut head, wants, &mut source, &mut exchange));
            tokio::select! {
                biased;
                reply = serving.as_mut() => reply,
                // Cancelled: what is under way ends with the future.
                _ = poll_fn(|cx| sender.poll_reset(cx)) => None,
            }
        }
    };
    buffers::give_fields(head.fields);
    match reply {
        Some(Reply { head, rate_limit, body }) => {
            respond(head, rate_limit, body, &mut source, &mut exchange, &mut sender).await;
        }
        // There is nobody to answer.
        None => sender.send_reset(Reason::CANCEL),
    }
    exchange.bytes_in = source.counted();
}

/// What a request has too much of; as a whole, its head was bounded when it was read.
fn beyond(head: &RequestHead, length: Option<u64>, limits: &Limits) -> Option<Refused> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    match () {
        () if target > limits.target_bytes => Some(Refused::TargetTooLong),
        () if head.fields.len() > limits.fields => Some(Refused::HeadTooLarge),
        () if length > Some(limits.body_bytes) => Some(Refused::BodyTooLarge),
        () => None,
    }
}
