//! The timeouts of a client's connection and of its requests, and how long each is.

use std::time::Duration;

use crate::message_limits::Limits;

/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The kinds of timeouts, by what is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TimeoutKind {
    /// The TLS handshake.
    Handshake = 1,
    /// A request, or nothing.
    Idle,
    /// The rest of a head.
    Head,
    /// More of a request's body.
    Body,
    /// The client to read.
    ClientToRead,
    /// The upstream to read.
    UpstreamToRead,
    /// The upstream's response.
    UpstreamToAnswer,
    /// More of a response's body.
    UpstreamToSend,
}

impl TimeoutKind {
    pub(super) const ALL: [TimeoutKind; 8] = [
        TimeoutKind::Handshake,
        TimeoutKind::Idle,
        TimeoutKind::Head,
        TimeoutKind::Body,
        TimeoutKind::ClientToRead,
        TimeoutKind::UpstreamToRead,
        TimeoutKind::UpstreamToAnswer,
        TimeoutKind::UpstreamToSend,
    ];

    /// Whether it is the client that takes its time.
    pub(crate) fn is_for_client(self) -> bool {
        self as u8 <= TimeoutKind::ClientToRead as u8
    }

    /// The length of such a timeout.
    pub(crate) fn limit(self, limits: &Limits) -> Duration {
        match self {
            TimeoutKind::Handshake => HANDSHAKE_TIMEOUT,
            TimeoutKind::Idle => limits.idle_time,
            TimeoutKind::Head => limits.head_time,
            TimeoutKind::Body | TimeoutKind::ClientToRead => limits.client_stall,
            TimeoutKind::UpstreamToRead | TimeoutKind::UpstreamToAnswer | TimeoutKind::UpstreamToSend => {
                limits.upstream_stall
            }
        }
    }
}
