//! Where a body ends (RFC 9112 section 6.3), and the bytes up to there.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::{Malformed, chunked};
use crate::message_limits::Limits;

/// The framing of a body: how a message says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// Ended by the close of the connection; of responses only (RFC 9112 section 6.3).
    CloseDelimited,
}

/// Follows a body to its end.
#[derive(Debug)]
pub enum Decoder {
    /// So many bytes to come; 0: complete.
    Length(u64),
    /// Chunks to come.
    Chunked(chunked::Decoder),
    /// Bytes until the connection is closed.
    CloseDelimited,
}

pub use chunked::Next;

/// A part of a body on its way.
#[derive(Clone, Debug)]
pub(crate) enum BodyFrame {
    /// Some bytes.
    Data(Bytes),
    /// Trailers, behind the last byte.
    Trailers(Box<HeaderMap>),
}

impl Framing {
    /// Follows a body of this framing.
    pub fn decoder(self) -> Decoder {
        match self {
            Framing::Empty => Decoder::Length(0),
            Framing::Length(length) => Decoder::Length(length),
            Framing::Chunked => Decoder::Chunked(chunked::Decoder::default()),
            Framing::CloseDelimited => Decoder::CloseDelimited,
        }
    }

    /// A decoder for an upstream's body, which may pad the sizes of chunks.
    pub fn decoder_of_upstream(self) -> Decoder {
        match self {
            Framing::Chunked => Decoder::Chunked(chunked::Decoder::of_upstream()),
            framing => framing.decoder(),
        }
    }
}

impl Decoder {
    /// Takes what it can off the front of `buf`.
    pub fn next(&mut self, buf: &mut BytesMut, limits: &Limits) -> Result<Next, Malformed> {
        match self {
            Decoder::Length(0) => Ok(Next::End(None)),
            Decoder::Chunked(decoder) => decoder.next(buf, limits),
            _ if buf.is_empty() => Ok(Next::More),
            Decoder::CloseDelimited => Ok(Next::Data(buf.split().freeze())),
            Decoder::Length(left) => {
                let now = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                *left -= now as u64;
                Ok(Next::Data(buf.split_to(now).freeze()))
            }
        }
    }

    /// Whether the last byte was taken. With `CloseDelimited` only the connection's end tells.
    pub fn is_done(&self) -> bool {
        match self {
            Decoder::Length(left) => *left == 0,
            Decoder::Chunked(decoder) => decoder.is_done(),
            Decoder::CloseDelimited => false,
        }
    }

    /// Bytes to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self {
            Decoder::Length(left) => Some(*left),
            _ => None,
        }
    }
}
