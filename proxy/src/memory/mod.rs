//! What clients hold of this process' memory, and what becomes of those who hold most when it gets scarce.
//!
//! ```text
//!  limit.rs    what the process may have, and uses: the container's, or what it was told
//!    └ Memory  what is left of that for clients: the budget of all workers
//!        └ Account (account.rs)  what the clients of one worker hold, by kind; nobody else writes there
//!            └ Holder  one connection          └ Charge  one thing that it holds, given back when dropped
//!  choice.rs   who is ended: of the client that holds most in all, the connection that holds most
//!  ebb.rs      when what they held is given back to the system
//! ```
//!
//! **What is charged** is what a client can make grow: heads, bodies on their way, buffers, streams. It is known at once
//! and says who. **What is measured**, ten times a second, is what the process uses: what is beyond the charges
//! (configuration, counters of limits, buffers of the kernel) leaves so much less to clients. So nothing that nobody
//! thought of charging makes the process exceed its limit: it makes the budget smaller.
//!
//! **When it is scarce**: near the budget, a connection that holds much gets no new streams. Beyond it nothing is accepted,
//! and connections are ended until it is near no more. A worker with less than its share ends nobody: others do.

mod account;
mod choice;
mod ebb;
mod limit;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::time::MissedTickBehavior;

pub(crate) use self::account::{Account, Charge, Holder};
pub(crate) use self::ebb::Ebb;
pub use self::limit::Limit;

/// Interval at which the memory that the process uses is looked at.
const MEASURE_INTERVAL: Duration = Duration::from_millis(100);

/// The kinds of memory that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections themselves: their tasks, TLS, HTTP/2's tables and buffers.
    Connections,
    /// Heads, whole or not.
    Heads,
    /// Bodies on their way, in either direction.
    Bodies,
    /// Buffers of WebSockets.
    WebSockets,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Connections, Kind::Heads, Kind::Bodies, Kind::WebSockets];

    /// A fixed word, for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Connections => "connections",
            Kind::Heads => "heads",
            Kind::Bodies => "bodies",
            Kind::WebSockets => "websockets",
        }
    }
}

/// Parts of the limit, of which clients and configuration have all but one: what is freed is not given back at once,
/// and work under way takes some for a moment.
const LIMIT_PARTS: u64 = 8;
/// Ticks within which what is measured besides the charges is taken at its lowest: memory that was freed a moment ago
/// is still with the process.
const LOWEST_OF_TICKS: usize = 10;

/// The memory that clients may hold together, and the memory that they do.
pub struct Memory {
    limit: Limit,
    budget: AtomicUsize,
    /// Budget of each worker.
    share: AtomicUsize,
    accounts: Mutex<Vec<Weak<Account>>>,
    /// Memory that was used besides the charges, at the last ticks.
    others: Mutex<VecDeque<u64>>,
    ended: AtomicU64,
    refused: AtomicU64,
    told: Mutex<Option<Instant>>,
}

/// The numbers for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes that the process may have.
    pub limit: u64,
    /// Bytes that clients may hold.
    pub budget: usize,
    /// Bytes that they hold, in the order of [`Kind::ALL`].
    pub held: [usize; Kind::ALL.len()],
    /// Connections that were ended.
    pub ended: u64,
    /// Streams that were refused.
    pub refused: u64,
}

impl Memory {
    /// The memory that `limit` leaves when the process begins.
    pub fn new(limit: Limit) -> Arc<Self> {
        let memory = Self {
            limit,
            budget: AtomicUsize::new(0),
            share: AtomicUsize::new(0),
            accounts: Mutex::default(),
            others: Mutex::default(),
            ended: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            told: Mutex::default(),
        };
        memory.measure();
        Arc::new(memory)
    }

    /// An account for one worker.
    pub(crate) fn account(self: &Arc<Self>) -> Arc<Account> {
        let account = Account::new(Arc::clone(self));
        self.accounts().push(Arc::downgrade(&account));
        self.divide();
        account
    }

    /// Looks at what the process uses. Called at every [`MEASURE_INTERVAL`].
    pub(crate) fn measure(&self) {
        let limit = self.limit.bytes();
        let other = self.limit.used().saturating_sub(self.held() as u64);
        let other = {
            let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            others.truncate(LOWEST_OF_TICKS - 1);
            others.push_front(other);
            others.iter().copied().min().unwrap_or(other)
        };
        self.budget.store(usize::try_from(budget(limit, other)).unwrap_or(usize::MAX), Relaxed);
        self.divide();
        self.living().iter().for_each(|account| account.look());
    }

    /// The numbers for metrics.
    pub fn report(&self) -> Report {
        let living = self.living();
        Report {
            limit: self.limit.bytes(),
            budget: self.budget(),
            held: Kind::ALL.map(|kind| living.iter().map(|account| account.held_of(kind)).sum()),
            ended: self.ended.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }

    /// A stream was refused.
    pub(crate) fn stream_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    fn budget(&self) -> usize {
        self.budget.load(Relaxed)
    }

    fn share(&self) -> usize {
        self.share.load(Relaxed)
    }

    /// The memory that clients of all workers hold.
    fn held(&self) -> usize {
        self.accounts().iter().filter_map(Weak::upgrade).map(|account| account.held()).sum()
    }

    /// The memory that clients of all workers hold, without what is about to be free.
    fn staying(&self) -> usize {
        self.accounts().iter().filter_map(Weak::upgrade).map(|account| account.staying()).sum()
    }

    fn divide(&self) {
        let workers = self.accounts().len().max(1);
        self.share.store(self.budget() / workers, Relaxed);
    }

    /// Connections were ended that held so many bytes.
    fn note_ended(&self, connections: usize, bytes: usize) {
        /// Interval at which the log says it again.
        const LOG_INTERVAL: Duration = Duration::from_secs(60);
        self.ended.fetch_add(connections as u64, Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            *told = Some(Instant::now());
            tracing::warn!(
                connections,
                bytes,
                budget = self.budget(),
                limit = self.limit.bytes(),
                "clients hold more memory than there is for them: those that hold most are ended"
            );
        }
    }

    fn living(&self) -> Vec<Arc<Account>> {
        self.accounts().iter().filter_map(Weak::upgrade).collect()
    }

    fn accounts(&self) -> MutexGuard<'_, Vec<Weak<Account>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at what the process uses, for as long as it lives.
pub(crate) async fn watch(memory: Arc<Memory>) {
    let mut ticks = tokio::time::interval(MEASURE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        memory.measure();
    }
}

/// The budget that is left for clients of so much, when so much is used besides. They always have something: 512 MiB of
/// which 40 are used besides leave 408, and of which 600 are, 64.
fn budget(limit: u64, other: u64) -> u64 {
    (limit / LIMIT_PARTS * (LIMIT_PARTS - 1)).saturating_sub(other).max(limit / LIMIT_PARTS)
}

/// Seven eighths: where it gets near.
fn near(bytes: usize) -> usize {
    bytes / 8 * 7
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
