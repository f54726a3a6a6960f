//! Timelines: a fleet that takes up what it is offered, 20 ms by 20 ms, with proxies that refuse, are silent or end.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// How a proxy takes a revision up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Way {
    #[default]
    Takes,
    Refuses,
    Silent,
    Ends,
    /// The process that is started in its place does not.
    EndsOnce,
    /// Takes it up, and answers 5xx from then on.
    Fails,
}

#[derive(Clone, Default)]
struct Sim {
    rollout: Rollout,
    proxies: BTreeMap<ProxyId, Proxy>,
    /// How each takes up each revision, if not as it should.
    ways: BTreeMap<(String, u8), Way>,
    now: u64,
    care: Care,
    /// Every revision that a proxy ran, by name.
    ran: BTreeMap<String, BTreeSet<u8>>,
    ended: usize,
}

fn revision(n: u8) -> Hash {
    Hash::of(&[n])
}

/// The number of a revision.
fn number(revision: Option<Hash>) -> Option<u8> {
    static NUMBERS: LazyLock<BTreeMap<Hash, u8>> =
        LazyLock::new(|| (0..=u8::MAX).map(|n| (self::revision(n), n)).collect());
    NUMBERS.get(&revision?).copied()
}

impl Sim {
    /// So many that run revision 0, which was rolled out.
    fn new(count: usize) -> Self {
        let mut sim = Self { care: Care { percent: 1, ..Care::default() }, ..Self::default() };
        for i in 0..count {
            sim.join(&format!("p{i}"), 1, Some(0));
        }
        sim.run(0, 100);
        assert_eq!(sim.rollout.stable(), Some(revision(0)));
        sim
    }

    fn join(&mut self, name: &str, pid: u32, runs: Option<u8>) {
        let proxy = Proxy { attached: true, ready: runs.is_some(), runs: runs.map(revision), ..Proxy::default() };
        self.proxies.insert(ProxyId { name: name.into(), pid: Some(pid) }, proxy);
    }

    fn way(mut self, name: &str, of: u8, way: Way) -> Self {
        self.ways.insert((name.into(), of), way);
        self
    }

    /// What a proxy is offered.
    fn offered(&self, id: &ProxyId) -> Option<Hash> {
        let canary = self.rollout.canaries().filter(|(_, ids)| ids.contains(id));
        canary.map(|(revision, _)| revision).or(self.rollout.stable())
    }

    /// Wants a revision for so long; gives back who runs it then.
    fn run(&mut self, wanted: u8, ms: u64) -> Vec<String> {
        for _ in 0..ms.div_ceil(20) {
            self.now += 20;
            self.rollout.step(revision(wanted), &self.proxies, self.care, Millis(self.now));
            let mut gone = vec![];
            let ids: Vec<ProxyId> = self.proxies.keys().cloned().collect();
            for id in ids {
                let offered = self.offered(&id);
                let Some(proxy) = self.proxies.get_mut(&id) else { continue };
                let way =
                    |n: Option<u8>| n.and_then(|n| self.ways.get(&(id.name.clone(), n)).copied()).unwrap_or_default();
                proxy.answers.all += 10;
                proxy.answers.failed += if way(number(proxy.runs)) == Way::Fails { 5 } else { 0 };
                if offered.is_none() || offered == proxy.runs {
                    continue;
                }
                match way(number(offered)) {
                    Way::Silent => {}
                    Way::Ends => gone.push(id.clone()),
                    Way::EndsOnce => {
                        self.ways.retain(|(name, _), _| *name != id.name);
                        gone.push(id.clone());
                    }
                    other => {
                        (proxy.runs, proxy.ready, proxy.refuses) = (offered, true, other == Way::Refuses);
                        self.ran.entry(id.name.clone()).or_default().extend(number(offered));
                    }
                }
            }
            for id in gone {
                self.proxies.remove(&id);
                self.ended += 1;
                // It is started anew, and what it does not do at once it does not do as another process.
                self.join(&id.name, id.pid.unwrap_or_default() + 1, None);
            }
        }
        self.on(wanted)
    }

    fn on(&self, wanted: u8) -> Vec<String> {
        let runs = self.proxies.iter().filter(|(_, proxy)| proxy.runs == Some(revision(wanted)));
        runs.map(|(id, _)| id.name.clone()).collect()
    }
}

#[test]
fn one_first_then_all_within_milliseconds() {
    let mut sim = Sim::new(4);
    assert_eq!(sim.run(1, 20).len(), 1);
    assert_eq!(sim.run(1, 40).len(), 4);
    // A fleet of one is its own canary; one that starts gets what there is.
    assert_eq!(Sim::new(1).run(1, 60), ["p0"]);
    let mut fresh = Sim { care: Care { percent: 1, ..Care::default() }, ..Sim::default() };
    fresh.join("a", 1, None);
    fresh.join("b", 1, None);
    assert_eq!(fresh.run(1, 60).len(), 2);
}

#[test]
fn it_is_not_always_the_same_one() {
    let mut first = BTreeSet::new();
    let mut sim = Sim::new(4);
    for n in 1..40 {
        first.extend(sim.run(n, 20));
        sim.run(n, 100);
    }
    assert_eq!(first.len(), 4);
}

#[test]
fn one_that_refuses_or_is_silent_holds_nobody_up() {
    for way in [Way::Refuses, Way::Silent] {
        let mut worst = 0;
        let mut sim = Sim::new(4);
        for n in 1..60 {
            sim.ways.insert(("p2".into(), n), way);
            let before = sim.now;
            while ["p0", "p1", "p3"].iter().any(|name| !sim.on(n).contains(&(*name).to_owned())) {
                sim.run(n, 20);
                assert!(sim.now - before < 1_000, "{way:?} {n}");
            }
            worst = worst.max(sim.now - before);
            assert!(n == 1 || n > 20 || sim.now - before <= 700);
        }
        // It costs its patience once: then it is asked last.
        let before = sim.now;
        sim.ways.insert(("p2".into(), 60), way);
        while sim.on(60).len() < 3 {
            sim.run(60, 20);
        }
        assert!(sim.now - before <= 80, "{way:?}: {} ms", sim.now - before);
        assert!(worst <= 700, "{worst} ms");
    }
}

#[test]
fn what_ends_a_proxy_ends_no_more_than_two() {
    let mut sim = Sim::new(5);
    for name in ["p0", "p1", "p2", "p3", "p4"] {
        sim.ways.insert((name.into(), 1), Way::Ends);
    }
    assert_eq!(sim.run(1, 10_000), Vec::<String>::new());
    assert_eq!(sim.ended, 2);
    assert!(sim.rollout.halted(revision(1)).is_some_and(|why| why.starts_with("2 proxies ended")), "{:?}", sim.rollout);
    // Those that were started anew run what was rolled out before, and so does one more.
    sim.join("p5", 1, None);
    sim.run(1, 100);
    assert_eq!(sim.on(0).len(), 6);
    // After a while one proxy tries it again; a change is tried at once.
    sim.run(1, 310_000);
    assert_eq!(sim.ended, 3);
    assert_eq!(sim.run(2, 100).len(), 6);
    assert_eq!(sim.rollout.halted(revision(2)), None);
}

#[test]
fn the_only_proxy_ends_twice_and_runs_what_it_had() {
    let mut sim = Sim::new(1).way("p0", 1, Way::Ends);
    sim.run(1, 60_000);
    assert_eq!((sim.ended, sim.on(0).len()), (2, 1));
}

/// Pods, whose proxy is started again in its place: from the file that has what it ran last.
#[test]
fn another_process_in_the_place_is_no_surviving_one() {
    for runs in [0, 1] {
        let mut sim = Sim::new(3);
        sim.proxies.values_mut().for_each(|proxy| proxy.process = Some(7));
        sim.rollout.step(revision(1), &sim.proxies, sim.care, Millis(sim.now));
        let asked: Vec<ProxyId> = sim.rollout.canaries().into_iter().flat_map(|(_, ids)| ids).cloned().collect();
        let [id] = &asked[..] else { panic!("{asked:?}") };
        let proxy = sim.proxies.get_mut(id).unwrap();
        (proxy.process, proxy.runs) = (Some(8), Some(revision(runs)));
        sim.rollout.step(revision(1), &sim.proxies, sim.care, Millis(sim.now + 20));
        assert_eq!(sim.rollout.stable(), Some(revision(0)), "it is not rolled out");
        assert_eq!(sim.rollout.candidate.as_ref().unwrap().deaths, 1, "it runs {runs}");
    }
}

#[test]
fn one_that_ends_by_chance_makes_it_slower_only() {
    let mut sim = Sim::new(5);
    // The first that is asked, whichever that is.
    let first = sim.clone().run(1, 20)[0].clone();
    sim.ways.insert((first.clone(), 1), Way::EndsOnce);
    let mut at_once = 0;
    let mut before = 0;
    for _ in 0..40 {
        let on = sim.run(1, 20).len();
        at_once = at_once.max(on.saturating_sub(before));
        before = on;
    }
    assert_eq!(at_once, 1, "one at a time from then on");
    assert_eq!((sim.ended, sim.on(1).len()), (1, 5));
    // One that always ends when it gets it, by a fault of its own, holds up nobody else.
    for i in 0..5 {
        sim.ways.remove(&(format!("p{i}"), 1));
    }
    sim.ways.insert((first, 2), Way::Ends);
    sim.run(2, 1_000);
    assert!(sim.on(2).len() >= 4, "{:?}", sim.rollout);
}

#[test]
fn one_that_leaves_is_no_death() {
    let mut sim = Sim::new(3).way("p0", 1, Way::Silent).way("p1", 1, Way::Silent).way("p2", 1, Way::Silent);
    sim.run(1, 20);
    for proxy in sim.proxies.values_mut() {
        (proxy.draining, proxy.ready) = (true, false);
    }
    sim.join("n0", 1, Some(0));
    sim.run(1, 20);
    sim.proxies.retain(|id, _| id.name == "n0");
    assert_eq!(sim.run(1, 1_000), ["n0"]);
    assert_eq!(sim.rollout.halted(revision(1)), None);
}

#[test]
fn all_that_hang_in_it_do_not_get_it() {
    let mut sim = Sim::new(6);
    for i in 0..6 {
        sim.ways.insert((format!("p{i}"), 1), Way::Silent);
    }
    sim.run(1, 20_000);
    let asked = sim.rollout.canaries().map(|(_, ids)| ids.len());
    assert_eq!(asked, Some(2));
}

#[test]
fn a_stream_of_changes_gets_through() {
    let mut sim = Sim::new(3);
    for n in 1..=100 {
        sim.run(n, 20);
    }
    let on = sim.proxies.values().filter(|p| (95..=100).any(|n| p.runs == Some(revision(n)))).count();
    assert_eq!(on, 3, "none is left behind");
}

#[test]
fn an_operator_that_takes_over_finds_what_runs() {
    let mut sim = Sim { care: Care { percent: 1, ..Care::default() }, ..Sim::default() };
    for name in ["a", "b", "c"] {
        sim.join(name, 1, Some(3));
    }
    sim.run(3, 40);
    assert_eq!(sim.rollout.stable(), Some(revision(3)));
    // Something changed meanwhile: they keep what they have until one took it.
    let mut sim = Sim { care: Care { percent: 1, ..Care::default() }, ..Sim::default() };
    for name in ["a", "b", "c"] {
        sim.join(name, 1, Some(3));
        sim.ways.insert((name.into(), 4), Way::Ends);
    }
    sim.run(4, 3_000);
    assert!(sim.ended <= 2 && !sim.on(3).is_empty(), "{} ended", sim.ended);
}

#[test]
fn errors_that_rise_halt_it() {
    let watched = Care { percent: 25, observe: Duration::from_secs(5) };
    let mut sim = Sim::new(4);
    sim.care = watched;
    assert_eq!(sim.run(1, 4_900).len(), 1, "watched");
    assert_eq!(sim.run(1, 300).len(), 4);
    for i in 0..4 {
        sim.ways.insert((format!("p{i}"), 2), Way::Fails);
    }
    sim.run(2, 10_000);
    assert_eq!((sim.on(2).len(), sim.on(1).len()), (0, 4), "the canaries went back");
    let why = sim.rollout.halted(revision(2)).unwrap();
    assert!(why.contains("answered 50 % of") && why.ends_with("with 5xx, 0 % otherwise"), "{why}");
    assert_eq!(sim.ran.values().filter(|ran| ran.contains(&2)).count(), 2, "one, and another that says the same");
    // All fail, for another reason: that says nothing of the change.
    for i in 0..4 {
        sim.ways.extend([((format!("p{i}"), 1), Way::Fails), ((format!("p{i}"), 3), Way::Fails)]);
    }
    assert_eq!(sim.run(3, 6_000).len(), 4);
    // One alone says that errors rise, and another does not find it so.
    sim.ways.clear();
    sim.run(4, 6_000);
    let first = sim.clone().run(5, 20)[0].clone();
    sim.ways.insert((first, 5), Way::Fails);
    assert_eq!(sim.run(5, 12_000).len(), 4, "{:?}", sim.rollout.halted(revision(5)));
}

#[test]
fn how_many_are_first() {
    let first = |percent, ready| Care { percent, ..Care::default() }.canaries(ready);
    assert_eq!(
        [first(1, 0), first(1, 1), first(1, 100), first(10, 4), first(50, 3), first(100, 7)],
        [1, 1, 1, 1, 2, 7]
    );
}

proptest! {
    /// Whatever one proxy does, all others come to run what is wanted.
    #[test]
    fn one_proxy_stops_nobody(
        count in 2..6usize,
        ways in proptest::collection::vec(0..4u8, 8),
        steps in proptest::collection::vec((1..8u8, 20..400u64), 1..10),
    ) {
        let mut sim = Sim::new(count);
        for (n, way) in ways.iter().enumerate() {
            let way = [Way::Takes, Way::Refuses, Way::Silent, Way::Ends][*way as usize];
            sim.ways.insert(("p0".into(), n as u8), way);
        }
        for (wanted, ms) in &steps {
            sim.run(*wanted, *ms);
        }
        let (wanted, _) = steps[steps.len() - 1];
        sim.run(wanted, 6_000);
        let on = sim.on(wanted);
        prop_assert!((1..count).all(|i| on.contains(&format!("p{i}"))), "{on:?} {:?}", sim.rollout);
    }

    #[test]
    fn poison_never_reaches_all(count in 3..8usize, calm in 20..200u64) {
        let mut sim = Sim::new(count);
        for i in 0..count {
            sim.ways.insert((format!("p{i}"), 1), Way::Ends);
        }
        sim.run(1, calm);
        sim.run(1, 20_000);
        prop_assert!(sim.ended <= 2);
        prop_assert_eq!(sim.on(0).len(), count);
    }
}
