//! Reading HTTP/1.1 responses: just enough to know when one is complete and what it said.

use bytes::{Buf, BytesMut};
use httparse::{EMPTY_HEADER, Status};

/// The head of a response.
#[derive(Debug, PartialEq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) upstream: Option<String>,
    /// The connection may carry another request once the body is read.
    pub(super) keep: bool,
    pub(super) body: Body,
}

/// The part of a body that is still to come.
#[derive(Debug, PartialEq)]
pub(super) enum Body {
    /// This number of bytes.
    Length(u64),
    /// Chunks, with the state between two reads.
    Chunked(Chunk),
    /// All until the connection closes.
    UntilClose,
}

/// The reader's place in the chunked coding.
#[derive(Debug, PartialEq)]
pub(super) enum Chunk {
    Size,
    Data(u64),
    DataEnd,
    Trailer,
}

/// Takes a response head off the front of `buf`. `None`: more bytes are needed. Informational heads are skipped.
pub(super) fn take_head(buf: &mut BytesMut) -> Result<Option<Head>, String> {
    loop {
        let mut headers = [EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(buf) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(format!("bad response head: {error}")),
        };
        let head = head(&response)?;
        buf.advance(length);
        if head.status >= 200 || head.status == 101 {
            return Ok(Some(head));
        }
    }
}

fn head(response: &httparse::Response<'_, '_>) -> Result<Head, String> {
    let status = response.code.unwrap_or(0);
    let mut head = Head { status, upstream: None, keep: response.version == Some(1), body: Body::UntilClose };
    for header in response.headers.iter() {
        let value = header.value;
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|value| value.trim().parse().ok());
            head.body = Body::Length(length.ok_or("bad content-length")?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if value.eq_ignore_ascii_case(b"chunked") {
                head.body = Body::Chunked(Chunk::Size);
            }
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.keep &= !value.eq_ignore_ascii_case(b"close");
        } else if header.name.eq_ignore_ascii_case("x-upstream") {
            head.upstream = Some(String::from_utf8_lossy(value).into_owned());
        }
    }
    if matches!(status, 100..200 | 204 | 304) {
        head.body = Body::Length(0);
    }
    head.keep &= head.body != Body::UntilClose;
    Ok(head)
}

impl Body {
    /// Takes what has arrived off the front of `buf`; true when the body is complete.
    pub(super) fn advance(&mut self, buf: &mut BytesMut) -> Result<bool, String> {
        match self {
            Body::Length(left) => {
                skip(buf, left);
                Ok(*left == 0)
            }
            Body::UntilClose => {
                buf.clear();
                Ok(false)
            }
            Body::Chunked(chunk) => chunk.advance(buf),
        }
    }
}

impl Chunk {
    fn advance(&mut self, buf: &mut BytesMut) -> Result<bool, String> {
        loop {
            match self {
                Chunk::Size => match httparse::parse_chunk_size(buf) {
                    Ok(Status::Complete((length, size))) => {
                        buf.advance(length);
                        *self = if size == 0 { Chunk::Trailer } else { Chunk::Data(size) };
                    }
                    Ok(Status::Partial) => return Ok(false),
                    Err(_) => return Err("bad chunk size".to_owned()),
                },
                Chunk::Data(left) => {
                    skip(buf, left);
                    if *left > 0 {
                        return Ok(false);
                    }
                    *self = Chunk::DataEnd;
                }
                Chunk::DataEnd => {
                    if buf.len() < 2 {
                        return Ok(false);
                    }
                    if &buf[..2] != b"\r\n" {
                        return Err("chunk longer than its size".to_owned());
                    }
                    buf.advance(2);
                    *self = Chunk::Size;
                }
                // Lines up to an empty one.
                Chunk::Trailer => {
                    let Some(end) = buf.windows(2).position(|pair| pair == b"\r\n") else { return Ok(false) };
                    buf.advance(end + 2);
                    if end == 0 {
                        return Ok(true);
                    }
                }
            }
        }
    }
}

fn skip(buf: &mut BytesMut, left: &mut u64) {
    let now = (*left).min(buf.len() as u64);
    buf.advance(now as usize);
    *left -= now;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` one byte at a time; gives the status, whether the connection can be kept, and what is left over.
    #[track_caller]
    fn read(text: &str) -> Result<(u16, bool, String), String> {
        let (mut buf, mut head) = (BytesMut::new(), None);
        for (at, byte) in text.bytes().enumerate() {
            buf.extend_from_slice(&[byte]);
            if head.is_none() {
                head = take_head(&mut buf)?;
            }
            if let Some(head) = &mut head
                && head.body.advance(&mut buf)?
            {
                return Ok((head.status, head.keep, text[at + 1..].to_owned()));
            }
        }
        Err("incomplete".to_owned())
    }

    #[test]
    fn complete_responses_end_where_they_end() {
        let length = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcREST";
        assert_eq!(read(length), Ok((200, true, "REST".to_owned())));
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\nREST";
        assert_eq!(read(chunked), Ok((200, false, "REST".to_owned())));
        let empty = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\nREST";
        assert_eq!(read(empty), Ok((304, true, "REST".to_owned())));
    }

    #[test]
    fn incomplete_or_wrong_responses_are_errors() {
        assert_eq!(read("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab"), Err("incomplete".to_owned()));
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\nab"), Err("incomplete".to_owned()));
        let long = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n";
        assert_eq!(read(long), Err("chunk longer than its size".to_owned()));
        assert!(read("SSH-2.0\r\n\r\n").is_err());
    }
}
