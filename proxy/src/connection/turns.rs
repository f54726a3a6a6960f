//! Whose work a worker does next when there is more than it can do: clients take turns, not connections.
//!
//! A runtime runs what is ready in the order in which it became so. There a client with 2,000 connections, or with as
//! many requests on one, would get 2,000 times what another one gets, and the other would wait for all of it, again and
//! again. So what the tasks of a client take is measured. Whoever takes little is never held up. A client that takes
//! more than a twentieth of the worker goes on in turns with others that do: its tasks line up, and a few of them are
//! called each time that all others who were ready have run. So nothing is lost where nobody else wants anything. Of
//! the connections of one client, those that take little go before the others in the same way: many clients may share
//! an address.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use pin_project_lite::pin_project;
use tokio::sync::Notify;

/// Runs of tasks of which one is measured, and stands for all of them: a look at the clock is not free.
const SAMPLE_EVERY: u32 = 8;
/// Part of a worker beyond which a client, or a connection, is heavy: one in so many.
const HEAVY_SHARE: u64 = 20;
/// Nanoseconds that a client, or a connection, may take at once before it is heavy.
const BURST_NS: u64 = 5_000_000;
/// Shortest round: beneath, more tasks are called together. Others who are ready wait for them.
const MIN_ROUND: Duration = Duration::from_micros(150);
const MAX_ROUND: Duration = Duration::from_micros(400);
/// Most that are called together.
const MAX_CALLED: usize = 32;

/// The turns of one worker's clients.
#[derive(Debug)]
pub(crate) struct Turns {
    began: Instant,
    clients: Mutex<HashMap<IpAddr, Arc<Client>>>,
    /// Numbers of clients and of connections.
    counts: [AtomicU32; 2],
    /// Runs of tasks, to choose some of them to be measured.
    runs: AtomicU32,
    /// Clients of whom somebody is in line, the next one first.
    line: Mutex<VecDeque<Arc<Client>>>,
    joined: Notify,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            clients: Mutex::default(),
            counts: Default::default(),
            runs: AtomicU32::default(),
            line: Mutex::default(),
            joined: Notify::default(),
        }
    }
}

/// The time that a client or a connection took of a worker: nanoseconds that leak away at their share of the time.
#[derive(Debug, Default)]
struct Level {
    taken: AtomicU64,
    /// When that was so, in nanoseconds since the worker began.
    at: AtomicU64,
}

impl Level {
    /// At `now`, so much was taken.
    fn add(&self, now: u64, taken: u64) {
        let leaked = now.saturating_sub(self.at.swap(now, Relaxed)) / HEAVY_SHARE;
        // No higher than twice the burst: whoever takes less is soon forgiven.
        let before = self.taken.load(Relaxed).saturating_sub(leaked);
        self.taken.store(before.saturating_add(taken).min(2 * BURST_NS), Relaxed);
    }

    fn is_heavy(&self) -> bool {
        self.taken.load(Relaxed) > BURST_NS
    }
}

#[derive(Debug, Default)]
struct Client {
    level: Level,
    connections: AtomicU32,
    /// Tasks in line: of connections that take little, and of the others.
    lines: Mutex<[VecDeque<Arc<Place>>; 2]>,
}

/// A place in line.
#[derive(Debug)]
struct Place {
    called: AtomicBool,
    waker: Waker,
}

/// A connection, as far as turns go. Its tasks share it.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    address: IpAddr,
    client: Arc<Client>,
    level: Level,
}

impl Turns {
    /// A connection of this client, for as long as the answer lives.
    pub(crate) fn join(self: &Arc<Self>, address: IpAddr) -> Arc<Turn> {
        let mut clients = lock(&self.clients);
        let client = Arc::clone(clients.entry(address).or_default());
        client.connections.fetch_add(1, Relaxed);
        self.count(&clients, 1);
        Arc::new(Turn { turns: Arc::clone(self), address, client, level: Level::default() })
    }

    fn count(&self, clients: &HashMap<IpAddr, Arc<Client>>, connections: i32) {
        self.counts[0].store(u32::try_from(clients.len()).unwrap_or(u32::MAX), Relaxed);
        let before = self.counts[1].load(Relaxed);
        self.counts[1].store(before.saturating_add_signed(connections), Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Calls those in line, for as long as the worker runs.
    pub(crate) async fn call(self: Arc<Self>) {
        let mut together = 1;
        loop {
            while lock(&self.line).is_empty() {
                self.joined.notified().await;
            }
            let start = Instant::now();
            // Goes on once all that are ready have run, those called among them.
            tokio::task::yield_now().await;
            together = match start.elapsed() {
                short if short < MIN_ROUND => (together * 2).min(MAX_CALLED),
                long if long > MAX_ROUND => (together / 2).max(1),
                _ => together,
            };
            self.call_some(together);
        }
    }

    /// Calls some of the next client's.
    fn call_some(&self, most: usize) {
        let Some(client) = lock(&self.line).pop_front() else { return };
        let mut lines = lock(&client.lines);
        let mut called = 0;
        while called < most && lines.iter().any(|line| !line.is_empty()) {
            for place in lines.iter_mut().filter_map(VecDeque::pop_front) {
                // Nobody else has it: its task has ended.
                if Arc::strong_count(&place) > 1 {
                    called += 1;
                    place.called.store(true, Relaxed);
                    place.waker.wake_by_ref();
                }
            }
        }
        let is_left = lines.iter().any(|line| !line.is_empty());
        drop(lines);
        if is_left {
            lock(&self.line).push_back(client);
        }
    }
}

impl Turn {
    /// A place in line, if a task has to wait for its turn.
    fn wait(&self, waker: &Waker) -> Option<Arc<Place>> {
        let is_alone = |of: usize| self.turns.counts[of].load(Relaxed) < 2;
        let line = match () {
            () if self.level.is_heavy() && !is_alone(1) => 1,
            () if self.client.level.is_heavy() && !is_alone(0) => 0,
            () => return None,
        };
        let place = Arc::new(Place { called: AtomicBool::new(false), waker: waker.clone() });
        let mut lines = lock(&self.client.lines);
        let was_empty = lines.iter().all(VecDeque::is_empty);
        lines[line].push_back(Arc::clone(&place));
        drop(lines);
        if was_empty {
            lock(&self.turns.line).push_back(Arc::clone(&self.client));
            self.turns.joined.notify_one();
        }
        Some(place)
    }

    /// Runs something that is counted.
    fn run<T>(&self, run: impl FnOnce() -> T) -> T {
        if !self.turns.runs.fetch_add(1, Relaxed).is_multiple_of(SAMPLE_EVERY) {
            return run();
        }
        let start = self.turns.now();
        let result = run();
        let now = self.turns.now();
        let taken = (now - start) * u64::from(SAMPLE_EVERY);
        self.level.add(now, taken);
        self.client.level.add(now, taken);
        result
    }

    /// A task of this connection.
    pub(crate) fn task<F: Future<Output = ()>>(self: &Arc<Self>, task: F) -> Task<F> {
        Task { task, turn: Arc::clone(self), place: None }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut clients = lock(&self.turns.clients);
        if self.client.connections.fetch_sub(1, Relaxed) == 1 {
            clients.remove(&self.address);
        }
        self.turns.count(&clients, -1);
    }
}

pin_project! {
    /// A task that goes on when it is its client's turn.
    pub(crate) struct Task<F> {
        #[pin]
        task: F,
        turn: Arc<Turn>,
        place: Option<Arc<Place>>,
    }
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        match this.place.take() {
            Some(place) if place.called.load(Relaxed) => {}
            // Woken by what it waits for besides.
            Some(place) => {
                *this.place = Some(place);
                return Poll::Pending;
            }
            None => {
                *this.place = this.turn.wait(cx.waker());
                if this.place.is_some() {
                    return Poll::Pending;
                }
            }
        }
        let task = this.task;
        this.turn.run(|| task.poll(cx))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::{runtime::Builder, task::yield_now};

    use super::*;

    fn spin(time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    /// `tasks` of one client on so many connections that always have something to do, and somebody else who has too: the
    /// most runs of theirs, and of all, that he waits for once they are known.
    fn waits(connections: usize, tasks: usize, same_client: bool) -> (u32, u32) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let turns = Arc::<Turns>::default();
            tokio::spawn(Arc::clone(&turns).call());
            let (busy, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
            let runs = Arc::<AtomicU32>::default();
            for _ in 0..connections {
                let turn = turns.join(busy);
                for _ in 0..tasks / connections {
                    let runs = Arc::clone(&runs);
                    tokio::spawn(turn.task(async move {
                        loop {
                            runs.fetch_add(1, Relaxed);
                            spin(Duration::from_micros(20));
                            yield_now().await;
                        }
                    }));
                }
            }
            let turn = turns.join(if same_client { busy } else { other });
            let (counted, most) = (Arc::clone(&runs), Arc::<AtomicU32>::default());
            let seen = Arc::clone(&most);
            let task = turn.task(async move {
                let mut before = counted.load(Relaxed);
                for round in 0..200 {
                    yield_now().await;
                    let now = counted.load(Relaxed);
                    // What they take is known by then.
                    if round >= 20 {
                        seen.fetch_max(now - before, Relaxed);
                    }
                    before = now;
                }
            });
            tokio::spawn(task).await.unwrap();
            (most.load(Relaxed), runs.load(Relaxed))
        })
    }

    #[test]
    fn a_client_does_not_wait_for_all_that_another_one_has() {
        let (most, runs) = waits(1000, 2000, false);
        println!("at most {most} of 2000 in between, {runs} runs in all");
        assert!(most <= 4 * MAX_CALLED as u32, "{most}");
        assert!(runs >= 500, "they run all the same: {runs}");
    }

    #[test]
    fn a_connection_does_not_wait_for_all_that_another_one_has() {
        let (most, runs) = waits(4, 2000, true);
        println!("at most {most} of 2000 in between, {runs} runs in all");
        assert!(most <= 4 * MAX_CALLED as u32, "{most}");
    }

    #[tokio::test]
    async fn who_is_alone_never_waits_and_nothing_is_left_behind() {
        let turns = Arc::<Turns>::default();
        let client = IpAddr::from([192, 0, 2, 1]);
        let turn = turns.join(client);
        turn.level.add(0, 2 * BURST_NS);
        turn.client.level.add(0, 2 * BURST_NS);
        assert!(turn.wait(Waker::noop()).is_none());
        let other = turns.join([192, 0, 2, 2].into());
        assert!(other.wait(Waker::noop()).is_none());
        // Given up before it was called.
        drop(turn.wait(Waker::noop()).unwrap());
        let place = turn.wait(Waker::noop()).unwrap();
        turns.call_some(1);
        assert!(place.called.load(Relaxed) && lock(&turns.line).is_empty());
        drop((turn, other));
        assert!(lock(&turns.clients).is_empty());
        assert_eq!(turns.counts.each_ref().map(|count| count.load(Relaxed)), [0, 0]);
    }

    #[test]
    fn what_is_taken_leaks_away() {
        let level = Level::default();
        // A twentieth of the time, for long.
        (1..100_000).for_each(|ms| level.add(ms * 1_000_000, 50_000));
        assert!(!level.is_heavy());
        level.add(100_000_000_000, 6_000_000);
        assert!(level.is_heavy());
        level.add(100_100_000_000, 0);
        assert!(!level.is_heavy());
    }
}
