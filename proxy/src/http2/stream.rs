//! One stream: its request to the exchange, and what that comes to back.

use std::{future::poll_fn, pin::pin, sync::Arc};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};

use super::{
    blocks::Blocks,
    flood_guard::Exceeded,
    head::{self, Head},
    held::Held,
    respond::respond,
    sender::Sender,
    source::{Bounds, Http2Source},
};
use crate::{
    connection::Conn,
    exchange::{self, Exchange},
    fields,
    memory::{Charge, Holder, Kind},
    worker::Worker,
};

/// Bytes that a stream takes besides its head: its task, and its place in `h2`.
const STREAM_BYTES: usize = 4 << 10;

/// A request, as a stream brings it.
pub(super) struct Request {
    head: Head,
    body: RecvStream,
    held: Arc<Held>,
    blocks: Arc<Blocks>,
    charge: Charge,
}

impl Request {
    /// Charges a request for its head, for as long as it lives.
    pub(super) fn new(
        holder: &Arc<Holder>,
        held: &Arc<Held>,
        blocks: &Arc<Blocks>,
        request: http::Request<RecvStream>,
    ) -> Self {
        let (parts, body) = request.into_parts();
        let head = head::parse(parts);
        let mut charge = Charge::new(holder, Kind::Heads);
        charge.set(STREAM_BYTES + head.held());
        Self { head, body, held: Arc::clone(held), blocks: Arc::clone(blocks), charge }
    }
}

/// Serves a stream to its end, which is at once when its connection is ended for what it holds: of very many streams
/// each would else have its turn before that reaches it.
pub(super) async fn run(
    worker: Arc<Worker>,
    conn: Arc<Conn>,
    budget: Exceeded,
    request: Request,
    sender: SendResponse<Bytes>,
) {
    let holder = Arc::clone(&conn.holder);
    tokio::select! {
        biased;
        () = holder.ended() => {}
        () = serve(worker, conn, budget, request, sender) => {}
    }
}

async fn serve(worker: Arc<Worker>, conn: Arc<Conn>, budget: Exceeded, request: Request, sender: SendResponse<Bytes>) {
    conn.note_request();
    let Request { head, body, held, blocks, charge: _charge } = request;
    let sender = Sender::new(sender);
    if !budget.head(head.bytes()) {
        // The connection ends.
        return sender.reset(Reason::ENHANCE_YOUR_CALM);
    }
    let beyond = head.exceeded_limit(&conn.limits);
    let Head { parts: mut head, wants, length, expects, .. } = head;
    let bounds = Bounds { heads: budget.heads(), blocks };
    let mut source = Http2Source::new(body, (length, expects), held, Arc::clone(&conn), bounds, &sender);
    let mut exchange = Exchange::open(&worker, &conn, &head);
    let reply = match beyond {
        Some(why) => Some(exchange::refuse(exchange::refused(why), &head, &mut exchange)),
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
    fields::give_back(head.fields);
    match reply {
        Some(reply) => respond(reply, &mut source, &mut exchange, &sender).await,
        // There is nobody to answer.
        None => sender.reset(Reason::CANCEL),
    }
    exchange.bytes_in = source.counted();
}
