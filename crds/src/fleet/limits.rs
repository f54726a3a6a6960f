//! What clients and backends may ask for of one proxy, and how long they may take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// Bounds of requests, connections and the time both may take. A change applies to connections that are made from then on;
/// those that are open keep theirs until they end, at `connection.maxAge` at the latest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request's head, its target included; beyond, it is answered 431.
    #[schemars(range(min = 1024, max = 1_048_576))]
    pub header_bytes: u32,
    /// Header fields of a request; beyond, it is answered 431.
    #[schemars(range(min = 1, max = 1000))]
    pub header_fields: u32,
    /// Bytes of a request's target, which is its path and query; beyond, it is answered 414.
    #[schemars(range(min = 64, max = 32768))]
    pub target_bytes: u32,
    /// Bytes of a request's body; beyond, it is answered 413. Default: as many as the client sends, since bodies pass
    /// through and take no memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_125_899_906_842_624_u64))]
    pub body_bytes: Option<u64>,
    /// Connections that one client may have open to one proxy; further ones are closed at once. A client is an address, of
    /// IPv6 a /64. Default: as many as there is room for, since many users may share an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_client: Option<u32>,
    /// Percent of a proxy's file descriptors that one client may hold: those of its connections, of which each counts for
    /// one to a backend too, and of connections to backends for what else it asks for at once by HTTP/2. Beyond, further
    /// connections are closed at once, and such requests answered 503. A client is as above; 100 lets one have all.
    #[schemars(range(min = 1, max = 100))]
    pub descriptors_per_client_percent: u32,
    /// Longest time from the first byte of a request's head to its last; then it is answered 408.
    pub header_timeout: Duration,
    /// A connection without a request is closed after this long.
    pub idle_timeout: Duration,
    /// Longest time without a byte from a client whose body is awaited, which is answered 408, or to a client that should
    /// read, which is cut off.
    pub client_stall_timeout: Duration,
    /// Longest time without a byte from a backend that should answer, or to one that should read; then the request is
    /// answered 504, or its response broken off. WebSockets have times of their own.
    pub backend_stall_timeout: Duration,
    /// Bytes of a body that count for a second of the two stall timeouts, in either direction: who moves fewer falls behind,
    /// and is dealt with as if it had moved none once it is behind by the whole timeout. Nobody is behind for what somebody
    /// else is waited for, nor gains time in advance. 0: any byte is enough. WebSockets are exempt, bodies whose
    /// Content-Type is that of a stream (gRPC, server-sent events and others: docs/gateway-api.md), and rules with `timeouts.request: 0s`.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_body_bytes_per_second: u32,
    /// Of WebSockets.
    pub web_socket: WebSocketLimits,
    /// Of HTTP/2 connections.
    pub http2: Http2Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 << 10,
            header_fields: 100,
            target_bytes: 8 << 10,
            body_bytes: None,
            connections_per_client: None,
            descriptors_per_client_percent: 50,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            client_stall_timeout: Duration::from_secs(30),
            backend_stall_timeout: Duration::from_secs(300),
            min_body_bytes_per_second: 240,
            web_socket: WebSocketLimits::default(),
            http2: Http2Limits::default(),
        }
    }
}

/// How long a WebSocket lives. At its end both sides are told by a Close frame with code 1001 (going away).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebSocketLimits {
    /// Longest time without a byte in either direction; a Ping or a Pong is enough to keep it.
    pub idle_timeout: Duration,
    /// Longest time from its beginning, however busy it is, give or take 10 %, so that not all come back at once.
    pub max_age: Duration,
}

impl Default for WebSocketLimits {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(3600), max_age: Duration::from_secs(24 * 3600) }
    }
}

/// What a client may have under way on one HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Http2Limits {
    /// Requests at once.
    #[schemars(range(min = 1, max = 1000))]
    pub concurrent_streams: u32,
    /// Bytes of one request's body that the client may send before they are passed on.
    #[schemars(range(min = 65535, max = 16_777_216))]
    pub stream_window_bytes: u32,
    /// The same of all requests of a connection together.
    #[schemars(range(min = 65535, max = 16_777_216))]
    pub connection_window_bytes: u32,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self { concurrent_streams: 100, stream_window_bytes: 256 << 10, connection_window_bytes: 1 << 20 }
    }
}
