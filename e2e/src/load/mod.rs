//! A load generator that tells every outcome apart.
//!
//! One [`Plan`] names the clients (kept HTTP/1.1 and HTTP/2 connections, new connections, WebSockets) and the rate over
//! time; [`Load::start`] runs it on a thread of its own, so that a test can change manifests meanwhile, and
//! [`Load::stop`] or [`Load::join`] gives the [`Report`].
//!
//! The kept connections share one open-loop schedule ([`pacer`]): a slow answer delays no other request, and a request
//! that had to wait for a free connection counts that wait as latency.

mod cli;
mod h1;
mod h2;
mod net;
mod pacer;
mod report;
mod wire;
mod ws;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use http::Method;
use tokio::sync::watch;

pub use self::{
    cli::{Args, main, resolve},
    pacer::Step,
    report::{Latency, Live, Report, WebSockets},
};
use self::{net::Dialer, pacer::Pacer, report::Stats};

/// A load: what to send, from whom, how fast and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The address to connect to.
    pub target: SocketAddr,
    /// The `Host` (and, over TLS, the server name).
    pub host: String,
    /// Paths, sent in turn.
    pub paths: Vec<String>,
    /// Further request headers.
    pub headers: Vec<(String, String)>,
    /// Bytes of request body.
    pub body: usize,
    /// The method, by default GET, or POST with a body. Not one whose answers have no bodies.
    pub method: Option<Method>,
    /// The rate over time, shared by the kept connections. A rate of 0 is a closed loop: as fast as answers come.
    pub steps: Vec<Step>,
    /// Kept HTTP/1.1 connections.
    pub h1: usize,
    /// New HTTP/1.1 connections a second: each sends one request with `Connection: close`.
    pub new_per_second: f64,
    /// Kept HTTP/2 connections.
    pub h2: usize,
    /// Concurrent streams on each HTTP/2 connection.
    pub h2_streams: usize,
    /// WebSockets that echo a message each 100 ms; opened one after the other, 50 ms apart.
    pub ws: usize,
    /// Path of the WebSockets.
    pub ws_path: String,
    /// Speak TLS and trust the certificates in this PEM file.
    pub tls: Option<PathBuf>,
    /// A request without a complete answer after this long has failed.
    pub timeout: Duration,
}

impl Plan {
    /// A plan for one host with nothing switched on: set the clients and the steps.
    pub fn new(target: SocketAddr, host: &str) -> Plan {
        Plan {
            target,
            host: host.to_owned(),
            paths: vec!["/".to_owned()],
            headers: Vec::new(),
            body: 0,
            method: None,
            steps: Vec::new(),
            h1: 0,
            new_per_second: 0.0,
            h2: 0,
            h2_streams: 1,
            ws: 0,
            ws_path: "/ws".to_owned(),
            tls: None,
            timeout: Duration::from_secs(10),
        }
    }

    /// The mix that the promises are measured with: 64 kept HTTP/1.1 connections, 20 new ones a second, 8 HTTP/2
    /// connections of 2 streams.
    pub fn mixed(mut self) -> Plan {
        (self.h1, self.new_per_second, self.h2, self.h2_streams) = (64, 20.0, 8, 2);
        self
    }

    /// Adds a step of the rate.
    pub fn step(mut self, rate: f64, duration: Duration) -> Plan {
        self.steps.push(Step { rate, duration });
        self
    }

    fn method(&self) -> Method {
        let usual = if self.body > 0 { Method::POST } else { Method::GET };
        self.method.clone().unwrap_or(usual)
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.paths.is_empty(), "no path: name at least one");
        anyhow::ensure!(!self.steps.is_empty(), "no step: give a rate and a duration");
        anyhow::ensure!(
            self.h1 + self.h2 + self.ws > 0 || self.new_per_second > 0.0,
            "no client: ask for h1, h2, ws or new connections"
        );
        Ok(())
    }
}

/// Runs a plan to its end.
pub fn run(plan: Plan) -> anyhow::Result<Report> {
    Load::start(plan)?.join()
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    stats: Arc<Stats>,
    pacer: Arc<Pacer>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts a plan on a thread of its own.
    pub fn start(plan: Plan) -> anyhow::Result<Load> {
        plan.check()?;
        let dialer = Dialer::new(&plan)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stats = Arc::new(Stats::new()?);
        let pacer = Arc::new(Pacer::new(Instant::now(), &plan.steps));
        let (stop, stopped) = watch::channel(false);
        let context = Context {
            plan: Arc::new(plan),
            dialer: Arc::new(dialer),
            stats: Arc::clone(&stats),
            pacer: Arc::clone(&pacer),
            next_path: Arc::new(AtomicUsize::new(0)),
            stopped,
        };
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            runtime.block_on(drive(context));
        })?;
        Ok(Load { stats, pacer, stop, thread: Some(thread) })
    }

    /// The counts so far; the rate and the percentiles are those since the last call.
    pub fn live(&self) -> Live {
        self.stats.live()
    }

    /// Sets the rate from now to the end, or to the next step.
    pub fn set_rate(&self, rate: f64) {
        self.pacer.set_rate(Instant::now(), rate);
    }

    /// Whether the plan has run to its end.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the load now: what is under way is finished and counted, nothing new is sent.
    pub fn stop(self) -> anyhow::Result<Report> {
        self.stop.send_replace(true);
        self.join()
    }

    /// Waits for the plan's end.
    pub fn join(mut self) -> anyhow::Result<Report> {
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the load thread panicked; its message is on stderr"))?;
        }
        Ok(self.stats.report())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The state that all clients share.
#[derive(Clone)]
struct Context {
    plan: Arc<Plan>,
    dialer: Arc<Dialer>,
    stats: Arc<Stats>,
    pacer: Arc<Pacer>,
    next_path: Arc<AtomicUsize>,
    stopped: watch::Receiver<bool>,
}

impl Context {
    /// Waits until the schedule's next request is due. `None`: the load is over.
    async fn due(&mut self) -> Option<Instant> {
        if *self.stopped.borrow() {
            return None;
        }
        let due = self.pacer.take(Instant::now())?;
        self.sleep_until(due).await.then(|| pacer::counted_from(due, Instant::now()))
    }

    /// Sleeps; false when the load was stopped meanwhile.
    async fn sleep_until(&mut self, at: Instant) -> bool {
        if at <= Instant::now() {
            // A closed loop over a fast server would otherwise never let the other clients run.
            tokio::task::yield_now().await;
            return true;
        }
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => true,
            () = stopped(&mut self.stopped) => false,
        }
    }

    fn next_path(&self) -> usize {
        self.next_path.fetch_add(1, Ordering::Relaxed) % self.plan.paths.len()
    }
}

/// Waits until the load is stopped.
async fn stopped(signal: &mut watch::Receiver<bool>) {
    // The sender lives as long as the load; if it were gone, nobody could want more either.
    let _ = signal.wait_for(|stopped| *stopped).await;
}

/// Starts every client, and ends when the schedule is over and each has finished what it was doing.
async fn drive(context: Context) {
    context.stats.begin(Instant::now());
    let end = Instant::now() + context.plan.steps.iter().map(|step| step.duration).sum::<Duration>();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..context.plan.h1 {
        clients.spawn(h1::kept(context.clone()));
    }
    for _ in 0..context.plan.h2 {
        h2::kept(&context, &mut clients);
    }
    for number in 0..context.plan.ws {
        clients.spawn(ws::kept(context.clone(), number, end));
    }
    if context.plan.new_per_second > 0.0 {
        clients.spawn(h1::newcomers(context.clone(), end));
    }
    while clients.join_next().await.is_some() {}
    context.stats.end(Instant::now(), context.pacer.missed());
}
