//! The rollout of a new configuration: one proxy first, then all.
//!
//! ```text
//!             one more, while nobody takes it as it is        observe
//!  wanted ──► canary ─────────────────────────────► taken ───────────► rolled out ──► every proxy
//!               │ its process ends: one at a time from then on    │ errors rise
//!               └─ the next one's too ──► halted ◄─────────────────┘   every proxy keeps what was rolled out before
//! ```
//!
//! So what kills a proxy, or is refused, never reaches all of them. One that is silent, refuses or ends costs the others a
//! moment, once: it is asked last from then on. While nothing was rolled out before (a fleet that starts, an operator that
//! takes over), proxies keep what they have.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use snapshot::Hash;

pub use self::answers::Answers;
use crate::{Millis, publish::ProxyId};

mod answers;

/// A proxy that took nothing up for so long is waited for no longer: another is asked besides.
const TAKE_UP_TIMEOUT: Duration = Duration::from_millis(500);
/// The number of processes that end when they get it which is no chance any more.
const ENOUGH_DEATHS: u32 = 2;
/// Errors that rise at so many, if there are so many, are no chance, and not one proxy's word.
const ENOUGH_DOUBTS: usize = 2;
/// The number of silent proxies that is enough: they may all hang in it. The stream of one that does ends in the end.
const ENOUGH_SILENT: usize = 2;
/// The time after which a halted revision is tried again with one proxy, twice as long each further time; much sooner while
/// there is nothing else that could run.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(300);
const FIRST_RETRY_DELAY_FOR_WANT: Duration = Duration::from_secs(5);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(3600);
/// The care that a rollout takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Care {
    /// Percent of the Ready proxies that get it first; one at least.
    pub percent: u32,
    /// The time for which they are watched before all get it.
    pub observe: Duration,
}

/// A proxy that lives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Proxy {
    /// Whether it has an open stream.
    pub attached: bool,
    /// The process at its other end, by its own word: one that crashes may be there again before anybody misses it.
    pub process: Option<u32>,
    /// Serves, and stays.
    pub ready: bool,
    /// Leaves.
    pub draining: bool,
    /// The revision that it acknowledged last; `None`: it runs nothing yet.
    pub runs: Option<Hash>,
    /// Whether it refuses a part of that, which the fleet does not.
    pub refuses: bool,
    /// The requests that it answered.
    pub answers: Answers,
}

/// The progress of one fleet's rollout.
#[derive(Clone, Debug, Default)]
pub struct Rollout {
    /// The revision that all proxies get, but for canaries.
    stable: Option<Hash>,
    candidate: Option<Candidate>,
    halted: Option<Halted>,
    /// The number of times that those of each name did not take up what they were asked to: they are asked last.
    strikes: BTreeMap<String, u32>,
}

#[derive(Clone, Debug)]
struct Candidate {
    revision: Hash,
    asked: BTreeMap<ProxyId, Asked>,
    deaths: u32,
    /// Deaths that halt it.
    most_deaths: u32,
    began: Millis,
    /// Enough took it: since then, with what each proxy had answered by then.
    observed: Option<(Millis, BTreeMap<ProxyId, Answers>)>,
    /// The proxies whose errors rose then. The word of one of several is not enough.
    doubted: BTreeSet<ProxyId>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Millis,
    outcome: Outcome,
    /// Whether it was told to leave: that it ends says nothing.
    leaves: bool,
    /// Whether it did not answer in time, which counts once.
    late: bool,
    /// The process that was asked.
    process: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Waited,
    Taken,
    Refused,
    Died,
    Left,
}

#[derive(Clone, Debug)]
struct Halted {
    revision: Hash,
    why: String,
    at: Millis,
    tries: u32,
}

impl Rollout {
    /// The revision that all proxies get, but for those of [`Rollout::canaries`].
    pub fn stable(&self) -> Option<Hash> {
        self.stable
    }

    /// The revision that is tried, and the proxies that try it.
    pub fn canaries(&self) -> Option<(Hash, BTreeSet<&ProxyId>)> {
        let candidate = self.candidate.as_ref()?;
        let alive = candidate.asked.iter().filter(|(_, asked)| asked.outcome.is_of_the_living());
        Some((candidate.revision, alive.map(|(id, _)| id).collect()))
    }

    /// The reason why what is wanted is not rolled out.
    pub fn halted(&self, wanted: Hash) -> Option<&str> {
        self.halted.as_ref().filter(|halted| halted.revision == wanted).map(|halted| halted.why.as_str())
    }

    /// Whether this is tried, and was taken: what remains is to watch it.
    pub fn is_observing(&self, revision: Hash) -> bool {
        self.candidate.as_ref().is_some_and(|candidate| candidate.revision == revision && candidate.observed.is_some())
    }

    /// Takes up new names of what was rolled out and what is tried, which changed in what needs no trial.
    pub fn renamed(&mut self, stable: Hash, candidate: Hash) {
        self.stable = Some(stable);
        if let Some(tried) = &mut self.candidate {
            tried.revision = candidate;
        }
    }

    /// Moves on. `proxies` are all that live.
    pub fn step(&mut self, wanted: Hash, proxies: &BTreeMap<ProxyId, Proxy>, care: Care, now: Millis) {
        if let Some(mut candidate) = self.candidate.take() {
            self.take_up(&mut candidate, proxies, now);
            self.candidate = self.judge(candidate, proxies, care, now);
        }
        if self.stable == Some(wanted) {
            (self.candidate, self.halted) = (None, None);
        } else {
            self.begin(wanted, now);
        }
        if let Some(mut candidate) = self.candidate.take() {
            self.ask(&mut candidate, proxies, care, now);
            self.candidate = Some(candidate);
        }
        self.strikes.retain(|name, _| proxies.keys().any(|id| id.name == *name));
    }

    /// Makes what is wanted the candidate, unless another one's answer is awaited for a moment (or a stream of changes would
    /// never get through), or it was halted.
    fn begin(&mut self, wanted: Hash, now: Millis) {
        let is_awaited = |candidate: &Candidate| {
            candidate.observed.is_none() && candidate.asked.values().any(|asked| asked.is_awaited(now))
        };
        if self.candidate.as_ref().is_some_and(|c| c.revision == wanted || is_awaited(c)) {
            return;
        }
        let halted = self.halted.as_ref().filter(|halted| halted.revision == wanted);
        let most_deaths = match halted.map(|halted| halted.is_due(self.stable.is_some(), now)) {
            Some(false) => {
                self.candidate = None;
                return;
            }
            // One proxy is enough to see whether it still is as it was.
            Some(true) => 1,
            None => {
                self.halted = None;
                ENOUGH_DEATHS
            }
        };
        let asked = BTreeMap::new();
        let began = now;
        let (observed, doubted) = (None, BTreeSet::new());
        self.candidate = Some(Candidate { revision: wanted, asked, deaths: 0, most_deaths, began, observed, doubted });
    }

    /// Notes what became of the proxies that were asked.
    fn take_up(&mut self, candidate: &mut Candidate, proxies: &BTreeMap<ProxyId, Proxy>, now: Millis) {
        for (id, asked) in &mut candidate.asked {
            let before = asked.outcome;
            asked.outcome = match (proxies.get(id), before) {
                (_, Outcome::Died | Outcome::Left) => before,
                (None, _) if asked.leaves => Outcome::Left,
                (None, _) => Outcome::Died,
                (Some(proxy), _) if proxy.is_another(asked.process) => Outcome::Died,
                (Some(proxy), Outcome::Waited) if !proxy.attached => Outcome::Died,
                // The same place, and another process in it.
                (Some(proxy), Outcome::Taken | Outcome::Refused) if proxy.attached && proxy.runs.is_none() => {
                    Outcome::Died
                }
                (Some(proxy), _) if !proxy.attached => before,
                (Some(proxy), _) if proxy.runs != Some(candidate.revision) => Outcome::Waited,
                (Some(proxy), _) if proxy.refuses => Outcome::Refused,
                (Some(_), _) => Outcome::Taken,
            };
            asked.leaves = proxies.get(id).map_or(asked.leaves, |proxy| proxy.draining);
            candidate.deaths += u32::from(asked.outcome == Outcome::Died && before != Outcome::Died);
            if asked.outcome == Outcome::Waited && before != Outcome::Waited {
                // It took up what has another name by now.
                (asked.at, asked.late) = (now, false);
            }
            let is_late = asked.outcome == Outcome::Waited && !asked.is_awaited(now);
            let turns_late = is_late && !std::mem::replace(&mut asked.late, is_late);
            if turns_late || (asked.outcome != before && matches!(asked.outcome, Outcome::Died | Outcome::Refused)) {
                let strikes = self.strikes.entry(id.name.clone()).or_default();
                *strikes = strikes.saturating_add(1);
            } else if asked.outcome == Outcome::Taken && before != Outcome::Taken {
                self.strikes.remove(&id.name);
            }
        }
        // One that has it already was asked by an operator before.
        let has = proxies.iter().filter(|(_, p)| p.ready && p.runs == Some(candidate.revision) && !p.refuses);
        for (id, proxy) in has {
            candidate.asked.entry(id.clone()).or_insert(Asked {
                at: now,
                outcome: Outcome::Taken,
                leaves: false,
                late: false,
                process: proxy.process,
            });
        }
    }

    /// Decides whether all get it now, or none any more; else it goes on.
    fn judge(
        &mut self,
        mut candidate: Candidate,
        proxies: &BTreeMap<ProxyId, Proxy>,
        care: Care,
        now: Millis,
    ) -> Option<Candidate> {
        if candidate.deaths >= candidate.most_deaths {
            let (deaths, within) = (candidate.deaths, now.since(candidate.began));
            let ended = match deaths {
                1 => "a proxy ended when it got it".to_owned(),
                _ => format!("{deaths} proxies ended when they got it"),
            };
            self.halt(candidate.revision, format!("{ended}, within {within:.1?}"), now);
            return None;
        }
        if !candidate.is_taken(proxies, now) {
            return Some(candidate);
        }
        let answers = || proxies.iter().map(|(id, proxy)| (id.clone(), proxy.answers)).collect();
        let (since, before) = candidate.observed.get_or_insert_with(|| (now, answers()));
        let since = *since;
        let asked = |id: &ProxyId| candidate.asked.contains_key(id);
        let ready = proxies.values().filter(|p| p.ready).count();
        for (id, why) in answers::risen(asked, before, proxies) {
            if candidate.doubted.insert(id) {
                candidate.observed = None;
            }
            if candidate.doubted.len() >= ENOUGH_DOUBTS.min(ready).max(1) {
                self.halt(candidate.revision, why, now);
                return None;
            }
        }
        if candidate.observed.is_none() {
            // Another one is asked, and watched from then on.
            return Some(candidate);
        }
        if now.since(since) >= care.observe {
            (self.stable, self.halted) = (Some(candidate.revision), None);
            return None;
        }
        Some(candidate)
    }

    fn halt(&mut self, revision: Hash, why: String, now: Millis) {
        let before = self.halted.take().filter(|halted| halted.revision == revision);
        let tries = before.map_or(0, |halted| halted.tries.saturating_add(1));
        self.halted = Some(Halted { revision, why, at: now, tries });
    }

    /// Asks as many as are still to be asked.
    fn ask(&self, candidate: &mut Candidate, proxies: &BTreeMap<ProxyId, Proxy>, care: Care, now: Millis) {
        let nobody = candidate.asked.values().all(|asked| !asked.outcome.is_of_the_living());
        // One that ended and was started anew is asked again if there is no other.
        let again = nobody && proxies.iter().filter(|(_, p)| p.ready).all(|(id, _)| candidate.had_died(&id.name));
        let is_new = |id: &ProxyId| !candidate.asked.contains_key(id) && (again || !candidate.had_died(&id.name));
        let mut next: Vec<&ProxyId> =
            proxies.iter().filter(|(id, p)| p.ready && is_new(id)).map(|(id, _)| id).collect();
        if self.stable.is_none() {
            // They have nothing to lose, and nothing else to get.
            let idle = proxies.iter().filter(|(id, p)| p.attached && !p.ready && !p.draining && is_new(id));
            next.extend(idle.map(|(id, _)| id));
        }
        // Each time another one, so that none of them is always asked first.
        let order = |id: &ProxyId| {
            let lot = Hash::of(format!("{}/{id}", candidate.revision).as_bytes());
            (!proxies.get(id).is_some_and(|p| p.ready), self.strikes.get(&id.name).copied().unwrap_or_default(), lot)
        };
        next.sort_by_cached_key(|id| order(id));
        let ready = proxies.values().filter(|p| p.ready).count();
        let awaited = candidate.asked.values().filter(|asked| asked.is_awaited(now)).count();
        let taken = candidate.sound();
        let wanted = match candidate.deaths {
            // Never to more than one at a time again.
            1.. if awaited > 0 || candidate.count(Outcome::Waited) >= ENOUGH_SILENT => 0,
            1.. => 1,
            0 if candidate.asked.is_empty() => care.canaries(ready),
            // All that were asked answered or are late, and none took it as it is.
            0 => usize::from(awaited == 0 && taken == 0 && candidate.count(Outcome::Waited) < ENOUGH_SILENT),
        };
        for id in next.into_iter().take(wanted) {
            let process = proxies.get(id).and_then(|proxy| proxy.process);
            let asked = Asked { at: now, outcome: Outcome::Waited, leaves: false, late: false, process };
            candidate.asked.insert(id.clone(), asked);
        }
    }
}

impl Care {
    /// The number of Ready proxies that get it first: 10 % of 4 is 1, 50 % of 3 is 2.
    fn canaries(self, ready: usize) -> usize {
        (ready * self.percent.min(100) as usize).div_ceil(100).max(1)
    }
}

impl Proxy {
    /// Whether another process is there than the one that was asked.
    fn is_another(&self, asked: Option<u32>) -> bool {
        self.attached && self.process.is_some_and(|process| asked.is_some_and(|asked| asked != process))
    }
}

impl Outcome {
    fn is_of_the_living(self) -> bool {
        !matches!(self, Self::Died | Self::Left)
    }
}

impl Asked {
    fn is_awaited(self, now: Millis) -> bool {
        self.outcome == Outcome::Waited && now.since(self.at) < TAKE_UP_TIMEOUT
    }
}

impl Halted {
    fn is_due(&self, something_runs: bool, now: Millis) -> bool {
        let first = if something_runs { FIRST_RETRY_DELAY } else { FIRST_RETRY_DELAY_FOR_WANT };
        now.since(self.at) >= first.saturating_mul(1 << self.tries.min(16)).min(MAX_RETRY_DELAY)
    }
}

impl Candidate {
    fn count(&self, outcome: Outcome) -> usize {
        self.asked.values().filter(|asked| asked.outcome == outcome).count()
    }

    /// The number of those that took it as it is, and do well.
    fn sound(&self) -> usize {
        let taken = self.asked.iter().filter(|(_, asked)| asked.outcome == Outcome::Taken);
        taken.filter(|(id, _)| !self.doubted.contains(id)).count()
    }

    /// Whether a process of this name ended by it.
    fn had_died(&self, name: &str) -> bool {
        self.asked.iter().any(|(id, asked)| id.name == name && asked.outcome == Outcome::Died)
    }

    /// Whether enough took it: nobody's answer is awaited, and one took it as it is; or each proxy refuses some of it, which
    /// is then not the same. Once a process ended by it, every proxy takes it alone.
    fn is_taken(&self, proxies: &BTreeMap<ProxyId, Proxy>, now: Millis) -> bool {
        if self.asked.values().any(|asked| asked.is_awaited(now)) {
            return false;
        }
        let is_asked = |id: &ProxyId| self.asked.contains_key(id) || self.had_died(&id.name);
        let all = proxies.iter().filter(|(_, p)| p.ready).all(|(id, _)| is_asked(id));
        let (taken, refused) = (self.sound(), self.count(Outcome::Refused));
        match self.deaths {
            0 => taken > 0 || (all && refused > 0),
            _ => all && taken + refused > 0,
        }
    }
}

#[cfg(test)]
mod tests;
