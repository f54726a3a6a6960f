//! One request from its head to its end; whatever way it ends, it is recorded once.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, StatusCode, Version, uri::PathAndQuery};

use super::normalise::Host;
use crate::{
    client_address::ClientAddress,
    connection::{Conn, TimeoutKind, UpstreamPermit},
    consumers::Consumer,
    fields::Fields,
    forwarded::{self, RequestId},
    message::RequestHead,
    rule::Rule,
    telemetry::{ErrorSource, RequestRecord, Waiter},
    upstream::UpstreamError,
    worker::Worker,
};

/// A request under way. Dropping it closes it.
pub(crate) struct Exchange<'a> {
    pub(super) worker: &'a Worker,
    pub(crate) conn: &'a Conn,
    /// The client that other proxies name, and its address as a field's value; `None`: it is whoever connects.
    forwarded_client: Option<(IpAddr, HeaderValue)>,
    pub(super) rule: Option<Arc<Rule>>,
    /// Who calls, as far as it is known.
    pub(super) consumer: Option<Arc<Consumer>>,
    pub(super) method: Method,
    pub(super) target: Option<PathAndQuery>,
    pub(super) host: Host,
    pub(super) version: Version,
    pub(crate) request_id: RequestId,
    pub(super) started: Instant,
    pub(super) upstream: Upstream,
    /// Time for which filters waited for others: the proxy does not add it.
    external: Duration,
    /// The filter that waits now, and since when.
    waits: Option<(Waiter, Instant)>,
    /// Permit for the connection to an upstream.
    pub(super) taken: Option<UpstreamPermit>,
    pub(super) answered: Option<Instant>,
    pub(super) status: u16,
    /// Body bytes from the client.
    pub(crate) bytes_in: u64,
    /// Body bytes to the client so far.
    pub(crate) bytes_out: u64,
    pub(super) reason: Option<&'static str>,
    pub(super) error_source: Option<ErrorSource>,
}

/// The way upstream and back.
#[derive(Clone, Copy, Default)]
pub(super) struct Upstream {
    pub(super) address: Option<SocketAddr>,
    /// When the request first went that way, connecting included.
    pub(super) sent: Option<Instant>,
    /// When the response's head came.
    pub(super) head: Option<Instant>,
}

impl<'a> Exchange<'a> {
    pub(crate) fn open(worker: &'a Worker, conn: &'a Conn, head: &RequestHead) -> Self {
        worker.shared.telemetry.opened();
        Self {
            worker,
            conn,
            forwarded_client: None,
            rule: None,
            consumer: None,
            method: head.method.clone(),
            target: head.uri.path_and_query().cloned(),
            host: Host::default(),
            version: head.version,
            request_id: RequestId::of(&head.fields, || fastrand::u128(..)),
            started: Instant::now(),
            upstream: Upstream::default(),
            external: Duration::ZERO,
            waits: None,
            taken: None,
            answered: None,
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            reason: None,
            error_source: None,
        }
    }

    /// Finds the client by what other proxies say.
    pub(super) fn find_client(&mut self, rules: &ClientAddress, fields: &Fields) {
        let peer = self.conn.peer.ip();
        let client = rules.of(peer, fields);
        self.forwarded_client = (client != peer.to_canonical()).then(|| (client, forwarded::address(client)));
    }

    /// The client's address.
    pub(super) fn client(&self) -> IpAddr {
        self.forwarded_client.as_ref().map_or_else(|| self.conn.peer.ip(), |(client, _)| *client)
    }

    /// The client's address as a field's value.
    pub(super) fn client_value(&self) -> &HeaderValue {
        self.forwarded_client.as_ref().map_or_else(|| self.conn.client(), |(_, value)| value)
    }

    /// The proxy answers by itself, or the exchange fails.
    pub(super) fn fail(&mut self, reason: &'static str, error_source: ErrorSource) {
        // The first cause is the one that counts.
        self.reason.get_or_insert(reason);
        self.error_source.get_or_insert(error_source);
    }

    /// A filter begins to wait for somebody else.
    pub(super) fn begin_wait(&mut self, filter: Waiter) {
        self.waits = Some((filter, Instant::now()));
    }

    /// The filter that waits goes on; or it is given up.
    pub(super) fn end_wait(&mut self, resumed: bool) {
        if let Some((filter, since)) = self.waits.take() {
            let time = since.elapsed();
            self.external += time;
            self.worker.shared.telemetry.waited(filter, time, resumed);
        }
    }

    /// The final response's head is known.
    pub(super) fn answered(&mut self, status: StatusCode, at: Instant) {
        self.status = status.as_u16();
        self.answered = Some(at);
    }

    /// The final response's status, as metrics and log have it.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or_default()
    }

    /// When the final response's head was known.
    pub(crate) fn answered_at(&self) -> Instant {
        self.answered.unwrap_or(self.started)
    }

    /// The response broke off within the body.
    pub(crate) fn body_broke(&mut self, error: &UpstreamError) {
        match error {
            UpstreamError::Source(_) => self.client_went(),
            UpstreamError::Step(_) => self.fail("body_step_failed", ErrorSource::Internal),
            _ => self.fail("upstream_broke", ErrorSource::Upstream),
        }
    }

    /// The time of the request, or of the backend's, was over within the body, while this was waited for.
    pub(crate) fn timed_out(&mut self, waiting: Option<TimeoutKind>) {
        let whole = self.rule.as_ref().and_then(|rule| rule.request_timeout);
        let reason = match whole {
            Some(time) if self.started.elapsed() >= time => "request_timeout",
            _ => "upstream_timeout",
        };
        let for_client = waiting.is_some_and(TimeoutKind::is_for_client);
        self.fail(reason, if for_client { ErrorSource::Downstream } else { ErrorSource::Upstream });
    }

    /// The upstream went on for too long without a byte.
    pub(crate) fn upstream_stalled(&mut self) {
        self.fail("upstream_stalled", ErrorSource::Upstream);
    }

    /// The client took, or sent, nothing for too long.
    pub(crate) fn client_stalled(&mut self) {
        self.fail("client_stalled", ErrorSource::Downstream);
    }

    /// The client left before the end; or was made to, for what it held.
    pub(crate) fn client_went(&mut self) {
        match self.conn.holder.is_ended() {
            true => self.fail("memory_exhausted", ErrorSource::Internal),
            false => self.fail("client_went", ErrorSource::Downstream),
        }
    }

    /// `X-Request-Id`.
    pub(super) fn id(&self) -> &str {
        self.request_id.as_str()
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        if self.answered.is_none() || self.conn.holder.is_ended() {
            self.client_went();
        }
        self.end_wait(false);
        let upstream = self.upstream.sent.map(|sent| self.upstream.head.unwrap_or(now).duration_since(sent));
        let before_body = self.answered.unwrap_or(now).duration_since(self.started);
        self.worker.shared.telemetry.closed(&RequestRecord {
            ended: now,
            rule: self.rule.as_ref().map(|rule| rule.served_by()),
            consumer: self.consumer.as_deref(),
            client: self.client_value().as_bytes(),
            client_port: self.forwarded_client.is_none().then(|| self.conn.peer.port()),
            method: &self.method,
            target: self.target.as_ref().map_or("", |t| t.as_str()),
            host: &self.host.value,
            version: self.version,
            status: self.status,
            request_id: self.request_id.as_bytes(),
            duration: now.duration_since(self.started),
            upstream,
            external: (!self.external.is_zero()).then_some(self.external),
            added: before_body.saturating_sub(upstream.unwrap_or_default() + self.external),
            upstream_address: self.upstream.address,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            reason: self.reason,
            error_source: self.error_source,
        });
    }
}
