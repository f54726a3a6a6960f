//! What tests of filters share.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use bytes::Bytes;
use http::HeaderValue;
use limits::Decision;
use snapshot::path::Rules;

use super::{Chain, Ctx, FilterState};
use crate::{
    forwarded::RequestId,
    memory::testing::holder,
    message_limits::DEFAULT,
    rate_limit_fields::{RateLimit, Words},
    rule::{Action, Rule},
    services::Caller,
};

/// A rule that does nothing.
pub(crate) fn rule(name: &str) -> Arc<Rule> {
    Arc::new(Rule {
        route: "ns/route".into(),
        name: name.into(),
        metrics: Arc::default(),
        chain: Chain::default(),
        request_timeout: None,
        backend_timeout: None,
        streams: false,
        action: Action::Unavailable("test".into()),
    })
}

/// One request more may pass.
pub(crate) fn rate_limit() -> RateLimit {
    let decision = Decision { allowed: true, remaining: 1, retry_after_us: 0, reset_us: 1_000_000 };
    RateLimit { words: Words { policy: "p".into(), name: "n".into() }.into(), decision }
}

/// A request of 192.0.2.1 at 1 s.
pub(crate) fn ctx() -> Ctx {
    Ctx {
        client: Ipv4Addr::new(192, 0, 2, 1).into(),
        tls: false,
        port: 80,
        prefix: 0,
        paths: Rules::default(),
        started: Instant::now(),
        now_us: 1_000_000,
        identity: None,
        logged: None,
        rate_limit: None,
        body: None,
        state: FilterState::default(),
    }
}

/// The caller of services for that request.
pub(crate) fn caller() -> Caller {
    Caller {
        pool: Arc::default(),
        calls: Arc::default(),
        limits: Arc::new(DEFAULT),
        holder: holder(),
        permit: (None, true),
        request_id: RequestId::Made([b'1'; 32]),
        client: HeaderValue::from_static("192.0.2.1"),
        tls: false,
        host: Bytes::from_static(b"shop.example"),
    }
}
