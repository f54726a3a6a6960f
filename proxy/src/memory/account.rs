//! What the clients of one worker hold.
//!
//! Each number has one writer, the worker's thread: adding is a load and a store, and no worker waits for another. Others
//! read them, and may be late by an instant.

use std::{
    future::poll_fn,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use slab::Slab;
use tokio::sync::Notify;

use super::{Kind, Memory, choice, near};

/// A connection that holds more than this gets no new streams when memory is nearly used up.
const MUCH: usize = 64 << 10;

/// One worker's account.
pub(crate) struct Account {
    memory: Arc<Memory>,
    held: AtomicUsize,
    kinds: [AtomicUsize; Kind::ALL.len()],
    holders: Mutex<Slab<Arc<Holder>>>,
    exceeded: Notify,
    /// There is room again.
    relieved: Notify,
}

/// What one connection holds.
pub(crate) struct Holder {
    account: Arc<Account>,
    /// The client, as its connections are counted.
    client: IpAddr,
    held: AtomicUsize,
    ended: AtomicBool,
    waker: OnceLock<Waker>,
}

/// One thing that a connection holds, for as long as this lives.
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
            kinds: Default::default(),
            holders: Mutex::default(),
            exceeded: Notify::new(),
            relieved: Notify::new(),
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

    /// Ends connections while more is held than may be. Runs as long as the worker.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            self.exceeded.notified().await;
            self.relieve();
        }
    }

    /// Waits until there is room for another connection.
    pub(crate) async fn room(&self) {
        loop {
            // Before looking, so that nothing is missed meanwhile.
            let relieved = self.relieved.notified();
            if !self.is_over() {
                return;
            }
            self.exceeded.notify_one();
            relieved.await;
        }
    }

    /// Whether more is held than may be, and here more than this worker's share.
    pub(crate) fn is_over(&self) -> bool {
        self.held() > self.memory.share() && self.memory.held() > self.memory.budget()
    }

    /// The same of what is nearly so.
    fn is_near(&self) -> bool {
        self.held() > near(self.memory.share()) && self.memory.held() > near(self.memory.budget())
    }

    /// Has the keeper look, if there is reason to.
    pub(super) fn look(&self) {
        if self.is_over() {
            self.exceeded.notify_one();
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    pub(super) fn held_of(&self, kind: Kind) -> usize {
        self.kinds[kind as usize].load(Relaxed)
    }

    /// Ends as many connections as it takes until it is near no more. What they hold is free when their tasks have run.
    fn relieve(&self) {
        if !self.is_over() {
            return;
        }
        let holders: Vec<_> = self.holders().iter().map(|(_, holder)| Arc::clone(holder)).collect();
        let (leaving, staying): (Vec<_>, Vec<_>) = holders.into_iter().partition(|holder| holder.is_ended());
        let leaving: usize = leaving.iter().map(|holder| holder.held()).sum();
        // No worker has to go below its share for the sake of others.
        let own = self.held().saturating_sub(near(self.memory.share()));
        let all = self.memory.held().saturating_sub(near(self.memory.budget()));
        let wanted = own.min(all).saturating_sub(leaving);
        let each: Vec<_> = staying.iter().map(|holder| (holder.client, holder.held())).collect();
        let chosen = choice::of_most(&each, wanted);
        if chosen.is_empty() {
            return;
        }
        chosen.iter().for_each(|i| staying[*i].end());
        self.memory.note_ended(chosen.len(), chosen.iter().map(|i| each[*i].1).sum());
    }

    fn add(&self, kind: Kind, bytes: usize) {
        let held = self.held().wrapping_add(bytes);
        self.held.store(held, Relaxed);
        let of_kind = &self.kinds[kind as usize];
        of_kind.store(of_kind.load(Relaxed).wrapping_add(bytes), Relaxed);
        if held > self.memory.share() {
            self.look();
        }
    }

    fn remove(&self, kind: Kind, bytes: usize) {
        let before = self.held();
        self.held.store(before.wrapping_sub(bytes), Relaxed);
        let of_kind = &self.kinds[kind as usize];
        of_kind.store(of_kind.load(Relaxed).wrapping_sub(bytes), Relaxed);
        if before > near(self.memory.share()) {
            self.relieved.notify_waiters();
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
        let refused = self.held() > MUCH && self.account.is_near();
        if refused {
            self.account.memory.stream_refused();
        }
        refused
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

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// It has come to so many bytes.
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let (holder, account) = (&self.holder, &self.holder.account);
        if bytes > before {
            holder.held.store(holder.held().wrapping_add(bytes - before), Relaxed);
            account.add(self.kind, bytes - before);
        } else if bytes < before {
            holder.held.store(holder.held().wrapping_sub(before - bytes), Relaxed);
            account.remove(self.kind, before - bytes);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}
