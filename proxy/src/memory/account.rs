//! What the clients of one worker hold.
//!
//! Each number has one writer, the worker's thread: adding is a load and a store, and no worker waits for another.
//! Others read them, and may be late by an instant.

use std::{
    future::poll_fn,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use slab::Slab;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Kind, Memory, choice, near};

/// A connection that holds more than this gets no new streams when memory is nearly used up.
const HEAVY_CONNECTION_BYTES: usize = 64 << 10;

/// No sooner after the last time is memory given back that ended connections held.
const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(1);

/// The account of one worker.
pub(crate) struct Account {
    memory: Arc<Memory>,
    held: AtomicUsize,
    /// Bytes of connections that were ended, which are free when their tasks have run.
    leaving: AtomicUsize,
    kinds: [AtomicUsize; Kind::ALL.len()],
    holders: Mutex<Slab<Arc<Holder>>>,
    /// Notified when somebody else found that there is too much.
    exceeded: Notify,
    /// Notified when there is room again.
    relieved: Notify,
    /// Notified when all that were ended have left.
    left: Notify,
}

/// The memory that one connection holds.
pub(crate) struct Holder {
    account: Arc<Account>,
    /// The client, as its connections are counted.
    client: IpAddr,
    held: AtomicUsize,
    ended: AtomicBool,
    waker: OnceLock<Waker>,
}

/// A charge for one thing that a connection holds, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Charge {
    holder: Arc<Holder>,
    kind: Kind,
    bytes: usize,
}

/// A connection is known to its account for as long as this lives.
pub(crate) struct Entered {
    pub(crate) holder: Arc<Holder>,
    place: usize,
}

impl Account {
    pub(super) fn new(memory: Arc<Memory>) -> Arc<Self> {
        Arc::new(Self {
            memory,
            held: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            kinds: Default::default(),
            holders: Mutex::default(),
            exceeded: Notify::new(),
            relieved: Notify::new(),
            left: Notify::new(),
        })
    }

    /// A connection of a client.
    pub(crate) fn enter(self: &Arc<Self>, client: IpAddr) -> Entered {
        let holder = Arc::new(Holder {
            account: Arc::clone(self),
            client,
            held: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            waker: OnceLock::new(),
        });
        let place = self.holders().insert(Arc::clone(&holder));
        Entered { holder, place }
    }

    /// Ends connections when the budget has shrunk: what exceeds it is noticed at once where it is charged. What those
    /// held that were ended is given back to the system, since it would else be taken for others' and shrink the
    /// budget. Runs as long as the worker.
    pub(crate) async fn keep(self: Arc<Self>) {
        // However many are ended, it is given back once in a while: that takes the worker's time.
        let mut not_before = Instant::now();
        loop {
            let left = async {
                if Instant::now() < not_before {
                    sleep_until(not_before).await;
                }
                self.left.notified().await;
            };
            tokio::select! {
                () = self.exceeded.notified() => self.relieve(),
                () = left => {
                    not_before = Instant::now() + GIVE_BACK_INTERVAL;
                    if !allocator::give_back() {
                        self.left.notify_one();
                    }
                }
            }
        }
    }

    /// Waits until there is room for another connection.
    pub(crate) async fn room(&self) {
        loop {
            // Before looking, so that nothing is missed meanwhile.
            let relieved = self.relieved.notified();
            if !self.is_full() {
                return;
            }
            relieved.await;
        }
    }

    /// Whether more is held than may be, and here more than this worker's share.
    pub(crate) fn is_full(&self) -> bool {
        self.held() > self.memory.share() && self.memory.held() > self.memory.budget()
    }

    /// Whether there is too much, without what is about to be free.
    fn is_over(&self) -> bool {
        self.staying() > self.memory.share() && self.memory.staying() > self.memory.budget()
    }

    /// Whether there is nearly too much.
    fn is_near(&self) -> bool {
        self.held() > near(self.memory.share()) && self.memory.held() > near(self.memory.budget())
    }

    /// Has the keeper look, if there is reason to.
    pub(super) fn look(&self) {
        if self.is_over() {
            self.exceeded.notify_one();
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    pub(super) fn staying(&self) -> usize {
        self.held().saturating_sub(self.leaving.load(Relaxed))
    }

    pub(super) fn held_of(&self, kind: Kind) -> usize {
        self.kinds[kind as usize].load(Relaxed)
    }

    /// Ends as many connections as it takes until it is near no more. Their tasks do nothing any more but end.
    fn relieve(&self) {
        if !self.is_over() {
            return;
        }
        let all: Vec<_> = self.holders().iter().map(|(_, holder)| Arc::clone(holder)).collect();
        let staying: Vec<_> = all.into_iter().filter(|holder| !holder.is_ended()).collect();
        // No worker has to go below its share for the sake of others.
        let own = self.staying().saturating_sub(near(self.memory.share()));
        let all = self.memory.staying().saturating_sub(near(self.memory.budget()));
        let each: Vec<_> = staying.iter().map(|holder| (holder.client, holder.held())).collect();
        let chosen = choice::of_most(&each, own.min(all));
        if chosen.is_empty() {
            return;
        }
        for i in &chosen {
            add(&self.leaving, each[*i].1);
            staying[*i].end();
        }
        self.memory.note_ended(chosen.len(), chosen.iter().map(|i| each[*i].1).sum());
    }

    fn add(&self, kind: Kind, bytes: usize, leaving: bool) {
        add(&self.held, bytes);
        add(&self.kinds[kind as usize], bytes);
        if leaving {
            add(&self.leaving, bytes);
        } else if self.held() > self.memory.share() {
            self.relieve();
        }
    }

    fn remove(&self, kind: Kind, bytes: usize, leaving: bool) {
        if self.held() > near(self.memory.share()) {
            self.relieved.notify_waiters();
        }
        remove(&self.held, bytes);
        remove(&self.kinds[kind as usize], bytes);
        if leaving {
            remove(&self.leaving, bytes);
            if self.leaving.load(Relaxed) == 0 {
                self.left.notify_one();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn holder_count(&self) -> usize {
        self.holders().len()
    }

    fn holders(&self) -> MutexGuard<'_, Slab<Arc<Holder>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder {
    /// The connection's task, which is woken when it is to end.
    pub(crate) fn note_task(&self, cx: &Context<'_>) {
        self.waker.get_or_init(|| cx.waker().clone());
    }

    /// Waits until the connection is to end, for its task, of which [`Holder::note_task`] was told.
    pub(crate) async fn ended(&self) {
        poll_fn(|_| if self.is_ended() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Whether the connection was ended for what it held.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Whether there shall be no new streams: memory is nearly used up, and this connection holds much of it.
    pub(crate) fn is_refused(&self) -> bool {
        let refused = self.held() > HEAVY_CONNECTION_BYTES && self.account.is_near();
        if refused {
            self.account.memory.stream_refused();
        }
        refused
    }

    /// Whether there is room for what can be done without: clients hold less than half of what they may.
    pub(crate) fn has_room(&self) -> bool {
        self.account.held() < self.account.memory.share() / 2
    }

    /// Whether nothing more is to be read for anybody: there is too much until those who were ended have left.
    pub(crate) fn is_held_back(&self) -> bool {
        self.account.is_full()
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    fn end(&self) {
        self.ended.store(true, Relaxed);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holder").field("client", &self.client).field("held", &self.held).finish_non_exhaustive()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.holder.account.holders().try_remove(self.place);
    }
}

impl Charge {
    /// Nothing yet.
    pub(crate) fn new(holder: &Arc<Holder>, kind: Kind) -> Self {
        Self { holder: Arc::clone(holder), kind, bytes: 0 }
    }

    /// What is charged now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// See [`Holder::is_held_back`].
    pub(crate) fn is_held_back(&self) -> bool {
        self.holder.is_held_back()
    }

    /// Sets what it has come to, in bytes.
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let (holder, account) = (&self.holder, &self.holder.account);
        if bytes > before {
            add(&holder.held, bytes - before);
            account.add(self.kind, bytes - before, holder.is_ended());
        } else if bytes < before {
            remove(&holder.held, before - bytes);
            account.remove(self.kind, before - bytes, holder.is_ended());
        }
    }
}

/// Adds to a number that has one writer.
fn add(number: &AtomicUsize, bytes: usize) {
    number.store(number.load(Relaxed).wrapping_add(bytes), Relaxed);
}

fn remove(number: &AtomicUsize, bytes: usize) {
    number.store(number.load(Relaxed).wrapping_sub(bytes), Relaxed);
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}
