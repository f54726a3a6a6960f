//! Why a request to an upstream fails.

use crate::{
    body::{SourceError, StepFailed},
    http1::Malformed,
};

/// Why a request got no response, or no whole one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// The request's body ended before its time.
    #[error("the request's body: {0:?}")]
    Source(SourceError),
    /// Nothing was sent.
    #[error("{0}, and nothing was sent")]
    Unsent(&'static str),
    /// The upstream did not process it, and the body is still whole: it may be sent again, whatever its method.
    #[error("the upstream has not processed the request")]
    Unprocessed,
    /// Something was sent, and nothing came back.
    #[error("{0}")]
    Silent(&'static str),
    /// Part of a response came.
    #[error("{0}")]
    Broken(&'static str),
    /// The response is not valid.
    #[error("{0}")]
    Invalid(#[from] Malformed),
    /// Interim responses come without end.
    #[error("there is no end of interim responses")]
    Endless,
    /// The response is not valid HTTP/2, or switches to another protocol unasked.
    #[error("what came is not valid, or switches protocols unasked")]
    Protocol,
    /// The upstream ended the stream.
    #[error("the upstream ended the stream: {0}")]
    Reset(h2::Reason),
    /// The response came, and its body can't be given on.
    #[error(transparent)]
    Step(#[from] StepFailed),
}
