//! HTTP/1.1 clients: kept connections, and new ones for a single request.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Context, Plan,
    net::{Dialer, Io, Protocol},
    report::Answer,
    wire::{self, Body},
};

/// A client that keeps one connection and sends the requests it takes from the schedule, one after the other.
pub(super) async fn kept(mut context: Context) {
    let requests = render(&context.plan, false);
    // Opened before the first request is due, as a real client's pool would be. A failure shows at the first request.
    let mut slot = Link::open(&context).await.ok();
    while let Some(from) = context.due().await {
        let path = context.next_path();
        send(&context, &mut slot, &requests[path], path, from, false).await;
    }
}

/// Clients that come anew, `new_per_second` of them: connect, one request with `Connection: close`, gone.
pub(super) async fn newcomers(mut context: Context, end: Instant) {
    let requests = Arc::new(render(&context.plan, true));
    let gap = Duration::from_secs_f64(1.0 / context.plan.new_per_second);
    let mut running = tokio::task::JoinSet::new();
    let mut next = Instant::now();
    while next < end && context.sleep_until(next).await {
        let (context, requests) = (context.clone(), Arc::clone(&requests));
        running.spawn(async move {
            let path = context.next_path();
            send(&context, &mut None, &requests[path], path, Instant::now(), true).await;
        });
        while running.try_join_next().is_some() {}
        next += gap;
    }
    while running.join_next().await.is_some() {}
}

/// Sends one request over the kept link, or over a new one, and counts its outcome.
async fn send(context: &Context, slot: &mut Option<Link>, request: &[u8], path: usize, from: Instant, newcomer: bool) {
    let (stats, path) = (&context.stats, &context.plan.paths[path]);
    loop {
        // A pool notices a connection that was closed while idle and does not use it.
        let kept = slot.take().and_then(Link::if_alive);
        let reused = kept.is_some();
        let exchange = async {
            let mut link = match kept {
                Some(link) => link,
                None => Link::open(context).await.map_err(|error| Broken::Partial(reason("connect", &error)))?,
            };
            let answer = link.exchange(request).await?;
            Ok((link, answer))
        };
        match tokio::time::timeout(context.plan.timeout, exchange).await {
            Err(_) => stats.failed("timeout", path),
            Ok(Ok((link, answer))) => {
                if answer.keep {
                    *slot = Some(link);
                } else if !newcomer {
                    stats.retired();
                }
                stats.answered(from, &answer, path);
            }
            Ok(Err(Broken::Silent(_))) if reused => {
                stats.reused_closed();
                continue;
            }
            Ok(Err(Broken::Silent(reason) | Broken::Partial(reason))) => stats.failed(&reason, path),
        }
        return;
    }
}

/// The bytes of a request for each path.
fn render(plan: &Plan, close: bool) -> Vec<Vec<u8>> {
    let method = plan.method();
    let headers: String = plan.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if plan.body > 0 { format!("content-length: {}\r\n", plan.body) } else { String::new() };
    let close = if close { "connection: close\r\n" } else { "" };
    let request = |path: &String| {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n{headers}{length}{close}\r\n", plan.host);
        let mut request = head.into_bytes();
        request.resize(request.len() + plan.body, b'.');
        request
    };
    plan.paths.iter().map(request).collect()
}

/// The reason why an exchange did not come to an answer.
enum Broken {
    /// The connection ended before any byte of the answer.
    Silent(String),
    /// Any other way.
    Partial(String),
}

/// A connection to the target.
struct Link {
    io: Io,
    buf: BytesMut,
}

impl Link {
    async fn open(context: &Context) -> io::Result<Link> {
        let dialer: &Dialer = &context.dialer;
        let io = dialer.dial(Protocol::Http1).await?;
        context.stats.connected();
        Ok(Link { io, buf: BytesMut::with_capacity(16 * 1024) })
    }

    /// The idle connection, unless it was closed by the server or sent something that was not asked for.
    fn if_alive(mut self) -> Option<Link> {
        self.io.read_buf(&mut self.buf).now_or_never().is_none().then_some(self)
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Answer, Broken> {
        // The server may answer before it has read all and close: what it said counts, so read in either case.
        let sent = self.io.write_all(request).await;
        self.buf.clear();
        let mut bytes = 0;
        let mut head = None;
        loop {
            self.buf.reserve(4096);
            let ended = match self.io.read_buf(&mut self.buf).await {
                Ok(0) => Some("connection closed".to_owned()),
                Ok(count) => {
                    bytes += count;
                    None
                }
                Err(error) => Some(reason("read", &error)),
            };
            if let Some(ended) = ended {
                return match head {
                    Some(wire::Head { body: Body::UntilClose, status, upstream, .. }) => {
                        Ok(Answer { status, upstream, keep: false })
                    }
                    _ if bytes == 0 => Err(Broken::Silent(format!("{ended} before any byte of the answer"))),
                    _ => Err(Broken::Partial(format!("{ended} within the answer"))),
                };
            }
            if head.is_none() {
                head = wire::take_head(&mut self.buf).map_err(Broken::Partial)?;
            }
            let Some(known) = &mut head else { continue };
            if known.body.advance(&mut self.buf).map_err(Broken::Partial)? {
                let keep = known.keep && sent.is_ok() && self.buf.is_empty();
                return Ok(Answer { status: known.status, upstream: known.upstream.take(), keep });
            }
        }
    }
}

/// A short reason to count by: what failed, and how.
pub(super) fn reason(what: &str, error: &io::Error) -> String {
    format!("{what}: {}", error.kind())
}
