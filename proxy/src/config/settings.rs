//! What holds for a whole proxy: the fleet's settings.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use snapshot::proto::{self, AccessLogLevel};

use crate::{
    client_address::ClientAddress,
    message_limits::{DEFAULT, Http2Limits, Limits},
};

/// Percent of all descriptors that one client may hold, unless the fleet says otherwise.
const DESCRIPTORS_PER_CLIENT: u32 = 50;

/// Settings of the fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Goes on accepting for at least this long when draining.
    pub min_drain: Duration,
    /// Time after which connections that still run are cut.
    pub drain_timeout: Duration,
    /// Client connections are retired at this age, ± 10 %.
    pub connection_max_age: Duration,
    /// Answers that are logged.
    pub access_log_level: AccessLogLevel,
    /// Percent of the successful answers that are logged.
    pub access_log_sampling: u32,
    /// Bounds of messages, and of the time they may take. A connection keeps those that it began with.
    pub limits: Arc<Limits>,
    /// Bounds that only HTTP/2 has.
    pub http2: Http2Limits,
    /// Connections that one client may have open; `None`: any number.
    pub connections_per_client: Option<u32>,
    /// Percent of all descriptors that one client may hold.
    pub descriptors_per_client: u32,
    /// Rules by which clients behind other proxies are known; `None`: the client is whoever connects.
    pub client_address: Option<ClientAddress>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_drain: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(60),
            connection_max_age: Duration::from_secs(600),
            access_log_level: AccessLogLevel::Errors,
            access_log_sampling: 100,
            limits: Arc::new(DEFAULT),
            http2: Http2Limits::default(),
            connections_per_client: None,
            descriptors_per_client: DESCRIPTORS_PER_CLIENT,
            client_address: None,
        }
    }
}

impl From<&proto::Fleet> for Settings {
    fn from(fleet: &proto::Fleet) -> Self {
        let limits = fleet.limits.unwrap_or_default();
        let http2 = Http2Limits::default();
        Self {
            min_drain: Duration::from_millis(fleet.min_drain_ms),
            drain_timeout: Duration::from_millis(fleet.drain_timeout_ms),
            connection_max_age: Duration::from_millis(fleet.connection_max_age_ms),
            access_log_level: fleet.access_log_level(),
            access_log_sampling: fleet.access_log_sampling_percent,
            limits: Arc::new(Limits { paths: fleet.paths.unwrap_or_default().into(), ..self::limits(&limits) }),
            http2: Http2Limits {
                streams: set(limits.http2_concurrent_streams).unwrap_or(http2.streams),
                stream_window: set(limits.http2_stream_window_bytes).unwrap_or(http2.stream_window),
                connection_window: set(limits.http2_connection_window_bytes).unwrap_or(http2.connection_window),
            },
            connections_per_client: set(limits.connections_per_client),
            descriptors_per_client: set(limits.descriptors_per_client_percent).unwrap_or(DESCRIPTORS_PER_CLIENT),
            client_address: fleet.client_address.as_ref().map(Into::into),
        }
    }
}

fn limits(limits: &proto::Limits) -> Limits {
    let bytes = |value, default| set(value).map_or(default, |value| usize::try_from(value).unwrap_or(usize::MAX));
    let time = |ms, default| set(ms).map_or(default, Duration::from_millis);
    Limits {
        head_bytes: bytes(limits.header_bytes, DEFAULT.head_bytes),
        fields: bytes(limits.header_fields, DEFAULT.fields),
        target_bytes: bytes(limits.target_bytes, DEFAULT.target_bytes),
        body_bytes: set(limits.body_bytes).unwrap_or(DEFAULT.body_bytes),
        head_time: time(limits.header_timeout_ms, DEFAULT.head_time),
        idle_time: time(limits.idle_timeout_ms, DEFAULT.idle_time),
        client_stall: time(limits.client_stall_timeout_ms, DEFAULT.client_stall),
        upstream_stall: time(limits.backend_stall_timeout_ms, DEFAULT.upstream_stall),
        least_rate: limits.min_body_bytes_per_second.map_or(DEFAULT.least_rate, NonZeroU32::new),
        websocket_idle: time(limits.websocket_idle_timeout_ms, DEFAULT.websocket_idle),
        websocket_age: time(limits.websocket_max_age_ms, DEFAULT.websocket_age),
        ..DEFAULT
    }
}

/// A value that is not the default.
fn set<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}
