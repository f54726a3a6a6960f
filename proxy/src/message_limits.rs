//! How much a peer may ask for, and how long it may take. The fleet sets some of it (`spec.limits`, `spec.paths`); a
//! connection keeps what it began with.

use std::{num::NonZeroU32, time::Duration};

use snapshot::{path, proto::PathParameters};

/// Bounds of messages and of the time they may take; those of heads, bodies and times hold for HTTP/2 too.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of a request's head, start line included (431).
    pub head_bytes: usize,
    /// Bytes of a response's head, start line included (502). Fleets do not set it.
    pub response_head_bytes: usize,
    /// Fields of a request's head (431), or of trailers.
    pub fields: usize,
    /// Fields of a response's head (502).
    pub response_fields: usize,
    /// Rules by which paths of requests are read (400).
    pub paths: path::Rules,
    /// Bytes of a request target (414).
    pub target_bytes: usize,
    /// Bytes of a request's body (413). It streams, and so costs no memory, whatever its size.
    pub body_bytes: u64,
    /// Bytes of a trailer section.
    pub trailer_bytes: usize,
    /// Bytes of chunk extensions, over a whole body: they are read and dropped.
    pub extension_bytes: usize,
    /// Interim responses (1xx) before the final one.
    pub interim: u32,
    /// Bytes of an unread body that are read and dropped to keep a client's connection.
    pub discarded_bytes: u64,
    /// From the first byte of a head to its last (408).
    pub head_time: Duration,
    /// Between two requests of a connection, and before its first.
    pub idle_time: Duration,
    /// Without a byte from a client whose body is awaited (408), or to a client that should read.
    pub client_stall: Duration,
    /// Without a byte from an upstream within a response's body, or to one that should read (504).
    pub upstream_stall: Duration,
    /// Bytes of a body for a second of those times: who moves fewer is behind, and has these times for that. `None`:
    /// any byte is enough.
    pub least_rate: Option<NonZeroU32>,
    /// Without a byte in either direction of a WebSocket.
    pub websocket_idle: Duration,
    /// From a WebSocket's beginning to its end.
    pub websocket_age: Duration,
    /// Time for which a client that was answered before its body came may go on sending, until it looks for the answer.
    pub linger: Duration,
    /// Longest silence of such a client.
    pub linger_stall: Duration,
    /// Bytes that are read of it, and dropped, in each second of that time. The rest has to wait.
    pub linger_rate: u64,
}

/// An upstream that was told that the client waits with the body has this long to ask for it, or to refuse. Many never
/// do.
pub(crate) const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a method (501), which are more than any that is registered has.
pub(crate) const MAX_METHOD_BYTES: usize = 118;
/// Bytes that a method, two spaces and a version add to a target in a request's first line.
pub(crate) const START_LINE_OVERHEAD_BYTES: usize = MAX_METHOD_BYTES + " ".len() + " HTTP/1.1".len();

/// Limits that apply unless the fleet sets others.
pub const DEFAULT: Limits = Limits {
    head_bytes: 64 << 10,
    response_head_bytes: 64 << 10,
    fields: 100,
    response_fields: 128,
    paths: path::Rules { parameters: PathParameters::Strip, keep_escaped_slashes: false, keep_empty_segments: false },
    target_bytes: 8 << 10,
    body_bytes: u64::MAX,
    trailer_bytes: 16 << 10,
    extension_bytes: 16 << 10,
    interim: 16,
    discarded_bytes: 256 << 10,
    head_time: Duration::from_secs(10),
    idle_time: Duration::from_secs(75),
    client_stall: Duration::from_secs(30),
    upstream_stall: Duration::from_secs(300),
    // As Kestrel has it, in both directions.
    least_rate: NonZeroU32::new(240),
    websocket_idle: Duration::from_secs(3600),
    websocket_age: Duration::from_secs(24 * 3600),
    // As nginx has them.
    linger: Duration::from_secs(30),
    linger_stall: Duration::from_secs(5),
    linger_rate: 64 << 20,
};

/// Limits of what a client may have under way on one HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Requests at once.
    pub streams: u32,
    /// Bytes of one request's body that were not passed on yet.
    pub stream_window: u32,
    /// Bytes of all requests' bodies together that were not passed on yet.
    pub connection_window: u32,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self { streams: 100, stream_window: 256 << 10, connection_window: 1 << 20 }
    }
}
