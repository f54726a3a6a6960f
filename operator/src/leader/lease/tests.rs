use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// An API server with one Lease, and contenders whose clocks are all wrong in their own way.
struct Bench {
    start: Instant,
    lease: Option<Lease>,
    version: u64,
    contenders: BTreeMap<&'static str, Contender>,
    /// Requests that nobody waits for any more, and that may arrive all the same.
    strays: Vec<Request>,
}

struct Contender {
    election: Election,
    /// Does nothing before: stopped, or cut off.
    asleep_until: Duration,
    /// Seconds that its wall clock is off.
    off: i64,
    log: Vec<(u64, Option<u64>)>,
    request: Option<Request>,
    /// Milliseconds that its next requests take to the API server and back; empty: none.
    ways: Vec<(u64, u64)>,
}

/// On its way.
struct Request {
    /// `None`: reads.
    writes: Option<Lease>,
    sent: Duration,
    arrives: Duration,
    back: Duration,
    /// What the API server answered: the Lease, or a conflict.
    answer: Option<Result<Option<Lease>, ()>>,
}

/// As the driver has it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

const STEP: Duration = Duration::from_millis(100);

/// A Lease as the chart makes it. It has a version: what is written over it is refused once it is gone.
fn empty(version: u64) -> Lease {
    let metadata = ObjectMeta { resource_version: Some(version.to_string()), ..ObjectMeta::default() };
    Lease { metadata, spec: None }
}

impl Bench {
    fn new(names: &[&'static str]) -> Self {
        let start = Instant::now();
        let contender = |(i, name): (usize, &&'static str)| {
            let election = Election::new((*name).to_owned(), Some(format!("{name}:9443")), start);
            let off = [0, -3600, 7200][i % 3];
            (*name, Contender { election, asleep_until: Duration::ZERO, off, log: vec![], request: None, ways: vec![] })
        };
        let contenders = names.iter().enumerate().map(contender).collect();
        Self { start, lease: Some(empty(0)), version: 0, contenders, strays: vec![] }
    }

    /// Another process starts.
    fn joins(&mut self, name: &'static str, at_ms: u64) {
        let election = Election::new(name.to_owned(), None, self.start + Duration::from_millis(at_ms));
        let asleep_until = Duration::ZERO;
        self.contenders
            .insert(name, Contender { election, asleep_until, off: 0, log: vec![], request: None, ways: vec![] });
    }

    /// Runs to a moment; at most one leads at any.
    #[track_caller]
    fn run(&mut self, from_ms: u64, to_ms: u64) {
        let mut at = Duration::from_millis(from_ms);
        while at < Duration::from_millis(to_ms) {
            let mut strays = std::mem::take(&mut self.strays);
            strays.iter_mut().for_each(|request| self.serve(request, at));
            self.strays.extend(strays.into_iter().filter(|request| request.answer.is_none()));
            let names: Vec<_> = self.contenders.keys().copied().collect();
            for name in names {
                self.act(name, at);
            }
            let now = self.start + at;
            let leading = self.contenders.values().filter(|c| c.election.term().is_some_and(|(_, until)| now < until));
            assert!(leading.count() <= 1, "two lead after {at:?}");
            at += STEP;
        }
    }

    fn act(&mut self, name: &'static str, at: Duration) {
        let now = self.start + at;
        let mut contender = self.contenders.remove(name).unwrap();
        // What is on its way arrives, asleep or not.
        contender.request.iter_mut().for_each(|request| self.serve(request, at));
        if at >= contender.asleep_until {
            let wall = Timestamp::from_second(1_800_000_000 + at.as_secs() as i64 + contender.off).unwrap();
            for _ in 0..6 {
                self.answer(&mut contender, at);
                if contender.request.is_some() {
                    break;
                }
                let writes = match contender.election.next(now, wall) {
                    Step::Read => None,
                    Step::Write(lease) => Some(*lease),
                    Step::Wait(_) | Step::Lost(_) => break,
                };
                let (to, back) = contender.ways.pop().unwrap_or_default();
                let arrives = at + Duration::from_millis(to);
                let back = arrives + Duration::from_millis(back);
                let mut request = Request { writes, sent: at, arrives, back, answer: None };
                self.serve(&mut request, at);
                contender.request = Some(request);
            }
        }
        let term = contender.election.term().map(|(epoch, _)| epoch);
        if contender.log.last().map(|(_, epoch)| *epoch) != Some(term) {
            contender.log.push((at.as_millis() as u64, term));
        }
        self.contenders.insert(name, contender);
    }

    /// The API server takes a request that has arrived.
    fn serve(&mut self, request: &mut Request, at: Duration) {
        if request.answer.is_some() || at < request.arrives {
            return;
        }
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        request.answer = Some(match &request.writes {
            None => Ok(self.lease.clone()),
            Some(lease) if version(lease) == self.lease.as_ref().and_then(version) => {
                self.version += 1;
                let mut lease = lease.clone();
                lease.metadata.resource_version = Some(self.version.to_string());
                self.lease = Some(lease.clone());
                Ok(Some(lease))
            }
            Some(_) => Err(()),
        });
    }

    /// The contender hears of it, or has waited for long enough.
    fn answer(&mut self, contender: &mut Contender, at: Duration) {
        let now = self.start + at;
        let Some(request) = &contender.request else { return };
        if at >= request.sent + REQUEST_TIMEOUT && at < request.back {
            contender.election.failed(now);
            self.strays.extend(contender.request.take());
        } else if at >= request.back
            && let Some(Request { writes, sent, answer: Some(answer), .. }) = contender.request.take()
        {
            match (writes, answer) {
                (None, Ok(lease)) => contender.election.read(lease, now),
                (Some(_), Ok(Some(lease))) => contender.election.wrote(lease, self.start + sent, now),
                _ => contender.election.conflicted(now),
            }
        }
    }

    fn sleeps(&mut self, name: &str, until_ms: u64) {
        self.contenders.get_mut(name).unwrap().asleep_until = Duration::from_millis(until_ms);
    }

    fn epoch(&self, name: &str) -> Option<u64> {
        self.contenders[name].election.term().map(|(epoch, _)| epoch)
    }

    fn is_lost(&mut self, name: &str, at_ms: u64) -> bool {
        let now = self.start + Duration::from_millis(at_ms);
        matches!(self.contenders.get_mut(name).unwrap().election.next(now, Timestamp::UNIX_EPOCH), Step::Lost(_))
    }

    /// When a contender began to lead after some moment.
    #[track_caller]
    fn led_from(&self, name: &str, after_ms: u64) -> u64 {
        let log = &self.contenders[name].log;
        log.iter().find(|(at, epoch)| *at >= after_ms && epoch.is_some()).unwrap_or_else(|| panic!("{log:?}")).0
    }
}

#[test]
fn one_leads_and_goes_on() {
    let mut bench = Bench::new(&["a", "b", "c"]);
    bench.run(0, 60_000);
    let first = bench.epoch("a").unwrap();
    assert!(first > 90_000_000, "counting begins with the time: {first}");
    assert_eq!((bench.epoch("b"), bench.epoch("c")), (None, None));
    assert_eq!(bench.contenders["b"].election.holder_address(), Some("a:9443"));
    assert_eq!(bench.contenders["a"].log.len(), 1, "without a break");
}

#[test]
fn a_dead_leader_is_replaced_once_its_lease_is_old() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.run(0, 20_900);
    let epoch = bench.epoch("a").unwrap();
    bench.sleeps("a", u64::MAX / 2);
    bench.run(20_900, 40_000);
    let took = bench.led_from("b", 20_900) - 20_900;
    assert!((8_000..=11_200).contains(&took), "{took} ms");
    assert_eq!(bench.epoch("b"), Some(epoch + 1));
}

#[test]
fn a_leader_that_slept_has_lost() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.run(0, 20_000);
    bench.sleeps("a", 60_000);
    bench.run(20_000, 60_000);
    assert!(bench.is_lost("a", 60_000));
    bench.run(60_000, 70_000);
    assert!(bench.epoch("b").is_some());
}

#[test]
fn a_lease_that_is_given_up_is_taken_at_once() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.run(0, 20_300);
    let released = bench.contenders["a"].election.released().unwrap();
    assert_eq!(bench.contenders["b"].election.released(), None);
    bench.version += 1;
    bench.lease = Some(released);
    bench.lease.as_mut().unwrap().metadata.resource_version = Some(bench.version.to_string());
    bench.contenders.remove("a");
    bench.run(20_300, 30_000);
    assert!(bench.led_from("b", 20_300) - 20_300 <= 1_100);
    assert_eq!(bench.contenders["b"].election.holder_address(), Some("b:9443"));
}

#[test]
fn a_lease_that_is_deleted_comes_back_with_the_same_epoch() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.run(0, 20_000);
    let epoch = bench.epoch("a");
    // Between two renewals; who sees it first is not who may take it.
    bench.lease = None;
    bench.run(20_000, 40_000);
    assert_eq!((bench.epoch("a"), bench.epoch("b")), (epoch, None));
}

#[test]
fn a_lease_that_is_deleted_is_not_free_while_its_holder_may_lead() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.run(0, 20_900);
    let epoch = bench.epoch("a");
    // It can't be reached, and leads on for seconds. One has seen its Lease, and one starts just now.
    bench.sleeps("a", u64::MAX / 2);
    bench.lease = None;
    bench.joins("c", 20_900);
    // That no two lead is looked for at every moment.
    bench.run(20_900, 28_000);
    assert_eq!((bench.epoch("b"), bench.epoch("c")), (None, None));
    bench.run(28_000, 40_000);
    assert!(bench.epoch("b").max(bench.epoch("c")) > epoch);
}

#[test]
fn a_lease_that_is_made_anew_is_not_free_for_who_knew_its_holder() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.run(0, 20_900);
    let epoch = bench.epoch("a");
    bench.sleeps("a", u64::MAX / 2);
    bench.version += 1;
    bench.lease = Some(empty(bench.version));
    bench.run(20_900, 40_000);
    assert!(bench.epoch("b") > epoch && bench.led_from("b", 20_900) >= 28_000);
}

#[test]
fn the_empty_lease_of_an_installation_is_taken_at_once_and_a_missing_one_later() {
    let mut bench = Bench::new(&["a"]);
    bench.run(0, 1_000);
    assert!(bench.epoch("a").is_some());
    let mut bench = Bench::new(&["a"]);
    bench.lease = None;
    bench.run(0, 9_900);
    assert_eq!(bench.epoch("a"), None);
    bench.run(9_900, 12_000);
    assert!(bench.epoch("a").is_some());
}

#[test]
fn what_others_write_on_it_does_not_keep_it_alive() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.run(0, 20_000);
    bench.sleeps("a", u64::MAX / 2);
    for second in 20..40 {
        bench.version += 1;
        let metadata = &mut bench.lease.as_mut().unwrap().metadata;
        metadata.resource_version = Some(bench.version.to_string());
        metadata.labels.get_or_insert_default().insert("x".into(), second.to_string());
        bench.run(second * 1000, second * 1000 + 1000);
    }
    assert!(bench.led_from("b", 20_000) <= 32_000);
}

#[test]
fn the_lease_of_somebody_else_is_respected_up_to_a_bound() {
    let mut bench = Bench::new(&["a"]);
    let spec = LeaseSpec {
        holder_identity: Some("stranger".into()),
        lease_duration_seconds: Some(i32::MAX),
        lease_transitions: Some(7),
        ..LeaseSpec::default()
    };
    bench.lease = Some(Lease { metadata: ObjectMeta::default(), spec: Some(spec) });
    bench.run(0, 59_000);
    assert_eq!(bench.epoch("a"), None);
    bench.run(59_000, 62_000);
    assert_eq!(bench.epoch("a"), Some(9), "one more than the last holder's 8");
}

#[test]
fn a_write_of_which_nothing_was_heard_is_not_lost() {
    let start = Instant::now();
    let mut election = Election::new("a".into(), None, start);
    assert_eq!(election.next(start, Timestamp::UNIX_EPOCH), Step::Read);
    election.read(Some(Lease::default()), start);
    let Step::Write(lease) = election.next(start, Timestamp::UNIX_EPOCH) else { panic!() };
    election.failed(start);
    assert_eq!(election.term(), None);
    let later = start + RETRY_INTERVAL;
    assert_eq!(election.next(later, Timestamp::UNIX_EPOCH), Step::Read);
    election.read(Some(*lease.clone()), later);
    let Step::Write(again) = election.next(later, Timestamp::UNIX_EPOCH) else { panic!() };
    assert_eq!(again.spec.unwrap().lease_transitions, lease.spec.unwrap().lease_transitions, "the same term");
}

#[test]
fn one_that_was_empty_and_is_gone_may_have_been_taken_meanwhile() {
    let start = Instant::now();
    let uid = |uid: &str| Lease { metadata: ObjectMeta { uid: Some(uid.into()), ..ObjectMeta::default() }, spec: None };
    for then in [None, Some(uid("2"))] {
        let mut election = Election::new("a".into(), None, start);
        election.read(Some(uid("1")), start);
        assert!(matches!(election.next(start, Timestamp::UNIX_EPOCH), Step::Write(_)));
        // Another was faster, and the Lease was deleted before this one could read what it had said.
        election.conflicted(start);
        assert_eq!(election.next(start, Timestamp::UNIX_EPOCH), Step::Read);
        election.read(then.clone(), start);
        assert_eq!(election.next(start, Timestamp::UNIX_EPOCH), Step::Wait(start + POLL_INTERVAL));
        let later = start + LEASE_DURATION;
        assert_eq!(election.next(later, Timestamp::UNIX_EPOCH), Step::Read);
        election.read(then, later);
        assert!(matches!(election.next(later, Timestamp::UNIX_EPOCH), Step::Write(_)));
    }
}

proptest! {
    /// Whoever is stopped or cut off, however long requests take, and whenever, and if the Lease is deleted once: never two
    /// at once, and one when all are well.
    #[test]
    fn never_two(
        sleeps in proptest::collection::vec((0..3usize, 0..100u64, 1..40u64), 0..12),
        ways in proptest::collection::vec(proptest::collection::vec((0..3_500u64, 0..3_500u64), 0..60), 3),
        deleted in proptest::option::of(0..140u64),
    ) {
        let names = ["a", "b", "c"];
        let mut bench = Bench::new(&names);
        for (name, ways) in names.iter().zip(ways) {
            bench.contenders.get_mut(name).unwrap().ways = ways;
        }
        let sleeps = sleeps.into_iter().map(|(who, from, long)| (from, Some((who, long))));
        let mut events: Vec<_> = sleeps.chain(deleted.map(|at| (at, None))).collect();
        events.sort_unstable();
        let mut at = 0;
        for (from, what) in events {
            bench.run(at, from * 1000);
            at = from * 1000;
            match what {
                Some((who, long)) => bench.sleeps(names[who], (from + long) * 1000),
                None => bench.lease = None,
            }
        }
        bench.run(at, 400_000);
        // A contender that lost ends; here it stays ended, so somebody leads unless all ended.
        let lost = names.iter().filter(|name| bench.is_lost(name, 400_000)).count();
        prop_assert!(lost == names.len() || names.iter().any(|name| bench.epoch(name).is_some()));
    }
}
