//! A stream's way to its client, on which its interim responses and its final one go out from different places.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};
use http::Response;

/// The way to the client. It is never waited for: one task has it.
pub(super) struct Sender(Mutex<SendResponse<Bytes>>);

impl Sender {
    pub(super) fn new(sender: SendResponse<Bytes>) -> Self {
        Self(Mutex::new(sender))
    }

    /// Sends an interim response; whether it is on its way. Should that fail, the final one says why.
    pub(super) fn interim(&self, head: Response<()>) -> bool {
        let sent = self.lock().send_informational(head);
        sent.inspect_err(|error| tracing::debug!(%error, "an interim response was not sent")).is_ok()
    }

    /// Sends the final response's head.
    pub(super) fn respond(&self, head: Response<()>, ended: bool) -> Result<SendStream<Bytes>, h2::Error> {
        self.lock().send_response(head, ended)
    }

    pub(super) fn reset(&self, reason: Reason) {
        self.lock().send_reset(reason);
    }

    /// Ready when the client has reset the stream.
    pub(super) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        self.lock().poll_reset(cx)
    }

    fn lock(&self) -> MutexGuard<'_, SendResponse<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
