//! What is done to a body on its way, in either direction: a short list of steps, each of which takes pieces and gives
//! pieces.
//!
//! A step works off a little at a time, into an output of a fixed size: so neither what stands between two of them nor
//! the time that one takes of a worker grows with what comes. What does not fit waits where it is, and nothing more is
//! read behind it.

use bytes::{Buf, Bytes};
use http::HeaderMap;

/// Most bytes that a step gives at once.
pub(crate) const MAX_OUTPUT_BYTES: usize = 16 << 10;
/// Bytes that steps work off, or give, before others have their turn: a fraction of a millisecond's work.
pub(super) const MAX_TURN_BYTES: usize = 16 << 10;
/// Bytes that a call counts for at least.
const MIN_CALL_BYTES: usize = 256;

/// A step that a body passes.
pub(crate) trait BodyStep: Send {
    /// Works on `input`, whose front it takes off as far as it gets, and once there is none left, on what is `next`.
    /// What comes of it is added to `out`, no more than that has capacity for. Answers whether all of that is done; it
    /// is called again if not.
    fn work(&mut self, input: &mut &[u8], next: Next, out: &mut Vec<u8>) -> Result<bool, StepFailed>;

    /// Changes the trailers behind the body.
    fn trailers(&mut self, _trailers: &mut HeaderMap) {}

    /// Bytes of memory that it holds while the body is under way.
    fn held(&self) -> usize;
}

/// The next thing behind a piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// More of it.
    Piece,
    /// More of it, but not now: whatever can be made of what came is given out.
    Pause,
    /// Its end.
    End,
}

/// A step can't go on: the body ends before its time.
#[derive(Debug, thiserror::Error)]
#[error("a body can't be transformed: {0}")]
pub(crate) struct StepFailed(pub(crate) &'static str);

/// The steps of one body, in the order in which it passes them.
#[derive(Default)]
pub(crate) struct Steps(Vec<Placed>);

/// A step, and what it has yet to work off.
struct Placed {
    step: Box<dyn BodyStep>,
    input: Bytes,
    next: Next,
}

impl Placed {
    fn has_work(&self) -> bool {
        !self.input.is_empty() || self.next != Next::Piece
    }
}

impl Steps {
    /// Adds a step behind those there are.
    pub(crate) fn push(&mut self, step: impl BodyStep + 'static) {
        self.0.push(Placed { step: Box::new(step), input: Bytes::new(), next: Next::Piece });
    }

    /// Whether the body passes as it is.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the first step a piece, once there is no work left.
    pub(super) fn feed(&mut self, piece: Bytes) {
        if let Some(first) = self.0.first_mut() {
            first.input = piece;
        }
    }

    /// Tells the first step what is behind the piece that it was given.
    pub(super) fn follow(&mut self, next: Next) {
        if let Some(first) = self.0.first_mut() {
            first.next = next;
        }
    }

    /// Whether something is there that was not worked off.
    pub(super) fn has_work(&self) -> bool {
        self.0.iter().any(Placed::has_work)
    }

    /// Has one step do some work, the last one that has any. Answers what has passed them all; takes the work off
    /// `turn`, which is not 0.
    pub(super) fn work(&mut self, turn: &mut usize) -> Result<Option<Bytes>, StepFailed> {
        let Some(at) = self.0.iter().rposition(Placed::has_work) else { return Ok(None) };
        let Placed { step, input, next } = &mut self.0[at];
        let part = input.len().min(*turn);
        let is_last_part = part == input.len();
        let mut rest = &input[..part];
        let mut out = Vec::with_capacity(MAX_OUTPUT_BYTES);
        let done = step.work(&mut rest, if is_last_part { *next } else { Next::Piece }, &mut out)?;
        let taken = part - rest.len();
        if taken == 0 && out.is_empty() && !done {
            return Err(StepFailed("a step does not go on"));
        }
        *turn = turn.saturating_sub(taken.max(out.len()).max(MIN_CALL_BYTES));
        input.advance(taken);
        if input.is_empty() {
            // The memory that it stands in is wanted back.
            *input = Bytes::new();
        }
        let passed = if done && is_last_part { std::mem::replace(next, Next::Piece) } else { Next::Piece };
        out.shrink_to_fit();
        let out = Bytes::from(out);
        match self.0.get_mut(at + 1) {
            Some(behind) => {
                (behind.input, behind.next) = (out, passed);
                Ok(None)
            }
            None => Ok((!out.is_empty()).then_some(out)),
        }
    }

    /// Has the steps change the trailers.
    pub(super) fn trailers(&mut self, trailers: &mut HeaderMap) {
        self.0.iter_mut().for_each(|placed| placed.step.trailers(trailers));
    }

    /// Bytes of the piece that the first step has yet to work off.
    pub(super) fn unworked(&self) -> usize {
        self.0.first().map_or(0, |first| first.input.len())
    }

    /// Bytes of memory that steps hold, and what stands between them.
    pub(super) fn held(&self) -> usize {
        self.0.iter().map(|placed| placed.step.held()).sum::<usize>() + self.0.len() * MAX_OUTPUT_BYTES
    }
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Steps").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Steps that tests pass bodies through.

    use super::*;

    /// Gives each byte so many times.
    pub(crate) struct Repeat(pub(crate) usize);

    impl BodyStep for Repeat {
        fn work(&mut self, input: &mut &[u8], _: Next, out: &mut Vec<u8>) -> Result<bool, StepFailed> {
            while let Some((byte, rest)) = input.split_first() {
                if out.len() + self.0 > out.capacity() {
                    return Ok(false);
                }
                out.extend(std::iter::repeat_n(*byte, self.0));
                *input = rest;
            }
            Ok(true)
        }

        fn held(&self) -> usize {
            0
        }
    }

    /// Keeps everything back until it is wanted, and adds a mark where the body pauses and ends.
    #[derive(Default)]
    pub(crate) struct Mark(Vec<u8>);

    impl BodyStep for Mark {
        fn work(&mut self, input: &mut &[u8], next: Next, out: &mut Vec<u8>) -> Result<bool, StepFailed> {
            self.0.extend_from_slice(std::mem::take(input));
            let mark = match next {
                Next::Piece => return Ok(true),
                Next::Pause => b'|',
                Next::End => b'.',
            };
            let fits = self.0.len().min(out.capacity() - out.len() - 1);
            out.extend(self.0.drain(..fits));
            if self.0.is_empty() {
                out.push(mark);
            }
            Ok(self.0.is_empty())
        }

        fn held(&self) -> usize {
            self.0.len()
        }
    }

    /// Does nothing, ever.
    pub(crate) struct Stuck;

    impl BodyStep for Stuck {
        fn work(&mut self, _: &mut &[u8], _: Next, _: &mut Vec<u8>) -> Result<bool, StepFailed> {
            Ok(false)
        }

        fn held(&self) -> usize {
            0
        }
    }

    /// All that comes of pieces that are given one after the other.
    pub(crate) fn pass(steps: &mut Steps, pieces: &[(&[u8], Next)]) -> Result<Vec<u8>, StepFailed> {
        let mut all = vec![];
        for (piece, next) in pieces {
            steps.feed(Bytes::copy_from_slice(piece));
            steps.follow(*next);
            while steps.has_work() {
                let mut turn = MAX_TURN_BYTES;
                while turn > 0 && steps.has_work() {
                    let piece = steps.work(&mut turn)?.unwrap_or_default();
                    assert!(piece.len() <= MAX_OUTPUT_BYTES);
                    all.extend_from_slice(&piece);
                }
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{Mark, Repeat, Stuck, pass},
        *,
    };

    #[test]
    fn pieces_pass_all_steps_in_their_order() {
        let mut steps = Steps::default();
        assert!(steps.is_empty());
        steps.push(Repeat(2));
        steps.push(Mark::default());
        steps.push(Repeat(3));
        let pieces: [(&[u8], Next); 4] =
            [(b"a", Next::Piece), (b"b", Next::Pause), (b"", Next::Pause), (b"c", Next::End)];
        assert_eq!(pass(&mut steps, &pieces).unwrap(), b"aaaaaabbbbbb||||||cccccc...");
        assert!(!steps.has_work());
    }

    #[test]
    fn much_comes_of_little_in_bounded_pieces() {
        let mut steps = Steps::default();
        steps.push(Repeat(1000));
        steps.push(Repeat(10));
        let piece = vec![b'a'; 1000];
        assert_eq!(pass(&mut steps, &[(&piece, Next::End)]).unwrap().len(), 10_000_000);
    }

    #[test]
    fn a_turn_ends_however_little_comes_out() {
        let mut steps = Steps::default();
        steps.push(Mark::default());
        steps.feed(Bytes::from(vec![b'a'; 10 * MAX_TURN_BYTES]));
        let mut turn = MAX_TURN_BYTES;
        while turn > 0 {
            assert!(steps.work(&mut turn).unwrap().is_none());
        }
        assert_eq!(steps.unworked(), 9 * MAX_TURN_BYTES);
    }

    #[test]
    fn a_step_that_does_nothing_ends_the_body() {
        let mut steps = Steps::default();
        steps.push(Stuck);
        assert!(pass(&mut steps, &[(b"a", Next::Piece)]).is_err());
    }
}
