//! One stream: its request to the exchange, the response back, as fast as the client takes it.

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{
    Request, Response,
    header::{CONTENT_LENGTH, DATE},
};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time;

use crate::{
    body::{BodyError, ResponseBody},
    date, exchange,
    server::{Conn, Worker},
};

/// Serves a stream to its end.
pub(super) async fn run(
    worker: Arc<Worker>,
    conn: Arc<Conn>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    // A client that takes nothing of a response for this long: its stream is reset, and what it held is free.
    let stall = conn.limits.client_stall;
    let response = {
        let mut serving = pin!(exchange::serve_http2(worker, conn, request));
        tokio::select! {
            biased;
            response = serving.as_mut() => response,
            // Cancelled: what is under way ends with the future.
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
        }
    };
    if let Err(e) = answer(response, &mut respond, stall).await {
        tracing::debug!(error = %e, "stream ended early");
    }
}

/// Why a response did not reach its end.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error("the client reset it: {0}")]
    Reset(Reason),
    #[error("the client took nothing for too long")]
    Stalled,
    #[error("{0}")]
    Body(BodyError),
    #[error("the connection is closed")]
    Closed,
}

async fn answer(
    response: Response<ResponseBody>,
    respond: &mut SendResponse<Bytes>,
    stall: Duration,
) -> Result<(), Ended> {
    let (mut head, body) = response.into_parts();
    let mut body = pin!(body);
    if !head.headers.contains_key(DATE) {
        head.headers.insert(DATE, date::now());
    }
    if let Some(length @ 1..) = body.size_hint().exact() {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    let end = body.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(head, ()), end)?;
    if end {
        return Ok(());
    }
    let sent = send(&mut stream, body.as_mut(), stall).await;
    match &sent {
        // A clean end would make a cut response look whole.
        Err(Ended::Body(_)) => stream.send_reset(Reason::INTERNAL_ERROR),
        Err(Ended::Stalled) => stream.send_reset(Reason::CANCEL),
        _ => {}
    }
    sent
}

async fn send(
    stream: &mut SendStream<Bytes>,
    mut body: std::pin::Pin<&mut ResponseBody>,
    stall: Duration,
) -> Result<(), Ended> {
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            reset = poll_fn(|cx| stream.poll_reset(cx)) => return Err(Ended::Reset(reset?)),
        };
        let Some(frame) = frame else {
            return Ok(stream.send_data(Bytes::new(), true)?);
        };
        match frame.map_err(Ended::Body)?.into_data() {
            Ok(data) => {
                let end = body.is_end_stream();
                send_data(stream, data, end, stall).await?;
                if end {
                    return Ok(());
                }
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                return Ok(stream.send_trailers(trailers)?);
            }
        }
    }
}

/// Sends some bytes as the client's windows open. What waits here is one part of a body, and nothing more is read from
/// upstream meanwhile.
async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool, stall: Duration) -> Result<(), Ended> {
    if data.is_empty() {
        return if end { Ok(stream.send_data(data, true)?) } else { Ok(()) };
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        if stream.capacity() == 0 {
            let capacity = time::timeout(stall, poll_fn(|cx| stream.poll_capacity(cx))).await;
            capacity.map_err(|_| Ended::Stalled)?.ok_or(Ended::Closed)??;
        }
        let part = data.split_to(data.len().min(stream.capacity()));
        if !part.is_empty() {
            stream.send_data(part, end && data.is_empty())?;
        }
    }
    Ok(())
}
