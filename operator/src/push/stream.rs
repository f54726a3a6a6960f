//! The stream of one proxy: one push in flight, newer ones coalesce, and only the difference to what the proxy holds is
//! sent.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use planner::FleetRef;
use prost::Message as _;
use snapshot::{
    FORMAT_VERSION, Hash, Key, Kind,
    check::FEATURES,
    proto::{
        Ack, Hello, LoadWindow, OperatorMessage, ProxyMessage, operator_message::Message as ToProxy,
        proxy_message::Message as FromProxy,
    },
    report, set, wire,
};
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

use super::{
    MAX_PENDING_KIB, OUTBOX_LEN, Offered, PUSH_QUEUE_LEN, Published, Registry, Shared,
    read_rate::ReadRate,
    standby::{self, Answer},
};
use crate::{
    admin::metrics,
    identity::certificate::Peer,
    kube::backoff::Bounds,
    reason::is_own_trouble,
    reconcile::event::{Event, ProxyEvent, ProxyWhat},
};

/// A proxy that says nothing for this long after it dialled is no proxy.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A proxy applies a push in milliseconds; one that takes this long is stuck and has to dial anew.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause before refused content is sent again, twice as long each further time: the cause may be gone.
const RETRY_PAUSES: Bounds = Bounds::new(Duration::from_secs(60), Duration::from_secs(3600));
/// Most windows of a `Hello` that are taken up: five minutes at twice the usual one a second. What policies counted is of the
/// last minute.
const MAX_WINDOWS: usize = 600;
const WINDOWS_PERIOD_MS: u64 = 60_000;

type Out = mpsc::Sender<Result<OperatorMessage, Status>>;

/// Runs one stream until it ends. `peer` is who the proxy is, where that is known.
pub(super) async fn run(
    shared: &Shared,
    session: u64,
    peer: Option<&Peer>,
    mut inbound: Streaming<ProxyMessage>,
    out: &Out,
) -> Result<(), Status> {
    // Before anything is read of it.
    if let Some(peer) = peer.filter(|peer| !shared.pods.has(peer)) {
        return Err(dead(peer));
    }
    let one = peer.map(|peer| shared.hello_limiter.one(peer)).transpose()?;
    let first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message());
    let first = first.await.map_err(|_| Status::deadline_exceeded("no Hello"))??;
    drop(one);
    let Some(ProxyMessage { message: Some(FromProxy::Hello(mut hello)) }) = first else {
        return Err(Status::invalid_argument("the first message is not Hello"));
    };
    let fleet = Arc::new(check(&hello)?);
    if let Some(peer) = peer {
        check_peer(&hello, &fleet, peer, &shared.registry)?;
    }
    let lead = shared.lead.borrow().clone();
    let (epoch, published, once) = match standby::answer(&lead, &hello, &fleet, &shared.registry)? {
        Answer::Serve { epoch } => (epoch, shared.registry.subscribe(&fleet), None),
        Answer::Interim(published) => {
            let (sender, published) = watch::channel(Offered::to_all(published));
            (standby::NO_LEADER_EPOCH, published, Some(sender))
        }
        Answer::NotLeader(message) => {
            // When the proxy is gone, there is no one to tell.
            let _ = out.send(Ok(message)).await;
            return Ok(());
        }
    };
    if hello.epoch > epoch {
        return Err(Status::failed_precondition(format!(
            "proxy {:?} follows a later operator (epoch {}, this one has {epoch})",
            hello.proxy, hello.epoch
        )));
    }
    let held = held(&mut hello)?;
    let hello = plausible(hello);
    let unknown = Kind::unknown_to(&hello.features);
    let proxy: Arc<str> = hello.proxy.as_str().into();
    tracing::info!(session, %proxy, %fleet, pid = hello.pid, held = held.len(), ready = hello.ready, "proxy attached");
    if !unknown.is_empty() {
        tracing::warn!(session, %proxy, %fleet, ?unknown, "a proxy is older than these kinds, and is sent none of them");
    }
    let (outbox, mail) = mpsc::channel(OUTBOX_LEN);
    // On a standby the loop is not notified, since the proxy's next Hello tells the leader everything: this task must keep
    // the senders alive.
    let keep = once.map(|sender| (sender, outbox.clone()));
    let report = Report { shared, session, fleet, proxy, silent: keep.is_some() };
    report.send(ProxyWhat::Attached { hello: Box::new(hello), outbox }).await?;
    let stream = Stream {
        epoch,
        report,
        unknown,
        former: BTreeMap::new(),
        held,
        published,
        last: None,
        before: None,
        in_flight: None,
        queue: VecDeque::new(),
        again: None,
        tries: 0,
        asked_again: 0,
    };
    let gone = async {
        match peer {
            Some(peer) => {
                shared.pods.gone(peer).await;
                dead(peer)
            }
            None => pending().await,
        }
    };
    let follow = stream.follow(inbound, mail, out, gone);
    let (report, result) = match keep {
        None => follow.await,
        Some(_keep) => tokio::select! {
            ended = follow => ended,
            message = standby::leader(shared.lead.clone()) => {
                let _ = out.send(Ok(message)).await;
                return Ok(());
            }
        },
    };
    report.send(ProxyWhat::Detached).await?;
    result
}

/// The pod that a certificate names is gone; or was never seen, which passes for one that has just begun.
fn dead(peer: &Peer) -> Status {
    let Peer { fleet, pod, uid } = peer;
    Status::unavailable(format!(
        "pod {}/{pod} with uid {uid} of fleet {fleet} is not there (any more)",
        fleet.namespace
    ))
}

fn check(hello: &Hello) -> Result<FleetRef, Status> {
    if hello.format_version != FORMAT_VERSION {
        return Err(Status::failed_precondition(format!(
            "proxy {:?} speaks format {}, this operator {FORMAT_VERSION}: run both from one release",
            hello.proxy, hello.format_version
        )));
    }
    if hello.proxy.is_empty() || hello.proxy.len() > 253 {
        return Err(Status::invalid_argument("Hello.proxy is no name"));
    }
    let fleet = hello.fleet.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    let (namespace, name) =
        fleet.ok_or_else(|| Status::invalid_argument(format!("Hello.fleet {:?} is no namespace/name", hello.fleet)))?;
    Ok(FleetRef { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// A proxy is who its certificate says, and its fleet exists.
fn check_peer(hello: &Hello, fleet: &FleetRef, peer: &Peer, registry: &Registry) -> Result<(), Status> {
    if hello.proxy != peer.pod || *fleet != peer.fleet {
        return Err(Status::permission_denied(format!(
            "Hello is of proxy {:?} of {fleet}, but its certificate of pod {:?} of {}: set --name and --fleet to these",
            hello.proxy, peer.pod, peer.fleet
        )));
    }
    match registry.plan() {
        None => Err(Status::unavailable("this operator does not know yet what fleets there are")),
        Some(plan) if !plan.fleets.contains_key(fleet) => Err(standby::unknown(fleet)),
        Some(_) => Ok(()),
    }
}

fn held(hello: &mut Hello) -> Result<BTreeMap<Key, Hash>, Status> {
    let entry = |held: snapshot::proto::Held| {
        let key: Key = held.key.parse().map_err(|e| Status::invalid_argument(format!("Hello.held: {e}")))?;
        match Hash::from_slice(&held.hash) {
            Some(hash) => Ok((key, hash)),
            None => Err(Status::invalid_argument(format!("Hello.held: {key} has no hash"))),
        }
    };
    std::mem::take(&mut hello.held).into_iter().map(entry).collect()
}

/// A `Hello` without claims that no single process can have.
fn plausible(mut hello: Hello) -> Hello {
    let is_announced = |feature: &&&str| hello.features.iter().any(|announced| announced == *feature);
    hello.features = FEATURES.iter().filter(is_announced).map(|feature| (*feature).to_owned()).collect();
    hello.nacks = report::plausible_nacks(hello.nacks);
    if hello.admin_address.parse::<SocketAddr>().is_err() {
        hello.admin_address = String::new();
    }
    let surplus = hello.windows.len().saturating_sub(MAX_WINDOWS);
    let windows: Vec<LoadWindow> = hello.windows.into_iter().skip(surplus).filter_map(report::plausible).collect();
    let newest = windows.iter().map(|window| window.start_unix_ms).max().unwrap_or_default();
    let counted = |mut window: LoadWindow| {
        if window.start_unix_ms.saturating_add(WINDOWS_PERIOD_MS) < newest {
            window.policies = vec![];
        }
        window
    };
    hello.windows = windows.into_iter().map(counted).collect();
    hello
}

/// About how much of memory it takes, in KiB.
fn weight(what: &ProxyWhat) -> usize {
    // The encoding, and what holds its parts.
    let parts = |windows: &[LoadWindow]| -> usize {
        windows.iter().map(|w| 2 + (w.policies.len() + w.added_latency.len()) / 20).sum()
    };
    let kib: usize = match what {
        ProxyWhat::Attached { hello, .. } => hello.encoded_len() / 1024 + hello.nacks.len() / 8 + parts(&hello.windows),
        ProxyWhat::Ack { nacks, .. } => nacks.iter().map(|nack| nack.encoded_len() + 128).sum::<usize>() / 1024,
        ProxyWhat::Load(window) => window.encoded_len() / 1024 + parts(std::slice::from_ref(window)),
        ProxyWhat::Detached => 0,
    };
    (kib + 1).min(MAX_PENDING_KIB)
}

/// Tells the loop.
struct Report<'a> {
    shared: &'a Shared,
    session: u64,
    fleet: Arc<FleetRef>,
    proxy: Arc<str>,
    silent: bool,
}

impl Report<'_> {
    async fn send(&self, what: ProxyWhat) -> Result<(), Status> {
        if self.silent {
            return Ok(());
        }
        let (fleet, proxy) = (Arc::clone(&self.fleet), Arc::clone(&self.proxy));
        let weight = u32::try_from(weight(&what)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.shared.room).acquire_many_owned(weight).await.ok();
        let event = Event::Proxy(ProxyEvent { session: self.session, fleet, proxy, what, room });
        self.shared.events.send(event).await.map_err(|_| Status::unavailable("the operator ends"))
    }
}

/// The last push.
#[derive(Clone)]
struct Sent {
    /// The snapshot that was offered.
    offered: Arc<Published>,
    /// The part of it that the proxy knows.
    known: Arc<Published>,
    at: Instant,
}

struct Stream<'a> {
    epoch: u64,
    report: Report<'a>,
    /// The kinds that the proxy does not know: it is sent none of them.
    unknown: Vec<Kind>,
    /// The content that the proxy holds.
    held: BTreeMap<Key, Hash>,
    /// The content that the proxy held before the last push, which stays of each resource that it refuses.
    former: BTreeMap<Key, Hash>,
    published: watch::Receiver<Offered>,
    last: Option<Sent>,
    /// Revision of the push before, if that was another.
    before: Option<Hash>,
    /// Its acknowledgement is awaited, until then.
    in_flight: Option<Instant>,
    /// Messages of the push that are still to be sent.
    queue: VecDeque<OperatorMessage>,
    /// The time at which refused content is sent again; `None`: none was refused.
    again: Option<Instant>,
    tries: u32,
    /// [`Offered::again`], as last followed.
    asked_again: u64,
}

impl<'a> Stream<'a> {
    async fn follow(
        mut self,
        mut inbound: Streaming<ProxyMessage>,
        mut mail: mpsc::Receiver<OperatorMessage>,
        out: &Out,
        gone: impl Future<Output = Status>,
    ) -> (Report<'a>, Result<(), Status>) {
        self.published.mark_changed();
        let mut pace = ReadRate::new(Instant::now());
        let mut gone = pin!(gone);
        loop {
            let result = tokio::select! {
                status = &mut gone => Err(status),
                message = paced(&pace, &mut inbound) => match message {
                    Ok(Some(message)) => {
                        let is_asked_for = self.in_flight.is_some() && matches!(message.message, Some(FromProxy::Ack(_)));
                        pace.take(message.encoded_len(), is_asked_for, Instant::now());
                        match message.message {
                            Some(message) => self.accept(message).await,
                            None => Ok(()), // from a newer proxy: nothing to us
                        }
                    }
                    Ok(None) => return (self.report, Ok(())),
                    Err(status) => Err(status),
                },
                changed = self.published.changed(), if self.in_flight.is_none() => {
                    changed.map_err(|_| Status::unavailable("the operator ends")).map(|()| self.push(false))
                }
                () = until(self.again), if self.in_flight.is_none() => {
                    self.tries = self.tries.saturating_add(1);
                    self.push(true);
                    Ok(())
                }
                permit = out.reserve(), if !self.queue.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(message) = self.queue.pop_front() {
                            permit.send(Ok(message));
                        }
                        Ok(())
                    }
                    Err(_) => return (self.report, Ok(())),
                },
                message = mail.recv(), if self.queue.len() < PUSH_QUEUE_LEN => match message {
                    // Behind a push that is being sent: other messages may come between pushes only.
                    Some(message) => { self.queue.push_back(message); Ok(()) }
                    None => Err(Status::aborted("another stream of the same proxy took over")),
                },
                () = until(self.in_flight) => Err(Status::deadline_exceeded("a push was not acknowledged")),
            };
            if result.is_err() {
                return (self.report, result);
            }
        }
    }

    /// Starts a push of what is offered, unless the proxy has just that from the last one. `again`: it refuses some of that,
    /// which may be otherwise by now.
    fn push(&mut self, again: bool) {
        let offered = self.published.borrow_and_update().clone();
        let asked_again = std::mem::replace(&mut self.asked_again, offered.again) != offered.again;
        let again = again || (asked_again && self.again.is_some());
        let Some(published) = offered.to(&self.report.proxy).cloned() else { return };
        if self.last.as_ref().is_some_and(|last| last.offered.revision == published.revision) {
            if !again {
                return;
            }
        } else {
            self.tries = 0;
        }
        self.again = None;
        let known = published.known(&self.unknown);
        let base = (!self.held.is_empty()).then(|| set::revision(self.held.iter().map(|(key, hash)| (key, *hash))));
        let delta = known.snapshot.diff(&self.held);
        let proxy = &self.report.proxy;
        let (puts, deletes) = (delta.puts.len(), delta.deletes.len());
        tracing::debug!(%proxy, revision = %known.revision.short(), puts, deletes, "push");
        metrics::get().pushes.inc();
        self.queue.extend(wire::push(self.epoch, base, known.revision, &delta));
        let at = Instant::now();
        self.former.clone_from(&self.held);
        let before = self.last.as_ref().map(|last| last.known.revision);
        self.before = before.filter(|before| *before != known.revision);
        self.last = Some(Sent { offered: published, known, at });
        self.in_flight = Some(at + ACK_TIMEOUT);
    }

    async fn accept(&mut self, message: FromProxy) -> Result<(), Status> {
        match message {
            FromProxy::Hello(_) => Err(Status::invalid_argument("a second Hello")),
            FromProxy::Load(window) => match report::plausible(window) {
                Some(window) => self.report.send(ProxyWhat::Load(window)).await,
                None => Ok(()),
            },
            FromProxy::Ack(ack) => self.acknowledged(ack).await,
        }
    }

    async fn acknowledged(&mut self, ack: Ack) -> Result<(), Status> {
        let Some(Sent { offered, known, at }) = self.last.clone() else {
            return Err(Status::invalid_argument("Ack before any push"));
        };
        // A proxy acknowledges again once it can serve what it could not: that may cross the next push.
        let is_of = |revision: Hash| ack.revision == revision.as_bytes()[..];
        if self.in_flight.is_some() && self.before.is_some_and(is_of) && ack.epoch == self.epoch {
            return Ok(());
        }
        if !is_of(known.revision) || ack.epoch != self.epoch || !self.queue_is_sent() {
            return Err(Status::invalid_argument("Ack of what was not pushed last"));
        }
        if self.in_flight.take().is_some() {
            metrics::get().push_seconds.observe(at.elapsed().as_secs_f64());
            metrics::get().acks.inc();
            metrics::get().nacks.inc_by(ack.nacks.len() as u64);
        }
        self.held = known.snapshot.held();
        // The proxy keeps what it had of a resource that it refuses.
        for nack in &ack.nacks {
            let Ok(key) = nack.key.parse::<Key>() else { continue };
            if self.held.get(&key).is_some_and(|hash| hash.as_bytes()[..] == nack.hash[..]) {
                match self.former.get(&key) {
                    Some(hash) => self.held.insert(key, *hash),
                    None => self.held.remove(&key),
                };
            }
        }
        let refuses = ack.nacks.iter().any(|nack| !is_own_trouble(nack));
        self.again = refuses.then(|| Instant::now() + RETRY_PAUSES.pause(self.tries.saturating_add(1)));
        let nacks = report::plausible_nacks(ack.nacks);
        self.report.send(ProxyWhat::Ack { published: offered, nacks, ready: ack.ready }).await
    }

    /// Whether the push is out as a whole: `Commit` is its last message.
    fn queue_is_sent(&self) -> bool {
        !self.queue.iter().any(|m| matches!(m.message, Some(ToProxy::Commit(_))))
    }
}

/// The next message, once what came before it is paid for.
async fn paced(pace: &ReadRate, inbound: &mut Streaming<ProxyMessage>) -> Result<Option<ProxyMessage>, Status> {
    let next = pace.next();
    if next > Instant::now() {
        tokio::time::sleep_until(next.into()).await;
    }
    inbound.message().await
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
