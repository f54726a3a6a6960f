//! What tests of filters share.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use limits::Decision;

use super::{Chain, Ctx};
use crate::{
    rate_limit_fields::{RateLimit, Words},
    rule::{Action, Rule},
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
        started: Instant::now(),
        now_us: 1_000_000,
        identity: None,
        rate_limit: None,
    }
}
