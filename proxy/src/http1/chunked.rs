//! The chunked coding (RFC 9112 section 7.1), decoded strictly. Extensions are read and dropped. Of upstreams one thing
//! is taken that old servers do: they pad sizes with spaces to a fixed width. Whoever reads it understands the same by
//! it.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::{
    Malformed, field_rules,
    lines::{Bad, Bounds, HeaderLines},
};
use crate::message_limits::Limits;

/// A body's chunks, as far as they have come.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// Bytes of extensions so far.
    extensions: usize,
    /// A size may be padded.
    padded: bool,
}

#[derive(Debug, Default)]
enum State {
    /// Start of a size.
    #[default]
    SizeStart,
    Size(u64),
    /// White space behind a size: an extension has to follow, unless sizes may be padded.
    Space(u64),
    Extension(u64),
    SizeFeed(u64),
    Data(u64),
    DataReturn,
    DataFeed,
    Trailers(Box<HeaderLines>),
    Done,
}

/// The next part of a chunked body.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// More bytes are needed.
    More,
    /// Some bytes of the body.
    Data(Bytes),
    /// The body is complete; these are its trailers.
    End(Option<Box<HeaderMap>>),
}

impl Decoder {
    /// Follows an upstream's chunks.
    pub fn of_upstream() -> Self {
        Self { padded: true, ..Self::default() }
    }

    /// Takes what it can off the front of `buf`.
    pub fn next(&mut self, buf: &mut BytesMut, limits: &Limits) -> Result<Next, Malformed> {
        while let State::SizeStart
        | State::Size(_)
        | State::Space(_)
        | State::Extension(_)
        | State::SizeFeed(_)
        | State::DataReturn
        | State::DataFeed = self.state
        {
            if buf.is_empty() {
                return Ok(Next::More);
            }
            let taken = self.steps(buf, limits)?;
            buf.advance(taken);
        }
        match &mut self.state {
            State::Data(left) => {
                let now = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                if now == 0 {
                    return Ok(Next::More);
                }
                *left -= now as u64;
                if *left == 0 {
                    self.state = State::DataReturn;
                }
                Ok(Next::Data(buf.split_to(now).freeze()))
            }
            State::Trailers(lines) => {
                let bounds = Bounds { bytes: limits.trailer_bytes, fields: limits.fields, first: 0 };
                let end = lines.read(buf, bounds).map_err(|bad| match bad {
                    Bad::Malformed(malformed) => malformed,
                    Bad::TooMuch(_) => Malformed::TooLong,
                })?;
                let Some(end) = end else { return Ok(Next::More) };
                let section = buf.split_to(end).freeze();
                let trailers = (!lines.is_empty()).then(|| field_rules::trailers(&section, lines)).transpose();
                // They are read, however they are.
                lines.reset(false);
                let trailers = trailers?;
                self.state = State::Done;
                Ok(Next::End(trailers))
            }
            _ => Ok(Next::End(None)),
        }
    }

    /// Whether the last byte was taken.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Follows bytes that are no data, up to where data or trailers begin; answers how many.
    fn steps(&mut self, bytes: &[u8], limits: &Limits) -> Result<usize, Malformed> {
        for (at, byte) in bytes.iter().enumerate() {
            self.state = match (&self.state, *byte) {
                (State::SizeStart, b) => State::Size(digit(b).ok_or(Malformed::Chunk)?),
                (State::Size(size), b) if b.is_ascii_hexdigit() => {
                    // The upper digits are zeros yet: the size stays far below what a counter can hold.
                    let room = *size < 1 << 56;
                    State::Size(room.then(|| size << 4 | digit(b).unwrap_or(0)).ok_or(Malformed::Chunk)?)
                }
                (State::Size(size) | State::Extension(size), b'\r') => State::SizeFeed(*size),
                (State::Space(size), b'\r') if self.padded => State::SizeFeed(*size),
                (State::Size(size) | State::Space(size), b' ' | b'\t') => State::Space(*size),
                (State::Size(size) | State::Space(size), b';') => State::Extension(*size),
                (State::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => State::Extension(*size),
                (State::SizeFeed(0), b'\n') => {
                    let mut lines = Box::<HeaderLines>::default();
                    lines.reset(false);
                    State::Trailers(lines)
                }
                (State::SizeFeed(size), b'\n') => State::Data(*size),
                (State::DataReturn, b'\r') => State::DataFeed,
                (State::DataFeed, b'\n') => State::SizeStart,
                _ => return Err(Malformed::Chunk),
            };
            match self.state {
                State::Data(_) | State::Trailers(_) => return Ok(at + 1),
                State::Extension(_) | State::Space(_) => {
                    self.extensions += 1;
                    if self.extensions > limits.extension_bytes {
                        return Err(Malformed::Chunk);
                    }
                }
                _ => {}
            }
        }
        Ok(bytes.len())
    }
}

fn digit(b: u8) -> Option<u64> {
    char::from(b).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message_limits::DEFAULT;

    type Fed = Result<(Vec<u8>, Option<usize>, Vec<u8>), Malformed>;

    /// Feeds the pieces; answers the data, the number of trailers once it is complete, and what is left over.
    fn feed(pieces: &[&[u8]]) -> Fed {
        let (mut decoder, mut buf, mut data) = (Decoder::default(), BytesMut::new(), vec![]);
        let mut pieces = pieces.iter();
        loop {
            match decoder.next(&mut buf, &DEFAULT)? {
                Next::Data(bytes) => data.extend_from_slice(&bytes),
                Next::End(trailers) => {
                    pieces.for_each(|piece| buf.extend_from_slice(piece));
                    return Ok((data, Some(trailers.map_or(0, |t| t.len())), buf.to_vec()));
                }
                Next::More => match pieces.next() {
                    Some(piece) => buf.extend_from_slice(piece),
                    None => return Ok((data, None, buf.to_vec())),
                },
            }
        }
    }

    #[track_caller]
    fn check(text: &str, expect: Result<(&str, Option<usize>, &str), Malformed>) {
        let expect = expect.map(|(data, end, rest)| (data.as_bytes().to_vec(), end, rest.as_bytes().to_vec()));
        let text = text.as_bytes();
        assert_eq!(feed(&[text]), expect);
        for cut in 0..text.len() {
            assert_eq!(feed(&[&text[..cut], &text[cut..]]), expect, "cut at {cut}");
        }
        assert_eq!(feed(&text.chunks(1).collect::<Vec<_>>()), expect);
    }

    #[test]
    fn complete_bodies() {
        check("0\r\n\r\nrest", Ok(("", Some(0), "rest")));
        check("3\r\nabc\r\n00a;x=\"y;\"; z\r\n0123456789\r\n000\r\n\r\n", Ok(("abc0123456789", Some(0), "")));
        check("1 \t;a\r\nx\r\n0;b\r\nx: y\r\nz:\r\n\r\nGET", Ok(("x", Some(2), "GET")));
        check("A\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", Ok(("\r\n\r\n\r\n\r\n\r\n", Some(0), "")));
        check("2\r\nab", Ok(("ab", None, "")));
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            "\r\n",
            ";\r\n",
            " 1\r\nx",
            "+1\r\nx",
            "0x1\r\nx",
            "-1\r\n",
            "g\r\n",
            "1\nx\r\n",
            "1\r\r\n",
            "1 \r\nx",
            "1\r\nxy\r\n",
            "1\r\nx\n0\r\n\r\n",
            "1\r\nx0\r\n\r\n",
            "1;\n\r\n",
            "1;a\rb\r\n",
            "1;a\0\r\n",
            "1,\r\n",
            "1 1\r\n",
            "fffffffffffffffff\r\n",
            "10000000000000000\r\n",
            "100000000000000000000000001\r\nx",
        ] {
            let got = feed(&bad.as_bytes().chunks(1).collect::<Vec<_>>());
            assert_eq!(got, Err(Malformed::Chunk), "{bad:?}");
            assert_eq!(feed(&[bad.as_bytes()]), got, "{bad:?}");
        }
        check("0\r\na: b\n\r\n", Err(Malformed::LineEnd));
        check("0\r\na : b\r\n\r\n", Err(Malformed::FieldName));
        check("0\r\na: \x01\r\n\r\n", Err(Malformed::FieldValue));
        assert_eq!(feed(&[format!("1;{}", "a".repeat(17 << 10)).as_bytes()]), Err(Malformed::Chunk));
        assert_eq!(feed(&[format!("0\r\na: {}", "a".repeat(17 << 10)).as_bytes()]), Err(Malformed::TooLong));
        // Whoever asks on is told nothing of it, and nothing breaks.
        let (mut decoder, mut buf) = (Decoder::default(), BytesMut::from("0\r\na: \x01\r\n\r\n"));
        assert_eq!(decoder.next(&mut buf, &DEFAULT), Err(Malformed::FieldValue));
        assert_eq!(decoder.next(&mut buf, &DEFAULT), Ok(Next::More));
        let many = "a: b\r\n".repeat(101);
        assert_eq!(feed(&[b"0\r\n", many.as_bytes()]), Err(Malformed::TooLong));
    }

    #[test]
    fn upstreams_may_pad_sizes() {
        let read = |text: &str| {
            let (mut decoder, mut buf) = (Decoder::of_upstream(), BytesMut::from(text));
            decoder.next(&mut buf, &DEFAULT)
        };
        for good in ["1\r\nx", "1  \r\nx", "1\t\r\nx", "1 ;a\r\nx"] {
            assert_eq!(read(good), Ok(Next::Data("x".into())), "{good:?}");
        }
        for bad in [" 1\r\nx", "1 1\r\nx", "1 \nx", "1 \r \nx", "1\r \nx"] {
            assert_eq!(read(bad), Err(Malformed::Chunk), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn bodies_come_through_however_they_are_cut(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..8),
            cut in 1..200usize,
        ) {
            let mut text = vec![];
            for chunk in &chunks {
                text.extend(format!("{:x}\r\n", chunk.len()).bytes());
                text.extend(chunk);
                text.extend(b"\r\n");
            }
            text.extend(b"0\r\n\r\nnext");
            let (data, end, rest) = feed(&text.chunks(cut).collect::<Vec<_>>()).unwrap();
            prop_assert_eq!((data, end, &rest[..]), (chunks.concat(), Some(0), &b"next"[..]));
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(prop_oneof![
            any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b';'), Just(b'a'), Just(b':')
        ], 0..200), cut in 1..20usize) {
            let whole = feed(&[&bytes]);
            prop_assert_eq!(feed(&bytes.chunks(cut).collect::<Vec<_>>()), whole);
        }
    }
}
