//! Bodies on their way through, whatever protocol they come by: a request's body is a [`Source`], a response's is a
//! [`ResponseBody`], and either is asked for its next piece. What is done to one on its way is a list of [`BodyStep`]s.

mod bytes;
mod stepped;
mod steps;

use std::task::{Context, Poll};

#[cfg(test)]
pub(crate) use self::steps::testing;
pub(crate) use self::{
    bytes::BytesSource,
    stepped::Stepped,
    steps::{BodyStep, Next, StepFailed, Steps},
};
use crate::{
    connection::{TimeoutKind, Way},
    http1::{
        body::{BodyFrame, Framing},
        request::Refused,
    },
    message::ResponseHead,
};

/// A request's body, where it comes from.
pub(crate) trait Source {
    /// The framing of the body, which says how long it is.
    fn framing(&self) -> Framing;

    /// The next frame of the body.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<BodyFrame, SourceError>>>;

    /// Whether the client waits to be told to go on before it sends it (RFC 9110 section 10.1.1).
    fn expects_continue(&self) -> bool;

    /// Ready when some of it has come, or it ended, though its client was not told to go on.
    fn poll_unasked(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Passes an interim response on to the client, if it takes such.
    fn interim(&mut self, cx: &mut Context<'_>, head: &ResponseHead);

    /// Whether some of it has come that no piece was made of yet.
    fn has_buffered(&self) -> bool;

    /// Ready when the exchange has to end for the client's sake, or because somebody took too long.
    fn poll_interrupt(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt>;

    /// Ready when the connection of a client broke whose body is not read for now: what else would tell is its end.
    /// Looked at once a second.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// From now on, this is waited for.
    fn wait(&mut self, waiting: TimeoutKind);

    /// The timeout that runs, if one does.
    fn waiting(&self) -> Option<TimeoutKind>;

    /// While something is waited for, so many bytes of memory are held for this request, besides those of the source
    /// itself.
    fn hold(&mut self, bytes: usize);

    /// So many bytes came of what is waited for.
    fn moved(&mut self, what: TimeoutKind, bytes: u64);

    /// Ends the timeout that runs: all that was waited for has come.
    fn progress(&mut self);

    /// The exchange's bodies of this way are of a stream, in which a message may be long in coming: there is no least
    /// rate.
    fn is_of_stream(&mut self, way: Way);

    /// Whether all of it was given out, and no trailers are to come.
    fn is_ended(&self) -> bool;
}

/// A response's body, where it comes from.
pub(crate) trait ResponseBody {
    /// The reason for which it ends before its time.
    type Error;

    /// The framing of the body, which says how long it is.
    fn framing(&self) -> Framing;

    /// Bytes of it to come, where that is known.
    fn left(&self) -> Option<u64>;

    /// Whether all of it was given out, and no trailers are to come.
    fn is_done(&self) -> bool;

    /// The next frame of what has come already; `None`: none. Within: as from [`ResponseBody::poll_frame`].
    fn ready_frame(&mut self) -> Option<Option<Result<BodyFrame, Self::Error>>>;

    /// The next frame of the body. What is left of the request's goes its way meanwhile.
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
    ) -> Poll<Option<Result<BodyFrame, Self::Error>>>;

    /// Goes on with the request's body while nothing of the response is wanted.
    fn poll_rest(&mut self, cx: &mut Context<'_>, source: &mut impl Source);

    /// Bytes of memory that are held for it. `unread`: what was given out last waits for the client, and what it was
    /// read into.
    fn held(&self, unread: bool) -> usize;

    /// The memory that its data stands in.
    fn memory(&self) -> DataMemory;
}

/// The memory that a body's data stands in, once it was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataMemory {
    /// The buffer that it was read into, which [`ResponseBody::held`] counts.
    ReadBuffer,
    /// A buffer for each frame of HTTP/2.
    Frames,
    /// A buffer that holds nothing else.
    Own,
}

/// Why there is no next piece.
#[derive(Debug)]
pub(crate) enum SourceError {
    /// The client broke off.
    Gone,
    /// The body is not valid, or too large.
    Refused(Refused),
}

/// Why an exchange ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The client has gone.
    Gone,
    /// A timeout of this kind is over.
    Stalled(TimeoutKind),
}
