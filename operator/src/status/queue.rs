//! The queue of statuses to be written to an API server, and the time of each. Pure: `now` is an argument.
//!
//! A status that says something else is written at once. One in which only numbers drifted waits until the last write is
//! old enough, and one that says that proxies are awaited waits for a moment, since it is mostly over before it is written:
//! that write would only delay the next one. One that is refused is tried again, ever more rarely, until it says something else. While the API server
//! fails, a few are tried each second, whichever are next, so that all are written as soon as it does not. One object
//! is written by one task at a time. Namespaces take turns, and none has all of the writes under way: who has ten thousand
//! objects keeps nobody waiting for them, nor who has large ones, of which each write takes long.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use planner::{ObjectRef, Status, problem::reason};

use crate::kube::backoff::Bounds;

/// The time that proxies have been awaited when a status says so.
const PENDING_GRACE: Duration = Duration::from_millis(500);
/// After the first failure, the next attempt; twice as long after each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest pause of one that the API server refuses.
const MAX_PAUSE_REFUSED: Duration = Duration::from_secs(60);
/// Longest pause of a write that the API server fails at, maybe only at this one. It must not outlive an outage by
/// much.
const MAX_PAUSE_FAILED: Duration = Duration::from_secs(5);
/// Failures in a row after which it is the API server that fails.
const OUTAGE_AFTER: u32 = 8;
/// From then on there is one attempt in this time.
const PROBE_INTERVAL: Duration = Duration::from_millis(125);

/// Writes of one namespace at a time, of the eight that there may be (`api.rs`).
const MAX_WRITES_OF_NAMESPACE: usize = 6;

/// A write of one status.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Job {
    pub(super) object: ObjectRef,
    /// UID of the object, to tell it from a later one with the same name.
    pub(super) uid: Option<Arc<str>>,
    pub(super) status: Status,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    Written,
    /// The object is gone, or another of its name is there: the source tells of it in a moment.
    Gone,
    /// The API server answers that this is not to be written.
    Refused,
    /// The API server fails at this write: it may be the object's fault.
    Failed,
    /// The API server can't be reached, does not answer, or says that it can't write anything now.
    Unreached,
}

/// Everything that is or may have to be written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: BTreeMap<ObjectRef, Entry>,
    due: Due,
    /// How many writes failed since one was answered.
    failed: u32,
    /// While the API server fails: the next attempt is not before.
    probe: Option<Instant>,
}

/// The writes that are due, by namespace and time.
#[derive(Debug, Default)]
struct Due {
    namespaces: BTreeMap<String, Waiting>,
    /// Writes under way, by namespace.
    writing: BTreeMap<String, usize>,
    /// Counts turns.
    turn: u64,
}

#[derive(Debug)]
struct Waiting {
    objects: BTreeSet<(Instant, ObjectRef)>,
    /// When it last had its turn, or came.
    since: u64,
}

impl Due {
    fn insert(&mut self, at: Instant, id: &ObjectRef) {
        self.turn += 1;
        let fresh = || Waiting { objects: BTreeSet::new(), since: self.turn };
        self.namespaces.entry(id.namespace.clone()).or_insert_with(fresh).objects.insert((at, id.clone()));
    }

    fn remove(&mut self, at: Instant, id: &ObjectRef) {
        let Some(waiting) = self.namespaces.get_mut(&id.namespace) else { return };
        waiting.objects.remove(&(at, id.clone()));
        if waiting.objects.is_empty() {
            self.namespaces.remove(&id.namespace);
        }
    }

    /// The first of the namespace whose turn it is.
    fn take(&mut self, now: Instant) -> Option<ObjectRef> {
        let first = |waiting: &Waiting| waiting.objects.first().filter(|(at, _)| *at <= now).cloned();
        let due = self.free().filter_map(|waiting| Some((waiting.since, first(waiting)?)));
        let (_, (at, object)) = due.min_by_key(|(since, _)| *since)?;
        self.remove(at, &object);
        self.turn += 1;
        if let Some(waiting) = self.namespaces.get_mut(&object.namespace) {
            waiting.since = self.turn;
        }
        Some(object)
    }

    fn next(&self) -> Option<Instant> {
        self.free().filter_map(|waiting| waiting.objects.first()).map(|(at, _)| *at).min()
    }

    /// The waiting writes of namespaces that may have another one under way.
    fn free(&self) -> impl Iterator<Item = &Waiting> {
        let is_free =
            |namespace: &String| self.writing.get(namespace).is_none_or(|writing| *writing < MAX_WRITES_OF_NAMESPACE);
        self.namespaces.iter().filter(move |(namespace, _)| is_free(namespace)).map(|(_, waiting)| waiting)
    }

    /// A write of this namespace has ended.
    fn ended(&mut self, namespace: &str) {
        if let Some(writing) = self.writing.get_mut(namespace) {
            *writing -= 1;
            if *writing == 0 {
                self.writing.remove(namespace);
            }
        }
    }
}

#[derive(Debug)]
struct Entry {
    uid: Option<Arc<str>>,
    wanted: Status,
    /// The status that the API server has, and since when; `None`: not known.
    written: Option<(Status, Instant)>,
    /// Since when proxies are awaited.
    awaits: Option<Instant>,
    in_flight: bool,
    failures: u32,
    not_before: Instant,
    /// Where it stands in `due`.
    due: Option<Instant>,
}

impl Queue {
    /// Takes what is wanted of every object; those that are not in it are forgotten. `present` is what the API server has
    /// of objects that are new here.
    pub(super) fn want(
        &mut self,
        wanted: BTreeMap<ObjectRef, (Option<Arc<str>>, Status)>,
        mut present: BTreeMap<ObjectRef, Status>,
        drift: Duration,
        now: Instant,
    ) {
        let gone: Vec<ObjectRef> = self.entries.keys().filter(|id| !wanted.contains_key(id)).cloned().collect();
        for id in gone {
            if let Some(due) = self.entries.remove(&id).and_then(|entry| entry.due) {
                self.due.remove(due, &id);
            }
        }
        for (id, (uid, status)) in wanted {
            let written = present.remove(&id).map(|status| (status, now));
            let fresh = |written| Entry {
                uid: uid.clone(),
                wanted: status.clone(),
                written,
                awaits: None,
                in_flight: false,
                failures: 0,
                not_before: now,
                due: None,
            };
            let entry = self.entries.entry(id.clone()).or_insert_with(|| fresh(written));
            if entry.uid != uid {
                // Another object of the same name; what was written was not for it.
                let due = entry.due.take();
                *entry = Entry { due, ..fresh(None) };
            }
            // It says something else: what was refused of it before may not be now.
            if entry.failures > 0 && !only_drifts(&entry.wanted, &status) {
                (entry.failures, entry.not_before) = (0, now);
            }
            entry.awaits = awaits(&status).then(|| entry.awaits.unwrap_or(now));
            entry.wanted = status;
            Self::schedule(&mut self.due, &id, entry, drift);
        }
    }

    /// The next write that is due, if any.
    pub(super) fn take(&mut self, now: Instant) -> Option<Job> {
        if self.probe.is_some_and(|at| now < at) {
            return None;
        }
        let object = self.due.take(now)?;
        self.probe = self.probe.map(|_| now + PROBE_INTERVAL);
        let entry = self.entries.get_mut(&object)?;
        (entry.due, entry.in_flight) = (None, true);
        *self.due.writing.entry(object.namespace.clone()).or_default() += 1;
        Some(Job { object, uid: entry.uid.clone(), status: entry.wanted.clone() })
    }

    /// When the next write is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.next().map(|at| self.probe.map_or(at, |probe| at.max(probe)))
    }

    /// Takes up how a write ended.
    pub(super) fn done(&mut self, job: Job, outcome: Outcome, drift: Duration, now: Instant) {
        self.due.ended(&job.object.namespace);
        self.failed = match outcome {
            Outcome::Written | Outcome::Gone | Outcome::Refused => 0,
            Outcome::Failed | Outcome::Unreached => self.failed.saturating_add(1),
        };
        self.probe = (self.failed >= OUTAGE_AFTER).then(|| self.probe.unwrap_or(now + PROBE_INTERVAL));
        let longest = match outcome {
            Outcome::Written => Duration::ZERO,
            Outcome::Gone | Outcome::Refused => MAX_PAUSE_REFUSED,
            Outcome::Failed => MAX_PAUSE_FAILED,
            // The bound on all of them is enough.
            Outcome::Unreached => FIRST_RETRY,
        };
        let Some(entry) = self.entries.get_mut(&job.object).filter(|entry| entry.uid == job.uid) else { return };
        entry.in_flight = false;
        match outcome {
            Outcome::Written => {
                entry.written = Some((job.status, now));
                entry.failures = 0;
            }
            Outcome::Gone | Outcome::Refused | Outcome::Failed | Outcome::Unreached => {
                entry.failures = entry.failures.saturating_add(1);
                entry.not_before = now + Bounds::new(FIRST_RETRY, longest).pause(entry.failures);
            }
        }
        Self::schedule(&mut self.due, &job.object, entry, drift);
    }

    fn schedule(due: &mut Due, id: &ObjectRef, entry: &mut Entry, drift: Duration) {
        let at = match &entry.written {
            _ if entry.in_flight => None,
            Some((written, _)) if *written == entry.wanted => None,
            Some((written, at)) if only_drifts(written, &entry.wanted) => Some((*at + drift).max(entry.not_before)),
            Some(_) | None => {
                Some(entry.awaits.map_or(entry.not_before, |since| (since + PENDING_GRACE).max(entry.not_before)))
            }
        };
        if at == entry.due {
            return;
        }
        if let Some(former) = entry.due.take() {
            due.remove(former, id);
        }
        if let Some(at) = at {
            due.insert(at, id);
        }
        entry.due = at;
    }
}

/// Whether a status says that proxies do not run yet what it is of.
fn awaits(status: &Status) -> bool {
    status.conditions().iter().any(|condition| condition.type_ == "Programmed" && condition.reason == reason::PENDING)
}

/// Whether two statuses differ in nothing but numbers that load moves.
fn only_drifts(a: &Status, b: &Status) -> bool {
    a.steady() == b.steady()
}

#[cfg(test)]
mod tests {
    use crds::policy::RatePolicyStatus;
    use planner::Kind;

    use super::*;

    const DRIFT: Duration = Duration::from_secs(30);

    struct Bench {
        queue: Queue,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { queue: Queue::default(), start: Instant::now() }
        }

        fn at(&self, seconds: f64) -> Instant {
            self.start + Duration::from_secs_f64(seconds)
        }

        /// Wants these, each `(name, uid, targets, limited)`.
        fn want(&mut self, seconds: f64, wanted: &[(&str, &str, u32, &str)]) {
            let entry = |(name, uid, targets, limited): &(&str, &str, u32, &str)| {
                (id(name), (Some(Arc::from(*uid)), status(*targets, limited)))
            };
            let now = self.at(seconds);
            self.queue.want(wanted.iter().map(entry).collect(), BTreeMap::new(), DRIFT, now);
        }

        /// Takes everything that is due, as many as may be under way at a time, and ends it so.
        fn write(&mut self, seconds: f64, outcome: Outcome) -> Vec<String> {
            let now = self.at(seconds);
            let mut names = vec![];
            loop {
                let jobs: Vec<Job> = std::iter::from_fn(|| self.queue.take(now)).collect();
                if jobs.is_empty() {
                    return names;
                }
                names.extend(jobs.iter().map(|job| job.object.name.clone()));
                for job in jobs {
                    self.queue.done(job, outcome, DRIFT, now);
                }
            }
        }
    }

    fn id(name: &str) -> ObjectRef {
        ObjectRef { kind: Kind::RatePolicy, namespace: "ns".into(), name: name.into() }
    }

    fn status(targets: u32, limited: &str) -> Status {
        Status::Policy(RatePolicyStatus { conditions: vec![], targets, limited: Some(limited.into()) })
    }

    #[test]
    fn transitions_at_once_drift_slowly_and_nothing_twice() {
        let mut bench = Bench::new();
        bench.want(0.0, &[("a", "1", 1, "0%"), ("b", "2", 1, "0%")]);
        assert_eq!(bench.write(0.0, Outcome::Written), ["a", "b"]);
        bench.want(1.0, &[("a", "1", 1, "5%"), ("b", "2", 2, "0%")]);
        assert_eq!(bench.write(1.0, Outcome::Written), ["b"]);
        assert_eq!(bench.queue.next(), Some(bench.at(30.0)));
        assert!(bench.write(29.0, Outcome::Written).is_empty());
        // Back to what is written: nothing to do.
        bench.want(29.0, &[("a", "1", 1, "0%"), ("b", "2", 2, "0%")]);
        assert!(bench.write(40.0, Outcome::Written).is_empty());
        bench.want(40.0, &[("a", "1", 1, "7%"), ("b", "2", 2, "0%")]);
        assert_eq!(bench.write(40.0, Outcome::Written), ["a"]);
    }

    /// A change is told once, when all proxies run it; only one that they do not run for a while is told as awaited, too.
    #[test]
    fn what_proxies_are_awaited_for_is_told_after_a_moment() {
        let mut bench = Bench::new();
        let awaited = |targets: u32| {
            let Status::Policy(mut policy) = status(targets, "0%") else { unreachable!() };
            policy.conditions = serde_json::from_value(serde_json::json!([{"type": "Programmed", "status": "False",
                "reason": "Pending", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]))
            .unwrap();
            BTreeMap::from([(id("a"), (Some(Arc::from("1")), Status::Policy(policy)))])
        };
        for (from, targets) in [(0.0, 1), (10.0, 2)] {
            let now = bench.at(from);
            bench.queue.want(awaited(1), BTreeMap::new(), DRIFT, now);
            assert!(bench.write(from + 0.4, Outcome::Written).is_empty());
            bench.want(from + 0.4, &[("a", "1", targets, "0%")]);
            assert_eq!(bench.write(from + 0.4, Outcome::Written), ["a"]);
        }
        // However often what is awaited changes meanwhile, it counts from the first.
        for tenth in 0..6 {
            assert!(bench.write(20.0 + f64::from(tenth) / 10.0 - 0.01, Outcome::Written).is_empty());
            let now = bench.at(20.0 + f64::from(tenth) / 10.0);
            bench.queue.want(awaited(tenth), BTreeMap::new(), DRIFT, now);
        }
        assert_eq!(bench.write(20.5, Outcome::Written), ["a"]);
    }

    #[test]
    fn what_the_api_server_has_is_not_written_again() {
        let mut bench = Bench::new();
        let wanted = BTreeMap::from([(id("a"), (None, status(1, "0%"))), (id("b"), (None, status(2, "0%")))]);
        let present = BTreeMap::from([(id("a"), status(1, "0%")), (id("gone"), status(1, "0%"))]);
        let now = bench.at(0.0);
        bench.queue.want(wanted, present, DRIFT, now);
        assert_eq!(bench.write(0.0, Outcome::Written), ["b"]);
    }

    /// When one object is tried whose writes end so, for 200 seconds.
    fn attempts(outcome: Outcome) -> Vec<f64> {
        let mut bench = Bench::new();
        let (mut at, mut seconds) = (vec![], 0.0);
        while seconds < 200.0 {
            // Numbers that drift are no reason to hurry.
            bench.want(seconds, &[("a", "1", 1, &format!("{seconds}%"))]);
            if !bench.write(seconds, outcome).is_empty() {
                at.push(seconds);
            }
            seconds += 1.0;
        }
        assert_eq!(bench.write(400.0, Outcome::Written), ["a"]);
        bench.want(401.0, &[("a", "1", 2, "0%")]);
        assert_eq!(bench.write(401.0, Outcome::Written), ["a"], "forgiven");
        at
    }

    #[test]
    fn failures_are_tried_again_ever_more_rarely() {
        assert_eq!(attempts(Outcome::Refused), [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 123.0, 183.0]);
        assert_eq!(attempts(Outcome::Failed)[..6], [0.0, 1.0, 3.0, 7.0, 12.0, 17.0]);
        assert_eq!(attempts(Outcome::Unreached)[..6], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn what_says_something_else_is_tried_at_once() {
        let mut bench = Bench::new();
        for seconds in [0.0, 1.0, 3.0, 7.0, 15.0] {
            bench.want(seconds, &[("a", "1", 1, "0%")]);
            assert_eq!(bench.write(seconds, Outcome::Refused), ["a"]);
        }
        bench.want(16.0, &[("a", "1", 1, "1%")]);
        assert!(bench.write(16.0, Outcome::Refused).is_empty());
        bench.want(16.5, &[("a", "1", 2, "1%")]);
        assert_eq!(bench.write(16.5, Outcome::Written), ["a"]);
    }

    /// However many there are: few are tried while the API server is away, and each is written soon after that.
    #[test]
    fn nothing_outlives_an_outage() {
        for count in [1, 20, 2000] {
            let mut bench = Bench::new();
            let names: Vec<String> = (0..count).map(|i| format!("r{i:04}")).collect();
            let wanted: Vec<_> = names.iter().map(|name| (name.as_str(), "1", 1, "0%")).collect();
            bench.want(0.0, &wanted);
            let (mut tried, mut seconds) = (0, 0.0);
            while seconds < 600.0 {
                tried += bench.write(seconds, Outcome::Unreached).len();
                seconds += 0.05;
            }
            assert!(tried < 600 * 9 + 2000, "{count} objects: {tried} attempts");
            let mut written = 0;
            while seconds < 601.0 {
                written += bench.write(seconds, Outcome::Written).len();
                seconds += 0.05;
            }
            assert_eq!(written, count);
        }
    }

    /// Writes of large objects take long: those of one namespace are never all that are under way.
    #[test]
    fn none_has_all_of_the_writes_under_way() {
        let mut bench = Bench::new();
        let names: Vec<String> = (0..20).map(|i| format!("r{i:02}")).collect();
        let of = |namespace: &str, name: &str| ObjectRef { namespace: namespace.into(), ..id(name) };
        let entry = |id: ObjectRef| (id, (Some(Arc::from("1")), status(1, "0%")));
        let mut wanted: BTreeMap<_, _> = names.iter().map(|name| entry(of("crowd", name))).collect();
        let now = bench.at(0.0);
        bench.queue.want(wanted.clone(), BTreeMap::new(), DRIFT, now);
        let mut jobs: Vec<Job> = std::iter::from_fn(|| bench.queue.take(now)).collect();
        assert_eq!((jobs.len(), bench.queue.next()), (MAX_WRITES_OF_NAMESPACE, None));
        wanted.extend([entry(of("shop", "a"))]);
        bench.queue.want(wanted, BTreeMap::new(), DRIFT, now);
        assert_eq!(bench.queue.take(now).map(|job| job.object.name), Some("a".into()));
        assert_eq!(bench.queue.take(now), None);
        bench.queue.done(jobs.remove(0), Outcome::Written, DRIFT, now);
        assert_eq!(bench.queue.take(now).map(|job| job.object.namespace), Some("crowd".into()));
        assert_eq!(bench.queue.take(now), None);
    }

    #[test]
    fn another_object_of_the_same_name_is_another() {
        let mut bench = Bench::new();
        bench.want(0.0, &[("a", "1", 1, "0%")]);
        let now = bench.at(0.0);
        let job = bench.queue.take(now).unwrap();
        bench.want(1.0, &[("a", "2", 1, "0%")]);
        let second = bench.queue.take(bench.at(1.0)).unwrap();
        assert_eq!((&*job.uid.clone().unwrap(), &*second.uid.clone().unwrap()), ("1", "2"));
        // The end of the first write says nothing of the second.
        bench.queue.done(job, Outcome::Written, DRIFT, now);
        bench.queue.done(second, Outcome::Gone, DRIFT, now);
        assert!(bench.queue.next().is_some());
        bench.want(2.0, &[]);
        assert_eq!((bench.queue.next(), bench.queue.entries.len()), (None, 0));
    }

    #[test]
    fn one_write_of_an_object_at_a_time() {
        let mut bench = Bench::new();
        bench.want(0.0, &[("a", "1", 1, "0%")]);
        let job = bench.queue.take(bench.at(0.0)).unwrap();
        bench.want(1.0, &[("a", "1", 2, "0%")]);
        assert_eq!(bench.queue.take(bench.at(1.0)), None);
        bench.queue.done(job, Outcome::Written, DRIFT, bench.at(1.0));
        assert_eq!(bench.write(1.0, Outcome::Written), ["a"]);
    }

    #[test]
    fn namespaces_take_turns() {
        let mut bench = Bench::new();
        let crowd: Vec<String> = (0..1000).map(|i| format!("crowd{i:04}")).collect();
        let entry = |name: &str| (ObjectRef { namespace: name[..4].into(), ..id(name) }, (None, status(1, "0%")));
        bench.queue.want(crowd.iter().map(|name| entry(name)).collect(), BTreeMap::new(), DRIFT, bench.at(0.0));
        let later = ["shop1", "shop2"];
        let all = crowd.iter().map(String::as_str).chain(later).map(entry).collect();
        bench.queue.want(all, BTreeMap::new(), DRIFT, bench.at(1.0));
        let now = bench.at(1.0);
        let next = |_| {
            let job = bench.queue.take(now)?;
            let name = job.object.name.clone();
            bench.queue.done(job, Outcome::Written, DRIFT, now);
            Some(name)
        };
        let first: Vec<String> = (0..5).filter_map(next).collect();
        assert_eq!(first, ["crowd0000", "shop1", "crowd0001", "shop2", "crowd0002"]);
    }
}
