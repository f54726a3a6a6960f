//! The wanted and the live objects of all fleets, as one value that everything is decided from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use planner::{FleetPlan, FleetRef};
use snapshot::Hash;
use tokio::sync::Notify;

use super::{
    Settings, Wake,
    child_kind::{ChildId, ChildKind},
    labels,
    live_object::LiveObject,
    namespaces::Namespaces,
    pods::Pod,
    render::{self, Desired},
    replacement_budget::ReplacementBudget,
};
use crate::{
    fleet::{Problem, ProxyReport},
    kube::reapply::ReapplyBackoff,
};

/// The state that the tasks of the fleet share.
pub(super) struct Shared {
    pub(super) client: kube::Client,
    pub(super) settings: Settings,
    pub(super) wake: Wake,
    /// Something may be due.
    pub(super) changed: Notify,
    state: Mutex<Store>,
}

impl Shared {
    pub(super) fn new(client: kube::Client, settings: Settings, wake: Wake) -> Self {
        let state = Store::of(settings.namespaces.as_deref());
        Self { client, settings, wake, changed: Notify::new(), state: Mutex::new(state) }
    }

    /// For a moment: never across an await.
    pub(super) fn state(&self) -> MutexGuard<'_, Store> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed, for the keeper and for the loop.
    pub(super) fn notify(&self) {
        self.changed.notify_one();
        (self.wake)();
    }
}

/// The wanted fleets, and the live objects and pods.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) fleets: BTreeMap<FleetRef, Wanted>,
    pub(super) objects: BTreeMap<ChildId, LiveObject>,
    /// By namespace and name.
    pub(super) pods: BTreeMap<(String, String), Pod>,
    /// The newest version that the watch of each kind has brought; by namespace, where each has watches of its own.
    seen: BTreeMap<(ChildKind, String), u64>,
    namespaces: Namespaces,
}

/// A fleet as it should be, and how far that has come.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) plan: FleetPlan,
    pub(super) reports: BTreeMap<String, ProxyReport>,
    /// Empty: it is to be no more.
    pub(super) objects: BTreeMap<ChildKind, Arc<Desired>>,
    pub(super) tasks: BTreeMap<Task, Progress>,
    pub(super) replacements: ReplacementBudget,
}

/// Things that are done one at a time, each at its own pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Keep an object as it should be.
    Object(ChildKind),
    /// Set the Deployment's replicas.
    Replicas,
    /// Delete pods that are held back, so that others are made.
    Replacement,
    /// Delete everything.
    Removal,
}

/// How far one task has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Under way.
    pub(super) busy: bool,
    pub(super) applied: Option<Applied>,
    /// The replicas that were last set.
    pub(super) scaled: Option<u32>,
    pub(super) reapply: ReapplyBackoff,
    /// Why it failed.
    pub(super) problem: Option<Problem>,
}

/// Hashes of the content that was last applied, and of the object as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) desired: Hash,
    pub(super) fingerprint: Hash,
}

impl Store {
    /// An empty store of these namespaces, each of which has watches of its own; `None`: of all.
    pub(super) fn of(namespaces: Option<&BTreeSet<String>>) -> Self {
        Self { namespaces: Namespaces::new(namespaces), ..Self::default() }
    }

    /// Takes up a plan. True when something may be due by it.
    pub(super) fn want(
        &mut self,
        plan: &FleetPlan,
        reports: &BTreeMap<String, ProxyReport>,
        settings: &Settings,
    ) -> bool {
        if plan.spec.is_none() && !self.has_anything_of(&plan.fleet) {
            self.fleets.remove(&plan.fleet);
            return false;
        }
        let former = self.fleets.get_mut(&plan.fleet);
        if let Some(wanted) = former {
            wanted.reports.clone_from(reports);
            if wanted.plan == *plan {
                return false;
            }
            let only_replicas = FleetPlan { replicas: wanted.plan.replicas, ..plan.clone() } == wanted.plan;
            wanted.plan = plan.clone();
            if !only_replicas {
                wanted.render(settings);
            }
            return true;
        }
        let mut wanted = Wanted {
            plan: plan.clone(),
            reports: reports.clone(),
            objects: BTreeMap::new(),
            tasks: BTreeMap::new(),
            replacements: ReplacementBudget::default(),
        };
        wanted.render(settings);
        self.fleets.insert(plan.fleet.clone(), wanted);
        true
    }

    /// The certificates changed.
    pub(super) fn render_again(&mut self, settings: &Settings) {
        self.fleets.values_mut().for_each(|wanted| wanted.render(settings));
    }

    /// The live object, if any.
    pub(super) fn live(&self, child: ChildKind, fleet: &FleetRef) -> Option<&LiveObject> {
        self.objects.get(&ChildId::new(child, fleet))
    }

    /// The fleet's pods, by name.
    pub(super) fn pods_of<'a>(&'a self, fleet: &'a FleetRef) -> impl Iterator<Item = (&'a str, &'a Pod)> {
        let label = labels::value(&fleet.name);
        let of_namespace = self.pods.range((fleet.namespace.clone(), String::new())..);
        let of_namespace = of_namespace.take_while(|((namespace, _), _)| *namespace == fleet.namespace);
        of_namespace.filter(move |(_, pod)| pod.fleet == label).map(|((_, name), pod)| (name.as_str(), pod))
    }

    fn has_anything_of(&self, fleet: &FleetRef) -> bool {
        ChildKind::ALL.into_iter().any(|child| self.live(child, fleet).is_some())
            || self.pods_of(fleet).next().is_some()
    }

    /// Takes the whole list of a kind's objects, in one namespace or in all. Returns whether it differs from the known
    /// one.
    pub(super) fn listed(
        &mut self,
        child: ChildKind,
        namespace: Option<&str>,
        objects: Vec<(ChildId, LiveObject)>,
    ) -> bool {
        let newest = objects.iter().map(|(_, live)| live.version).max().unwrap_or_default();
        self.saw(child, namespace.unwrap_or_default(), newest);
        let objects: BTreeMap<ChildId, LiveObject> = objects.into_iter().collect();
        let is_listed = |id: &ChildId| id.child == child && namespace.is_none_or(|namespace| id.namespace == namespace);
        let known = self.objects.iter().filter(|(id, _)| is_listed(id));
        if known.eq(objects.iter()) {
            return false;
        }
        self.objects.retain(|id, _| !is_listed(id));
        self.objects.extend(objects);
        true
    }

    /// Takes the whole list of pods, in one namespace or in all. Returns whether it differs from the known one.
    pub(super) fn pods_listed(&mut self, namespace: Option<&str>, pods: Vec<((String, String), Pod)>) -> bool {
        let pods: BTreeMap<(String, String), Pod> = pods.into_iter().collect();
        let is_listed = |(of, _): &(String, String)| namespace.is_none_or(|namespace| of == namespace);
        if self.pods.iter().filter(|(id, _)| is_listed(id)).eq(pods.iter()) {
            return false;
        }
        self.pods.retain(|id, _| !is_listed(id));
        self.pods.extend(pods);
        true
    }

    /// Takes that a kind was listed in a namespace. Returns whether that was not known.
    pub(super) fn known(&mut self, namespace: &str, kind: &str) -> bool {
        self.namespaces.known(namespace, kind)
    }

    /// Takes that the operator may not watch a kind in a namespace, as the API server says; or that it may. Returns
    /// whether that is a change.
    pub(super) fn refused(&mut self, namespace: &str, kind: &str, said: Option<String>) -> bool {
        self.namespaces.refused(namespace, kind, said)
    }

    /// Whether what is not here of a namespace is not there.
    pub(super) fn is_known(&self, namespace: &str) -> bool {
        self.namespaces.is_known(namespace)
    }

    /// The kind that the operator may not watch in a namespace, and the API server's words.
    pub(super) fn refusal(&self, namespace: &str) -> Option<(&str, &str)> {
        self.namespaces.refusal(namespace)
    }

    /// Takes an object that the watch shows. Returns whether it was not known like this.
    pub(super) fn appeared(&mut self, id: ChildId, live: LiveObject) -> bool {
        self.saw_at(&id, live.version);
        // What an answer brought may be newer.
        if self.objects.get(&id).is_some_and(|known| known.uid == live.uid && known.version >= live.version) {
            return false;
        }
        self.objects.insert(id, live);
        true
    }

    /// Takes the end of an object, as the watch shows it. Returns whether it was known.
    pub(super) fn vanished(&mut self, id: &ChildId, last: &LiveObject) -> bool {
        self.saw_at(id, last.version);
        let is_it = self.objects.get(id).is_some_and(|known| known.uid == last.uid);
        is_it && self.objects.remove(id).is_some()
    }

    /// An answer of the API server brought an object. The watch may have shown it already, and its end after that.
    pub(super) fn answered(&mut self, id: ChildId, live: LiveObject) {
        let seen = self.seen.get(&(id.child, self.watch_of(&id).to_owned()));
        if seen.is_none_or(|seen| live.version > *seen) {
            self.objects.insert(id, live);
        }
    }

    /// The namespace of the watch that shows an object; empty: there is one watch for all.
    fn watch_of<'a>(&self, id: &'a ChildId) -> &'a str {
        if self.namespaces.are_all() { "" } else { &id.namespace }
    }

    fn saw_at(&mut self, id: &ChildId, version: u64) {
        self.saw(id.child, self.watch_of(id), version);
    }

    fn saw(&mut self, child: ChildKind, watch: &str, version: u64) {
        let seen = self.seen.entry((child, watch.to_owned())).or_default();
        *seen = version.max(*seen);
    }
}

impl Wanted {
    fn render(&mut self, settings: &Settings) {
        let ca = Arc::clone(&settings.ca.borrow());
        let mut rendered = render::render(&self.plan, settings, &ca);
        if rendered.is_empty() != self.objects.is_empty() {
            // It ends, or begins again: what went wrong with the other is of no interest.
            self.tasks.retain(|_, progress| progress.busy);
        }
        for child in ChildKind::ALL {
            let (former, new) = (self.objects.get(&child), rendered.remove(&child));
            match new {
                Some(new) if former.is_some_and(|former| former.hash == new.hash) => {}
                Some(new) => {
                    self.objects.insert(child, Arc::new(new));
                    // It may succeed now.
                    if let Some(progress) = self.tasks.get_mut(&Task::Object(child)) {
                        progress.reapply = ReapplyBackoff::default();
                    }
                }
                None => {
                    self.objects.remove(&child);
                }
            }
        }
    }

    /// When the next of its tasks may be tried again.
    pub(super) fn next_try(&self, now: Instant) -> Option<Instant> {
        self.tasks
            .values()
            .filter(|progress| !progress.busy)
            .filter_map(|p| p.reapply.until())
            .filter(|at| *at > now)
            .min()
    }
}

#[cfg(test)]
mod tests;
