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
    exchange::{self, Exchange},
    http1::buffers,
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
    let head = head::parse(parts);
    let beyond = head.beyond(&conn.limits);
    let Head { parts: mut head, wants, length, .. } = head;
    let mut source = Http2Source::new(body, length, Arc::clone(&conn));
    let mut exchange = Exchange::open(&worker, &conn, &head);
    let reply = match beyond {
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
        Some(reply) => respond(reply, &mut source, &mut exchange, &mut sender).await,
        // There is nobody to answer.
        None => sender.send_reset(Reason::CANCEL),
    }
    exchange.bytes_in = source.counted();
}
