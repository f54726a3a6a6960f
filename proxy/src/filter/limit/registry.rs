//! The limits that live, across pushes: a push never resets a counter, and a limit that changed goes on with its
//! buckets.
//!
//! A push is compiled before it runs, and may be refused in between. So what it changes is staged, and put in force
//! together with it: until then requests are decided by what runs, and those that began under it are led on afterwards.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use limits::{Limiter, Table, TokenBucket};
use snapshot::{
    Key,
    check::Unfit,
    proto::{self, LimitScope, PolicyTarget, RatePolicy},
};

use super::{
    Limit, Limits,
    counters::{Counters, Decisions, PolicyCounters},
    key::KeyPart,
};
use crate::{clock::clock_us, filter::Filter, rate_limit_fields};

/// Most keys whose state is held at a time.
const KEYS: usize = 1 << 20;

/// State of the limits, across pushes.
pub struct Limiters {
    table: Arc<Table>,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    /// In force.
    limiters: HashMap<Id, Counting>,
    /// Compiled, and in force when what was compiled is.
    staged: HashMap<Id, Counting>,
    limits: BTreeMap<(Key, String), Arc<Counters>>,
    policies: BTreeMap<Key, Arc<PolicyCounters>>,
}

/// A limit, and what it counts by.
type Counting = (Arc<Limiter>, Vec<KeyPart>);

/// The span of one set of buckets.
#[derive(PartialEq, Eq, Hash)]
struct Id {
    policy: Key,
    limit: String,
    scope: Scope,
}

#[derive(PartialEq, Eq, Hash)]
enum Scope {
    Policy,
    /// Route and rule as the policy names them.
    Target(String, String),
    /// Route and rule of the request.
    Rule(Key, String),
}

impl Default for Limiters {
    fn default() -> Self {
        Self { table: Arc::new(Table::new(KEYS)), live: Mutex::default() }
    }
}

impl Limiters {
    /// The limits that policies set for a rule; `None`: there are none.
    pub(crate) fn compile<'a>(
        &self,
        policies: impl Iterator<Item = (&'a Key, &'a RatePolicy, &'a PolicyTarget)>,
        route: &Key,
        rule: &str,
    ) -> Result<Option<Box<dyn Filter>>, Unfit> {
        let policies: Vec<_> = policies.collect();
        let limits = || policies.iter().flat_map(|(_, policy, _)| &policy.limits);
        let mut live = self.live();
        let mut by_policy = vec![];
        for (policy_key, policy, target) in &policies {
            let mut compiled = vec![];
            for limit in &policy.limits {
                let scope = match limit.scope() {
                    LimitScope::Policy => Scope::Policy,
                    LimitScope::PerTarget => Scope::Target(target.route.clone(), target.rule.clone()),
                    LimitScope::PerRule => Scope::Rule(route.clone(), rule.to_owned()),
                };
                // Clients are told a limit's name, with its policy's where another limit of the rule has the same.
                let unique = limits().filter(|other| other.name == limit.name).count() == 1;
                let name = if unique { limit.name.clone() } else { format!("{}/{}", policy_key.name(), limit.name) };
                let id = Id { policy: Key::clone(policy_key), limit: limit.name.clone(), scope };
                compiled.push(live.limit(id, &name, limit)?);
            }
            let counters = live.policies.entry(Key::clone(policy_key)).or_default();
            by_policy.push((Arc::clone(counters), compiled));
        }
        let filter = Limits::new(Arc::clone(&self.table), by_policy);
        Ok(filter.map(|filter| Box::new(filter) as Box<dyn Filter>))
    }

    /// Puts the limits that changed in force, with all their buckets: what was compiled is about to run.
    pub(crate) fn take_effect(&self, now_us: u64) {
        let mut live = self.live();
        let mut changes = vec![];
        for (id, (limiter, parts)) in mem::take(&mut live.staged) {
            // What was compiled and refused is nobody's.
            if Arc::strong_count(&limiter) > 1 {
                let former = live.limiters.insert(id, (Arc::clone(&limiter), parts));
                let former = former.filter(|(former, _)| former.namespace() == limiter.namespace());
                changes.extend(former.map(|(former, _)| (former, limiter)));
            }
        }
        if !changes.is_empty() {
            Limiter::supersede(&self.table, &changes, now_us);
        }
    }

    /// Forgets limits and policies that no rule has any more.
    pub(crate) fn forget_unused(&self) {
        let mut live = self.live();
        live.limiters.retain(|_, (limiter, _)| Arc::strong_count(limiter) > 1);
        live.limits.retain(|_, counters| Arc::strong_count(counters) > 1);
        live.policies.retain(|_, counters| Arc::strong_count(counters) > 1);
    }

    /// The states of all keys.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Decisions since the process began, by policy and limit.
    pub(crate) fn decisions(&self) -> Vec<(String, String, Decisions)> {
        let live = self.live();
        let limits = live.limits.iter().map(|((policy, limit), counters)| {
            let decisions = Decisions {
                allowed: counters.sum(|c| &c.allowed),
                limited: counters.sum(|c| &c.limited),
                audited: counters.sum(|c| &c.audited),
            };
            (format!("{}/{}", policy.namespace(), policy.name()), limit.clone(), decisions)
        });
        limits.collect()
    }

    /// Requests that each policy checked, and how many were over a limit of it.
    pub(crate) fn policy_counts(&self) -> BTreeMap<Key, (u64, u64)> {
        let live = self.live();
        let counts =
            |(key, c): (&Key, &Arc<PolicyCounters>)| (key.clone(), (c.sum(|c| &c.checked), c.sum(|c| &c.limited)));
        live.policies.iter().map(counts).collect()
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn limit(&mut self, id: Id, name: &str, limit: &proto::Limit) -> Result<Limit, Unfit> {
        let parts = limit.key.iter().map(KeyPart::compile).collect::<Result<Vec<_>, _>>()?;
        let bucket = limit.token_bucket.unwrap_or_default();
        let bucket = TokenBucket::new(bucket.rate, bucket.per_ms, bucket.burst);
        let counters = self.limits.entry((id.policy.clone(), id.limit.clone())).or_default();
        let counters = Arc::clone(counters);
        let same = |known: Option<&Counting>| {
            let (limiter, _) = known.filter(|(limiter, by)| *by == parts && *limiter.bucket() == bucket)?;
            Some(Arc::clone(limiter))
        };
        let limiter = if let Some(in_force) = same(self.limiters.get(&id)) {
            self.staged.remove(&id);
            in_force
        } else if let Some(staged) = same(self.staged.get(&id)) {
            staged
        } else {
            let limiter = Arc::new(match self.limiters.get(&id) {
                Some((former, by)) if *by == parts => former.successor(bucket),
                // Counted by something else: these are other buckets.
                _ => Limiter::new(bucket, clock_us(Instant::now())),
            });
            self.staged.insert(id, (Arc::clone(&limiter), parts.clone()));
            limiter
        };
        Ok(Limit {
            limiter,
            key: parts,
            audit: limit.audit,
            name: rate_limit_fields::quoted(name),
            counters,
            problem: rate_limit_fields::problem(name),
        })
    }
}
