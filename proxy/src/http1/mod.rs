//! HTTP/1.1 on the socket: strict, bounded, and no more work for each request than it takes.
//!
//! ```text
//!  wire ─► lines.rs    a head's lines, found in place
//!            ├ request.rs   a request's head, and how its body is framed (RFC 9112 sections 2, 3 and 6)
//!            └ response.rs  a response's
//!          field_rules.rs   which fields are of one connection     body.rs, chunked.rs   where a body ends
//!  wire ◄─ encode.rs   heads; write_buffer.rs   bytes that wait to be written, with one system call if they can
//!  buffers.rs   memory that is lent to connections while they have something to read or write
//!
//!  client.rs   a client's connection: the codec on a stream     serve.rs   its requests, one after the other
//!  ../upstream/http1.rs   a request to an upstream, on a connection of its own for that time
//! ```
//!
//! **Strict.** What two servers could read differently is refused, and the connection closed: that is what request
//! smuggling is made of. Nothing of a message's framing is passed on: each side is framed anew from what was
//! understood.

pub mod body;
pub(crate) mod buffers;
pub mod chunked;
mod client;
pub mod encode;
pub(crate) mod field_rules;
pub(crate) mod grammar;
pub mod lines;
pub mod request;
pub mod response;
pub(crate) mod serve;
pub(crate) mod stream;
pub(crate) mod write_buffer;

/// The faults of a message that HTTP/1.1 does not allow, or allows to be read in more than one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A line that does not end in CRLF, or holds a CR of its own.
    #[error("a line does not end in CRLF")]
    LineEnd,
    /// A first line that is neither a request's nor a response's.
    #[error("the first line is not valid")]
    StartLine,
    /// A line that continues the one before it.
    #[error("a field is folded over lines")]
    Folded,
    /// A field without a valid name directly before its colon.
    #[error("a field's name is not valid")]
    FieldName,
    /// A control character in a field.
    #[error("a field's value is not valid")]
    FieldValue,
    /// No length, several, one beside chunks, or one that is no number.
    #[error("Content-Length is not valid")]
    ContentLength,
    /// Anything but `chunked`, once, in HTTP/1.1.
    #[error("Transfer-Encoding is not valid")]
    TransferEncoding,
    /// A chunk's size, extension or end; or extensions that are too long.
    #[error("a chunk is not valid")]
    Chunk,
    /// More trailers than are allowed, or a larger head of a response.
    #[error("trailers, or a head, are too long")]
    TooLong,
}
