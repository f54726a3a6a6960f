//! The chain's way while a filter waits for somebody else: under the request's deadline, and only for as long as its
//! client stays.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Instant};

use super::{
    Exchange,
    forward::{Failure, within},
    reply_kinds,
};
use crate::{
    body::{Interrupt, Source},
    clock::clock_us,
    filter::{Ctx, LocalReply, Outcome, Place, Resume, Wait, Waiting},
    message::RequestHead,
    rule::Rule,
    services::Caller,
    telemetry::ErrorSource,
};

/// Goes on with a chain whose filter waits, to its end; `Some`: a filter answers.
pub(super) async fn pass<S: Source>(
    rule: &Arc<Rule>,
    (mut at, mut wait): (Place, Wait),
    head: &mut RequestHead,
    ctx: &mut Ctx,
    source: &mut S,
    exchange: &mut Exchange<'_>,
) -> Result<Option<LocalReply>, Failure> {
    let deadline = rule.deadline(exchange.started);
    loop {
        exchange.begin_wait(wait.filter);
        let ids = (&exchange.request_id, &exchange.host.value);
        let client = (exchange.client(), exchange.client_value().clone());
        let caller = Caller::new(&exchange.worker.pool, &exchange.worker.calls, exchange.conn, client, ids);
        let waited = within(deadline, pin!(resumed(wait.begin(caller), source))).await;
        exchange.end_wait(matches!(waited, Some(Ok(_))));
        let resume = waited.ok_or(Failure::LocalReply(reply_kinds::FILTER_TIMEOUT, ErrorSource::External))??;
        ctx.now_us = clock_us(Instant::now());
        match rule.chain.resume(at, resume, head, ctx) {
            Outcome::Passed => return Ok(None),
            Outcome::Replied(_, answer) => return Ok(Some(answer)),
            Outcome::Waits(place, again) => (at, wait) = (place, again),
        }
    }
}

/// Waits for the filter, and for what ends the exchange before.
async fn resumed<S: Source>(mut wait: Waiting, source: &mut S) -> Result<Resume, Failure> {
    poll_fn(|cx| {
        if let Poll::Ready(resume) = wait.as_mut().poll(cx) {
            return Poll::Ready(Ok(resume));
        }
        match source.poll_interrupt(cx) {
            Poll::Ready(Interrupt::Gone) => return Poll::Ready(Err(Failure::Gone)),
            // Nothing is waited for of the client meanwhile, nor of the backend: it is what was begun before.
            Poll::Ready(Interrupt::Stalled(_)) => {
                let kind = Failure::LocalReply(reply_kinds::BODY_TIMEOUT, ErrorSource::Downstream);
                return Poll::Ready(Err(kind));
            }
            Poll::Pending => {}
        }
        // Its body waits, too, and nobody reads it, who would see the client's end.
        match source.is_ended() {
            false => source.poll_broken(cx).map(|()| Err(Failure::Gone)),
            true => Poll::Pending,
        }
    })
    .await
}
