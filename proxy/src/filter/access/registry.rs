//! The access policies that live, across pushes: each is compiled once, whatever number of rules it holds for, and a push
//! resets none of what it counts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use limits::{Limiter, Table, TokenBucket};
use snapshot::{
    Hash, Key,
    check::Unfit,
    proto::{AccessPolicy, PolicyTarget},
};

use super::{
    Access, Policy,
    authentication::Authentication,
    authorization::Rules,
    counters::{Counters, Outcome, Outcomes, PolicyCounters},
    failures::{ADDRESSES, Failures},
    jwt::Tokens,
    refusal::Refusals,
};
use crate::{clock::clock_us, consumers::Consumers, filter::Filter};

/// The period that failures are counted in, in milliseconds.
const FAILURES_PER_MS: u64 = 60_000;

/// State of the access policies, across pushes.
pub struct AccessPolicies {
    /// Whom policies know.
    consumers: Arc<ArcSwap<Consumers>>,
    failures: Arc<Table>,
    tokens: Arc<Tokens>,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    policies: BTreeMap<Key, (Hash, Arc<Policy>)>,
    counters: BTreeMap<Counted, Arc<Counters>>,
    /// One that changes its number begins anew.
    failures: BTreeMap<Key, Arc<Limiter>>,
}

/// What is counted together: a policy, a provider of it (none: requests without a credential), and whether it is only
/// counted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Counted {
    pub(crate) policy: Key,
    pub(crate) provider: Option<String>,
    pub(crate) audit: bool,
}

impl Default for AccessPolicies {
    fn default() -> Self {
        Self {
            consumers: Arc::default(),
            failures: Arc::new(Table::new(ADDRESSES)),
            tokens: Arc::default(),
            live: Mutex::default(),
        }
    }
}

impl AccessPolicies {
    /// Compiles a policy, unless it is known.
    pub(crate) fn policy(&self, key: &Key, hash: Hash, policy: &AccessPolicy) -> Result<Arc<Policy>, Unfit> {
        let mut live = self.live();
        if let Some((_, known)) = live.policies.get(key).filter(|(known, _)| *known == hash) {
            return Ok(Arc::clone(known));
        }
        let authentication = policy.authentication.as_ref().map(|authentication| {
            let failures = live.failures(key, authentication.max_failures_per_minute);
            let failures = failures.map(|limiter| Failures::new(Arc::clone(&self.failures), limiter));
            let consumers = Arc::clone(&self.consumers);
            Authentication::compile(authentication, (hash, key.namespace()), consumers, &self.tokens, failures)
        });
        let authentication = authentication.transpose()?;
        let providers = policy.authentication.as_ref().map_or(&[][..], |authentication| &authentication.providers);
        let mut counters = |provider| live.counters(Counted { policy: key.clone(), provider, audit: policy.audit });
        let compiled = Arc::new(Policy {
            audit: policy.audit,
            secret: authentication.as_ref().map(Authentication::places).unwrap_or_default(),
            taken_out: authentication.as_ref().map(Authentication::taken_out).unwrap_or_default(),
            authentication,
            rules: Rules::compile(&policy.rules)?,
            refusals: Refusals::compile(providers)?,
            counters: PolicyCounters {
                nobody: counters(None),
                providers: providers.iter().map(|provider| counters(Some(provider.name.clone()))).collect(),
            },
        });
        live.policies.insert(key.clone(), (hash, Arc::clone(&compiled)));
        Ok(compiled)
    }

    /// The filter of a rule that these policies hold for; `None`: there are none.
    pub(crate) fn compile(
        &self,
        policies: &[(&Key, Hash, &AccessPolicy, &PolicyTarget)],
    ) -> Result<Option<Box<dyn Filter>>, Unfit> {
        let policies = policies.iter().map(|(key, hash, policy, _)| self.policy(key, *hash, policy));
        let policies: Box<[_]> = policies.collect::<Result<_, _>>()?;
        Ok((!policies.is_empty()).then(|| Box::new(Access { policies }) as Box<dyn Filter>))
    }

    /// Has policies know these consumers from now on, and no others.
    pub(crate) fn know(&self, consumers: Arc<Consumers>) {
        self.consumers.store(consumers);
    }

    /// Forgets policies that no rule has any more.
    pub(crate) fn forget_unused(&self) {
        let mut live = self.live();
        live.policies.retain(|_, (_, policy)| Arc::strong_count(policy) > 1);
        live.counters.retain(|_, counters| Arc::strong_count(counters) > 1);
        live.failures.retain(|_, limiter| Arc::strong_count(limiter) > 1);
    }

    /// Decisions since the process began, with the word of each outcome that came about.
    pub(crate) fn decisions(&self) -> Vec<(Counted, &'static str, u64)> {
        let live = self.live();
        let of = |(counted, counters): (&Counted, &Arc<Counters>)| {
            Outcome::ALL.map(|outcome| (counted.clone(), outcome.name(), Outcomes::sum(counters, outcome)))
        };
        live.counters.iter().flat_map(of).filter(|(.., count)| *count > 0).collect()
    }

    /// Requests that each policy decided, and how many it refused or would have.
    pub(crate) fn policy_counts(&self) -> BTreeMap<Key, (u64, u64)> {
        let live = self.live();
        let mut counts = BTreeMap::<_, (u64, u64)>::new();
        for (counted, counters) in &live.counters {
            let (checked, refused) = counts.entry(counted.policy.clone()).or_default();
            for outcome in Outcome::ALL {
                let count = Outcomes::sum(counters, outcome);
                *checked += count;
                *refused += if outcome == Outcome::Allowed { 0 } else { count };
            }
        }
        counts
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn counters(&mut self, counted: Counted) -> Arc<Counters> {
        Arc::clone(self.counters.entry(counted).or_default())
    }

    /// The limit of a policy's failures; `None`: any number.
    fn failures(&mut self, policy: &Key, per_minute: u32) -> Option<Arc<Limiter>> {
        if per_minute == 0 {
            return None;
        }
        let bucket = TokenBucket::new(per_minute.into(), FAILURES_PER_MS, per_minute.into());
        let known = self.failures.get(policy).filter(|limiter| *limiter.bucket() == bucket);
        let limiter = known.map_or_else(|| Arc::new(Limiter::new(bucket, clock_us(Instant::now()))), Arc::clone);
        self.failures.insert(policy.clone(), Arc::clone(&limiter));
        Some(limiter)
    }
}
