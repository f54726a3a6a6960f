//! A request's body of bytes that are there, such as that of the proxy's own calls. Nobody waits for them, and whoever sends it has
//! a deadline for all the rest.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Interrupt, Source, SourceError};
use crate::{
    connection::{TimeoutKind, Way},
    http1::body::{BodyFrame, Framing},
    message::ResponseHead,
};

/// A body of bytes that are there.
pub(crate) struct BytesSource {
    framing: Framing,
    /// The body, until it was given out.
    body: Bytes,
}

impl BytesSource {
    pub(crate) fn new(body: Bytes) -> Self {
        let framing = if body.is_empty() { Framing::Empty } else { Framing::Length(body.len() as u64) };
        Self { framing, body }
    }
}

impl Source for BytesSource {
    fn framing(&self) -> Framing {
        self.framing
    }

    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<BodyFrame, SourceError>>> {
        let body = std::mem::take(&mut self.body);
        Poll::Ready((!body.is_empty()).then_some(Ok(BodyFrame::Data(body))))
    }

    fn expects_continue(&self) -> bool {
        false
    }

    fn poll_unasked(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn interim(&mut self, _: &mut Context<'_>, _: &ResponseHead) {}

    fn has_buffered(&self) -> bool {
        !self.body.is_empty()
    }

    fn poll_interrupt(&mut self, _: &mut Context<'_>) -> Poll<Interrupt> {
        Poll::Pending
    }

    fn poll_broken(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn wait(&mut self, _: TimeoutKind) {}

    fn waiting(&self) -> Option<TimeoutKind> {
        None
    }

    fn hold(&mut self, _: usize) {}

    fn moved(&mut self, _: TimeoutKind, _: u64) {}

    fn progress(&mut self) {}

    fn is_of_stream(&mut self, _: Way) {}

    fn is_ended(&self) -> bool {
        self.body.is_empty()
    }
}
