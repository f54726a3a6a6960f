//! One corpus over every way through the gateway: HTTP/1.1 and HTTP/2 from clients, in clear text and by TLS, to upstreams
//! that speak either. What a case says holds on all of them, but for what it names with its reason; and on all ways where
//! it names the same, everything is the same that client and upstream get to see.
//!
//! ```text
//!  e2e/testdata/interop/*.txt ─► case ─► client (h1wire, h2wire) ─► gateway ─► upstream (h1wire, h2wire)
//!                                  └────────► judge ◄── what the client got ──────┴── what the upstream saw
//! ```

mod case;
mod client;
mod gateway;
mod h1wire;
mod h2wire;
mod judge;
mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use self::{case::Case, client::Got, gateway::Gateway, judge::Outcome, upstream::Upstream};
use super::figure;
use crate::bound;

/// The host that cases ask for unless they say otherwise.
pub(super) const HOST: &str = e2e::harness::manifests::HOST;
/// The least number of cases.
const CASES: usize = 300;
/// What no exchange takes: one that does hangs.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long what is forwarded late may take to come, behind all runs.
const LATE: Duration = Duration::from_millis(200);
/// Runs that are shown when they fail.
const SHOWN: usize = 4000;

/// Names and values.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A way through the gateway: which version of HTTP the client speaks and which the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) client: u8,
    pub(super) upstream: u8,
    pub(super) tls: bool,
}

impl Way {
    fn all() -> impl Iterator<Item = Way> {
        let ways = [(1, 1), (1, 2), (2, 1), (2, 2)].into_iter();
        ways.flat_map(|(client, upstream)| [false, true].map(|tls| Way { client, upstream, tls }))
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client, upstream, tls } = self;
        write!(f, "h{client}{}>{}", if *tls { "+tls" } else { "" }, if *upstream == 2 { "h2c" } else { "h1" })
    }
}

#[test]
fn a_request_comes_to_the_same_on_every_way() {
    let cases = case::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/interop"));
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases have the same name");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let upstream = Upstream::default();
    let gateway = Gateway::start(runtime.block_on(upstream.start()));
    let began = Instant::now();
    let (mut runs, mut failures, mut paths) = (0, vec![], "");
    let mut done = BTreeMap::new();
    for case in &cases {
        if case.paths != paths {
            paths = &case.paths;
            gateway.read_paths(paths);
        }
        let mut alike = BTreeMap::<Vec<usize>, (Way, Outcome)>::new();
        for way in Way::all().filter(|way| case.is_of(*way)) {
            runs += 1;
            upstream.play(runs, case.answer.clone());
            let got = runtime.block_on(ask(&gateway, case, way, runs));
            let outcome = Outcome { got, seen: upstream.seen(), races: case.races() };
            done.extend((!outcome.races).then(|| (runs, format!("{} ({way})", case.name))));
            let wrong = outcome.judge(case, way);
            failures.extend(wrong.iter().map(|what| format!("{} ({way}): {what}", case.name)));
            if let Some((other, before)) = alike.get(&case.differences(way)) {
                let differs = before.differs(&outcome);
                failures.extend(differs.map(|what| format!("{} ({other} and {way}): {what}", case.name)));
            } else if wrong.is_empty() {
                alike.insert(case.differences(way), (way, outcome));
            }
        }
    }
    let took = began.elapsed();
    runtime.block_on(async { tokio::time::sleep(LATE).await });
    let late = upstream.late().into_iter().filter_map(|run| done.get(&run));
    failures.extend(late.map(|of| format!("{of}: the upstream saw a request when all was over")));
    assert!(failures.is_empty(), "{} of {runs} runs:\n{}", failures.len(), first(&failures));
    let differ = cases.iter().filter(|case| case.reasons().next().is_some()).count();
    let few = cases.iter().filter(|case| case.reason_of_few().is_some()).count();
    let depart = cases.iter().filter(|case| case.departs().is_some()).count();
    print_differences(&cases);
    figure("corpus: cases", cases.len(), &format!(">= {CASES}"));
    figure("corpus: cases x ways", runs, "the same verdict, path, policy and status on each");
    figure("corpus: the same on all ways", cases.len() - differ - few, "all but those that are named");
    figure("corpus: of some ways only", few, "named, with their reasons");
    figure("corpus: otherwise on some ways", differ, "named, with their reasons");
    figure("corpus: otherwise than the source has it", depart, "named, with their reasons");
    figure("corpus: not the same, and not named", failures.len(), "0");
    figure("corpus: time", format!("{:.1} s", took.as_secs_f64()), "< 20 s");
    assert!(cases.len() >= CASES, "{} cases", cases.len());
    assert!(took < bound(Duration::from_secs(20)), "{took:?}");
}

fn first(failures: &[String]) -> String {
    failures.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n")
}

/// Every reason, and how many cases have it.
fn print_differences(cases: &[Case]) {
    let mut reasons = BTreeMap::<&str, usize>::new();
    for case in cases {
        let of_case: BTreeSet<_> = case.reasons().chain(case.reason_of_few()).chain(case.departs()).collect();
        of_case.into_iter().for_each(|reason| *reasons.entry(reason).or_default() += 1);
    }
    for (reason, count) in reasons {
        println!("{count:>4}  {reason}");
    }
}

async fn ask(gateway: &Gateway, case: &Case, way: Way, run: u64) -> Got {
    let asked = async {
        let io = gateway.connect(way).await;
        match way.client {
            1 => client::http1(io, &case.request, run).await,
            _ => client::http2(io, &case.request, way.tls, run).await,
        }
    };
    let hangs = Got { verdict: "hangs".into(), ..Got::default() };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or(hangs)
}
