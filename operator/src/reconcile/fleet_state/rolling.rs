//! How what is published reaches the proxies of a fleet: what `planner::rollout` decides, with the contents that it names.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use planner::{
    Millis, ProxyId,
    publish::Claims,
    rollout::{Care, Proxy, Rollout},
};
use snapshot::{Hash, Kind, Snapshot};

use super::FleetState;
use crate::push::{Offered, Published};

/// How far a fleet is.
#[derive(Default)]
pub struct Rolling {
    rollout: Rollout,
    /// The snapshot that was rolled out last.
    stable: Option<Arc<Published>>,
    /// The snapshot that is tried, or was last.
    tried: Option<Arc<Published>>,
    /// How often proxies are asked again for what they refuse.
    pub(super) again: u64,
    /// The last offer.
    offered: Option<Offered>,
}

impl FleetState {
    /// Moves on with what is published; gives back what proxies are to be offered, when that is something else.
    pub fn roll(&mut self, care: Care, now: Millis) -> Option<Offered> {
        let wanted = self.published.clone()?;
        self.refresh(&wanted);
        let care = self.care(care, &wanted);
        let proxies = self.rolled_to();
        self.rolling.rollout.step(wanted.revision, &proxies, care, now);
        let stable = self.rolling.rollout.stable();
        if self.rolling.stable.as_ref().map(|p| p.revision) != stable {
            let known = self.rolling.tried.iter().chain([&wanted]);
            let promoted = known.into_iter().find(|p| Some(p.revision) == stable).cloned();
            if let Some(promoted) = &promoted {
                tracing::info!(revision = %promoted.revision.short(), "rolled out");
                let claims = self.claims_of(promoted.revision);
                self.ledger.acknowledge(&promoted.snapshot, &claims);
            }
            self.rolling.stable = promoted;
        }
        let canaries = self.rolling.rollout.canaries().map(|(revision, canaries)| {
            (revision, canaries.into_iter().map(|id| id.name.clone()).collect::<BTreeSet<String>>())
        });
        if canaries.as_ref().is_some_and(|(revision, _)| *revision == wanted.revision) {
            self.rolling.tried = Some(wanted);
        }
        let tried = self.rolling.tried.clone();
        let canaries = canaries.and_then(|(revision, names)| Some((tried.filter(|p| p.revision == revision)?, names)));
        let offered = Offered { all: self.rolling.stable.clone(), canaries, again: self.rolling.again };
        (self.rolling.offered.as_ref() != Some(&offered)).then(|| {
            self.rolling.offered = Some(offered.clone());
            offered
        })
    }

    /// Why what is published is not rolled out.
    pub fn halted(&self) -> Option<&str> {
        self.rolling.rollout.halted(self.published.as_ref()?.revision)
    }

    /// The revision that all proxies get that are no canaries.
    pub fn stable(&self) -> Option<Hash> {
        self.rolling.stable.as_ref().map(|stable| stable.revision)
    }

    /// While a change is watched, endpoints that come and go reach all: in what is tried and in what runs.
    fn refresh(&mut self, wanted: &Arc<Published>) {
        let (Some(stable), Some(tried)) = (&self.rolling.stable, &self.rolling.tried) else { return };
        if !self.rolling.rollout.is_observing(tried.revision)
            || tried.revision == wanted.revision
            || !differs_in_clusters_alone(&tried.snapshot, &wanted.snapshot)
        {
            return;
        }
        let mut fresh = stable.snapshot.clone();
        for (key, entry) in wanted.snapshot.of_kind(Kind::Cluster) {
            if fresh.entry(key).is_some_and(|former| former != entry) {
                fresh.insert(key.clone(), entry.clone());
            }
        }
        let fresh = Arc::new(Published::from(fresh));
        self.rolling.rollout.renamed(fresh.revision, wanted.revision);
        (self.rolling.stable, self.rolling.tried) = (Some(fresh), Some(Arc::clone(wanted)));
    }

    /// Endpoints that come and go are no change to be watched.
    fn care(&self, care: Care, wanted: &Published) -> Care {
        if care.observe.is_zero() {
            return care;
        }
        let stable = self.rolling.stable.as_ref();
        match stable.is_none_or(|stable| differs_in_clusters_alone(&stable.snapshot, &wanted.snapshot)) {
            true => Care { observe: Duration::ZERO, ..care },
            false => care,
        }
    }

    /// Its living proxies, as a rollout sees them.
    fn rolled_to(&self) -> BTreeMap<ProxyId, Proxy> {
        let proxy = |(name, proxy): (&String, &crate::fleet::Proxy)| {
            let stream = self.stream(name);
            let draining = proxy.draining || stream.is_some_and(|a| a.draining);
            let proxy = Proxy {
                attached: stream.is_some(),
                process: stream.map(|a| a.pid),
                ready: stream.is_some_and(|a| a.ready) && !draining,
                draining,
                runs: stream.and_then(|a| a.taken),
                refuses: stream.is_some_and(|a| self.disagrees(a)),
                answers: self.answers.get(name).copied().unwrap_or_default(),
            };
            (self.id(name), proxy)
        };
        self.observation.proxies.iter().map(proxy).collect()
    }

    /// The refusals of those that took up a revision: none, if one of them takes it as it is.
    fn claims_of(&self, revision: Hash) -> Claims {
        let took = || self.attached.values().filter(|a| a.taken == Some(revision));
        match took().any(|a| a.claims.is_empty()) {
            true => Claims::new(),
            false => took().flat_map(|a| a.claims.clone()).collect(),
        }
    }
}

/// Whether two contents have the same but for clusters, which endpoints come to and go from.
fn differs_in_clusters_alone(a: &Snapshot, b: &Snapshot) -> bool {
    let [a, b] = [a, b].map(|snapshot| snapshot.iter().filter(|(key, _)| key.kind() != Kind::Cluster));
    a.eq(b)
}
