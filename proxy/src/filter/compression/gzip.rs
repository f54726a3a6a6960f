//! The gzip coding (RFC 1952), as a step.

use flate2::{Compress, Compression, FlushCompress, Status};
use http::HeaderMap;

use super::digests::DIGESTS;
use crate::body::{BodyStep, Next, StepFailed};

/// The level: where most of what can be gained is, at a third of the highest level's time.
const LEVEL: u32 = 6;
/// Base-2 logarithm of the window, which clients need as much memory for: the largest there is.
const WINDOW_BITS: u8 = 15;
/// Bytes that a compressor holds: its window twice, chains, hashes, and what it has yet to write.
const COMPRESSOR_BYTES: usize = 336 << 10;

/// Codes a body.
#[derive(Default)]
pub(super) struct Gzip {
    /// Made when there is something to code.
    compressor: Option<Compress>,
    ended: bool,
}

impl BodyStep for Gzip {
    fn work(&mut self, input: &mut &[u8], next: Next, out: &mut Vec<u8>) -> Result<bool, StepFailed> {
        let compressor =
            self.compressor.get_or_insert_with(|| Compress::new_gzip(Compression::new(LEVEL), WINDOW_BITS));
        let flush = match next {
            Next::Piece => FlushCompress::None,
            Next::Pause => FlushCompress::Sync,
            Next::End => FlushCompress::Finish,
        };
        let before = compressor.total_in();
        let status = compressor.compress_vec(input, out, flush).map_err(|_| StepFailed("gzip"))?;
        let taken = usize::try_from(compressor.total_in() - before).unwrap_or(usize::MAX);
        *input = input.get(taken..).unwrap_or_default();
        let done = input.is_empty()
            && match next {
                Next::Piece => true,
                // With an output that is full there may be more.
                Next::Pause => out.len() < out.capacity(),
                Next::End => status == Status::StreamEnd,
            };
        if done && next == Next::End {
            (self.compressor, self.ended) = (None, true);
        }
        Ok(done)
    }

    /// A digest of the content before it was coded would be found wrong.
    fn trailers(&mut self, trailers: &mut HeaderMap) {
        DIGESTS.iter().for_each(|digest| drop(trailers.remove(digest)));
    }

    fn held(&self) -> usize {
        if self.ended { 0 } else { COMPRESSOR_BYTES }
    }
}
