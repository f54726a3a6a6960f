//! Wrong credentials, counted for each client address, so that nobody finds one by trying.

use std::{net::IpAddr, sync::Arc};

use limits::{Key, Limiter, Table};

use crate::filter::Ctx;

/// Most client addresses whose failures are held at a time. Beyond that the ones that failed least begin anew.
pub(super) const ADDRESSES: usize = 1 << 16;

/// The failures at one policy.
pub(super) struct Failures {
    table: Arc<Table>,
    limiter: Arc<Limiter>,
}

impl Failures {
    pub(super) fn new(table: Arc<Table>, limiter: Arc<Limiter>) -> Self {
        Self { table, limiter }
    }

    /// The seconds until the client may try again, if it has failed too often.
    pub(super) fn wait_s(&self, ctx: &Ctx) -> Option<u64> {
        let decision = self.limiter.peek(&self.table, Some(self.key(ctx)), ctx.now_us);
        (!decision.allowed).then(|| decision.retry_after_us.div_ceil(1_000_000).max(1))
    }

    /// Counts a failure of the client.
    pub(super) fn count(&self, ctx: &Ctx) {
        self.limiter.take(&self.table, Some(self.key(ctx)), ctx.now_us);
    }

    /// A client: an IPv4 address, or the /64 of IPv6 that one has.
    fn key(&self, ctx: &Ctx) -> Key {
        let mut key = self.table.key(self.limiter.namespace());
        match ctx.client.to_canonical() {
            IpAddr::V4(address) => key.part(&address.octets()),
            IpAddr::V6(address) => key.part(&address.octets()[..8]),
        }
        key.finish()
    }
}
