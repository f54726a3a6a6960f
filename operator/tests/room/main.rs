//! What an operator takes in memory while tenants have far more objects than it holds, and break them all: from the list of
//! an API server to plans, statuses, and what is kept of broken objects. Others' objects come meanwhile, and what is deleted
//! gives room back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, which clippy does not see as tests

mod crowds;
mod leader;
mod server;

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crowds::{CROWDS, Crowd, Form, fleet, large, name};
use server::Server;

/// As in the product.
#[global_allocator]
static ALLOCATOR: allocator::MiMalloc = allocator::MiMalloc;

/// What the chart gives an operator is 512 MiB, and a kernel counts more than what a process has.
const LIMIT: u64 = 480 << 20;
/// With a margin.
const GOAL: u64 = 400 << 20;
/// What is built to be debugged takes minutes for thousands of megabytes.
const IS_SLOW: bool = cfg!(debug_assertions);

/// An operator, and what it says.
struct Leader {
    process: Child,
    said: Arc<Said>,
    began: Instant,
}

/// What it said last.
#[derive(Default)]
struct Said {
    objects: AtomicUsize,
    names: AtomicUsize,
    longest_turn: AtomicU64,
}

impl Leader {
    fn start(url: &str) -> Self {
        let mut own = Command::new(std::env::current_exe().unwrap());
        let own = own.args(["a_crowd_takes_no_more_than_there_is", "--nocapture"]).env(LEADER, url);
        let mut process = own.stdout(Stdio::piped()).spawn().unwrap();
        let (lines, said) = (BufReader::new(process.stdout.take().unwrap()).lines(), Arc::<Said>::default());
        let hears = Arc::clone(&said);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let words: Vec<&str> = line.split(' ').collect();
                match words.as_slice() {
                    ["world", all, names] => {
                        hears.objects.store(all.parse().unwrap(), Ordering::Relaxed);
                        hears.names.store(names.parse().unwrap(), Ordering::Relaxed);
                    }
                    ["turn", took] => _ = hears.longest_turn.fetch_max(took.parse().unwrap(), Ordering::Relaxed),
                    _ => {}
                }
            }
        });
        Self { process, said, began: Instant::now() }
    }

    /// Most memory that it had since this was asked last.
    fn peak(&self) -> u64 {
        let process = format!("/proc/{}", self.process.id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        std::fs::write(format!("{process}/clear_refs"), "5").unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    fn held(&self) -> (usize, usize) {
        (self.said.objects.load(Ordering::Relaxed), self.said.names.load(Ordering::Relaxed))
    }

    async fn until(&self, what: &str, within: Duration, is: impl Fn() -> bool) -> Duration {
        let began = Instant::now();
        while !is() {
            assert!(
                began.elapsed() < within,
                "no {what} within {within:?}: (objects, names) {:?}, {} MiB",
                self.held(),
                self.peak() >> 20
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        began.elapsed()
    }

    /// What it took until now, printed.
    fn print(&self, what: &str) -> u64 {
        let (peak, (objects, names)) = (self.peak(), self.held());
        println!(
            "  {:6.1?} {what}: at most {} MiB; {} whole, {names} names; the longest turn took {} ms",
            self.began.elapsed(),
            peak >> 20,
            objects - names,
            self.said.longest_turn.swap(0, Ordering::Relaxed)
        );
        peak
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether a status says that this generation of another's route is in use.
fn is_accepted(server: &Server, name: &str) -> bool {
    let path = format!("/apis/sluice.dev/v1alpha1/namespaces/shop/apiroutes/{name}/status");
    let written = server.written();
    let conditions = written.get(&path).and_then(|status| status["status"]["conditions"].as_array().cloned());
    let is = |condition: &Value| condition["type"] == "Accepted" && condition["status"] == "True";
    conditions.is_some_and(|conditions| conditions.iter().any(is))
}

async fn attack(crowd: &Crowd, count: usize) {
    let Crowd { what, plural, make, .. } = *crowd;
    let patience = Duration::from_secs(if IS_SLOW { 280 } else { 60 });
    let server = Server::new();
    server.put("gatewayfleets", "sluice-system", "default", Arc::new(fleet));
    let put = |i: usize, form: Form| {
        let namespace = crowd.namespace(i);
        server.put(plural, &namespace.clone(), &name(i), Arc::new(move || make(i, &namespace, form)));
    };
    let others = |name: &'static str| {
        server.put("apiroutes", "shop", name, Arc::new(move || large("shop", name, 1000, Form::First)));
    };
    (0..count).for_each(|i| put(i, Form::First));
    others("first");
    println!("{count} {what} of {} namespaces, the goal is {} MiB", crowd.tenants, GOAL >> 20);
    let leader = Leader::start(&server.start().await);
    let mut peaks = vec![];
    leader.until("status of the first", 2 * patience, || is_accepted(&server, "first")).await;
    peaks.push(leader.print("listed, planned, and its status is there"));
    others("second");
    let took = leader.until("status of the second", patience, || is_accepted(&server, "second")).await;
    peaks.push(leader.print(&format!("another's route took {took:.1?}")));
    let forms = [(Form::Other, "changed", "third"), (Form::Broken, "broken", "fourth")];
    for (form, word, other) in forms.into_iter().filter(|_| crowd.changes()) {
        (0..count).for_each(|i| put(i, form));
        others(other);
        let took = leader.until(other, patience, || is_accepted(&server, other)).await;
        // What is kept of what is broken, and all of the statuses.
        tokio::time::sleep(Duration::from_secs(3)).await;
        peaks.push(leader.print(&format!("all are {word}, another's route took {took:.1?}")));
    }
    // There is room again.
    for i in 0..count - 10 {
        server.delete(plural, &crowd.namespace(i), &name(i));
    }
    let back = leader.until("room", patience, || leader.held().1 == 0 && leader.held().0 < 20).await;
    peaks.push(leader.print(&format!("what was left out is back {back:.1?} after the rest is gone")));
    let most = peaks.into_iter().max().unwrap();
    assert!(most <= LIMIT, "{what}: {} MiB", most >> 20);
}

/// The API server of an operator that a process of its own is.
const LEADER: &str = "SLUICE_ROOM_LEADER";
/// Only the crowds of which this is in the name.
const ONLY: &str = "SLUICE_CROWD";

#[test]
fn a_crowd_takes_no_more_than_there_is() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(url) = std::env::var(LEADER) {
        return runtime.block_on(leader::lead(&url));
    }
    let is_long = std::env::var_os("SLUICE_LONG").is_some();
    let only = std::env::var(ONLY).unwrap_or_default();
    for crowd in CROWDS.iter().filter(|crowd| crowd.what.contains(&only)) {
        let count = if is_long { crowd.count } else { crowd.quick };
        if count > 0 {
            runtime.block_on(attack(crowd, count));
        }
    }
}
