//! A response's body on its way through steps.

use std::{
    mem,
    pin::pin,
    task::{Context, Poll},
};

use http::HeaderMap;

use super::{
    DataMemory, ResponseBody, Source,
    steps::{MAX_OUTPUT_BYTES, MAX_TURN_BYTES, Next, StepFailed, Steps},
};
use crate::http1::body::{BodyFrame, Framing};

/// A response's body that passes steps: a piece of it is asked for once they have worked off the one before.
pub(crate) struct Stepped<B: ResponseBody> {
    body: B,
    steps: Steps,
    /// Whether what came goes on when nothing follows for now. Of a body whose length is known all is to come soon.
    pauses: bool,
    /// Something came since the last pause.
    unpaused: bool,
    /// What is left of the worker's time for this turn, in bytes.
    turn: usize,
    end: End<B::Error>,
}

/// The end of a body.
enum End<E> {
    /// The end has not come.
    Open,
    /// The end has come: trailers or none, or what broke. It is given out once the steps have nothing left.
    Come(Result<Option<Box<HeaderMap>>, E>),
    Given,
}

type Frame<E> = Option<Result<BodyFrame, E>>;

impl<B: ResponseBody<Error: From<StepFailed>>> Stepped<B> {
    /// `steps`: at least one.
    pub(crate) fn new(body: B, steps: Steps) -> Self {
        let pauses = !matches!(body.framing(), Framing::Length(_));
        Self { body, steps, pauses, unpaused: false, turn: MAX_TURN_BYTES, end: End::Open }
    }

    /// The next frame that comes of what is there. `None`: none, without more or another turn.
    fn work(&mut self) -> Option<Frame<B::Error>> {
        while self.steps.has_work() {
            if self.turn == 0 {
                return None;
            }
            match self.steps.work(&mut self.turn) {
                Ok(None) => {}
                Ok(Some(data)) => return Some(Some(Ok(BodyFrame::Data(data)))),
                Err(failed) => {
                    (self.steps, self.end) = (Steps::default(), End::Given);
                    return Some(Some(Err(failed.into())));
                }
            }
        }
        match mem::replace(&mut self.end, End::Given) {
            End::Open => {
                self.end = End::Open;
                None
            }
            End::Come(Ok(trailers)) => Some(trailers.map(|trailers| Ok(BodyFrame::Trailers(trailers)))),
            End::Come(Err(e)) => Some(Some(Err(e))),
            End::Given => Some(None),
        }
    }

    /// Gives the steps what came.
    fn take(&mut self, came: Frame<B::Error>) {
        let (next, end) = match came {
            Some(Ok(BodyFrame::Data(data))) => {
                self.unpaused = true;
                self.steps.feed(data);
                if !self.body.is_done() {
                    return;
                }
                (Next::End, Ok(None))
            }
            Some(Ok(BodyFrame::Trailers(mut trailers))) => {
                self.steps.trailers(&mut trailers);
                (Next::End, Ok(Some(trailers)))
            }
            None => (Next::End, Ok(None)),
            // The client gets what came, and sees that it is not all.
            Some(Err(e)) => (Next::Pause, Err(e)),
        };
        self.steps.follow(next);
        self.end = End::Come(end);
    }
}

impl<B: ResponseBody<Error: From<StepFailed>>> ResponseBody for Stepped<B> {
    type Error = B::Error;

    fn framing(&self) -> Framing {
        Framing::Chunked
    }

    fn left(&self) -> Option<u64> {
        None
    }

    fn is_done(&self) -> bool {
        match &self.end {
            End::Open => false,
            End::Come(end) => matches!(end, Ok(None)) && !self.steps.has_work(),
            End::Given => true,
        }
    }

    fn ready_frame(&mut self) -> Option<Frame<B::Error>> {
        loop {
            let frame = self.work();
            if frame.is_some() || self.steps.has_work() {
                return frame;
            }
            let came = self.body.ready_frame()?;
            self.take(came);
        }
    }

    /// `Pending` without a source that is waited for when others are to have their turn first.
    fn poll_frame(&mut self, cx: &mut Context<'_>, source: &mut impl Source) -> Poll<Frame<B::Error>> {
        loop {
            if let Some(frame) = self.work() {
                return Poll::Ready(frame);
            }
            if self.steps.has_work() {
                self.turn = MAX_TURN_BYTES;
                self.body.poll_rest(cx, source);
                // It is not the upstream that is waited for.
                source.progress();
                // Woken behind all that is ready, what comes from the kernel included.
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            match self.body.poll_frame(cx, source) {
                Poll::Ready(came) => self.take(came),
                Poll::Pending if self.pauses && mem::take(&mut self.unpaused) => self.steps.follow(Next::Pause),
                Poll::Pending => {
                    self.turn = MAX_TURN_BYTES;
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>, source: &mut impl Source) {
        self.body.poll_rest(cx, source);
    }

    fn held(&self, unread: bool) -> usize {
        let unworked = self.steps.unworked();
        let apart = if self.body.memory() == DataMemory::ReadBuffer { 0 } else { unworked };
        let given = if unread { MAX_OUTPUT_BYTES } else { 0 };
        self.body.held(unworked > 0) + apart + self.steps.held() + given
    }

    fn memory(&self) -> DataMemory {
        DataMemory::Own
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, task::Waker};

    use bytes::Bytes;

    use super::*;
    use crate::body::{
        BytesSource,
        steps::testing::{Mark, Repeat, Stuck},
    };

    /// A client that sent nothing.
    fn client() -> BytesSource {
        BytesSource::new(Bytes::new())
    }

    #[derive(Debug, PartialEq)]
    struct Broken;

    impl From<StepFailed> for Broken {
        fn from(_: StepFailed) -> Self {
            Broken
        }
    }

    /// What comes, one after the other: nothing for now, pieces, an error.
    struct Coming(VecDeque<Poll<Result<Bytes, Broken>>>, Framing);

    impl ResponseBody for Coming {
        type Error = Broken;
        fn framing(&self) -> Framing {
            self.1
        }
        fn left(&self) -> Option<u64> {
            None
        }
        fn is_done(&self) -> bool {
            self.0.is_empty()
        }
        fn ready_frame(&mut self) -> Option<Frame<Broken>> {
            None
        }
        fn poll_frame(&mut self, _: &mut Context<'_>, _: &mut impl Source) -> Poll<Frame<Broken>> {
            self.0.pop_front().map_or(Poll::Ready(None), |next| next.map(|came| Some(came.map(BodyFrame::Data))))
        }
        fn poll_rest(&mut self, _: &mut Context<'_>, _: &mut impl Source) {}
        fn held(&self, _: bool) -> usize {
            0
        }
        fn memory(&self) -> DataMemory {
            DataMemory::Frames
        }
    }

    /// All that comes out, and how often there was nothing for now.
    fn all(body: &mut Stepped<Coming>) -> (Vec<u8>, usize, Result<(), Broken>) {
        let (mut all, mut pauses) = (vec![], 0);
        loop {
            assert_eq!(body.left(), None);
            match body.poll_frame(&mut Context::from_waker(Waker::noop()), &mut client()) {
                Poll::Pending => pauses += 1,
                Poll::Ready(Some(Ok(BodyFrame::Data(data)))) => all.extend_from_slice(&data),
                Poll::Ready(Some(Ok(BodyFrame::Trailers(_)))) => panic!("there are none"),
                Poll::Ready(Some(Err(e))) => return (all, pauses, Err(e)),
                Poll::Ready(None) => return (all, pauses, Ok(())),
            }
            if body.is_done() {
                return (all, pauses, Ok(()));
            }
        }
    }

    fn piece(bytes: &'static [u8]) -> Poll<Result<Bytes, Broken>> {
        Poll::Ready(Ok(Bytes::from_static(bytes)))
    }

    fn marked(coming: Vec<Poll<Result<Bytes, Broken>>>, framing: Framing) -> Stepped<Coming> {
        let mut steps = Steps::default();
        steps.push(Mark::default());
        Stepped::new(Coming(coming.into(), framing), steps)
    }

    /// The first of two pauses in a row is the step's.
    #[test]
    fn what_came_goes_on_when_nothing_follows_for_now() {
        let coming = || vec![piece(b"a"), piece(b"b"), Poll::Pending, Poll::Pending, piece(b"c"), Poll::Pending];
        assert_eq!(all(&mut marked(coming(), Framing::Chunked)), (b"ab|c|.".to_vec(), 1, Ok(())));
        assert_eq!(all(&mut marked(coming(), Framing::Length(3))), (b"abc.".to_vec(), 3, Ok(())));
        // The last piece is known to be the last.
        let mut body = marked(vec![piece(b"a")], Framing::Length(1));
        assert_eq!((body.framing(), body.is_done()), (Framing::Chunked, false));
        assert_eq!(all(&mut body), (b"a.".to_vec(), 0, Ok(())));
    }

    #[test]
    fn one_that_breaks_off_gives_what_came() {
        let mut body = marked(vec![piece(b"a"), Poll::Ready(Err(Broken))], Framing::Length(9));
        assert_eq!(all(&mut body), (b"a|".to_vec(), 0, Err(Broken)));
        let mut steps = Steps::default();
        steps.push(Stuck);
        let mut body = Stepped::new(Coming([piece(b"a")].into(), Framing::Chunked), steps);
        assert_eq!(all(&mut body), (vec![], 0, Err(Broken)));
        assert!(body.is_done());
    }

    #[test]
    fn much_work_is_done_in_turns() {
        let mut steps = Steps::default();
        steps.push(Repeat(2));
        let piece = Poll::Ready(Ok(Bytes::from(vec![b'a'; 10 * MAX_TURN_BYTES])));
        let mut body = Stepped::new(Coming([piece].into(), Framing::Chunked), steps);
        let (came, turns, end) = all(&mut body);
        assert_eq!((came.len(), end), (20 * MAX_TURN_BYTES, Ok(())));
        assert!((10..=25).contains(&turns), "{turns}");
    }
}
