//! The objects of all watches, as one world. Pure: no clock, nothing is waited for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::{Role, Violation};
use planner::{Cluster, Kind, ObjectRef, Problem, Severity, problem::reason};
use serde_json::Value;
use snapshot::Hash;

use super::{
    super::{
        CreationMeta, InForce, Observed, SourceObject,
        budget::{self, Budget, Given, Weight},
    },
    flight::Flight,
    namespaces::{Namespaces, Order},
    prune,
    secrets::Secrets,
    watch::{Change, Content},
    watch_error::{Cause, Failure},
};

/// Largest Secret, as base64: far below the megabyte that it may have.
const MAX_SECRET_BYTES: usize = 256 << 10;
/// The share of former contents, which are held until a plan is made without them, in all that is held.
const FORMER_SHARE: u64 = 8;
/// Most that is read anew at one time.
const MAX_REREADS: usize = 32;

/// The objects of all watches.
#[derive(Debug)]
pub(super) struct Store {
    observed: Arc<Observed>,
    /// The kinds that are being told anew, and which of their objects were.
    lists: BTreeMap<Kind, BTreeSet<ObjectRef>>,
    secrets: Secrets,
    /// The namespaces whose Secrets are watched, and what is told anew of those.
    namespaces: Namespaces,
    secret_lists: BTreeMap<Arc<str>, BTreeSet<ObjectRef>>,
    budget: Budget<ObjectRef>,
    flight: Flight,
    /// The objects of which another content is in force than what they are now.
    stale: BTreeSet<ObjectRef>,
    /// The objects that are read anew, for there is room again; whether the watch brought them meanwhile.
    returning: BTreeMap<ObjectRef, bool>,
    /// Namespaces that have objects of which not even the name is held.
    unseen: BTreeSet<String>,
}

impl Store {
    /// An empty store of this cluster.
    pub(super) fn new(cluster: Cluster) -> Self {
        Self::within(budget::MAX_HELD_BYTES, cluster)
    }

    /// An empty store that holds no more than so much.
    pub(super) fn within(most: u64, cluster: Cluster) -> Self {
        let observed = Observed { cluster: Some(cluster), ..Observed::default() };
        Self {
            observed: Arc::new(observed),
            lists: BTreeMap::new(),
            secrets: Secrets::default(),
            namespaces: Namespaces::default(),
            secret_lists: BTreeMap::new(),
            budget: Budget::new(most),
            flight: Flight::new(most / FORMER_SHARE),
            stale: BTreeSet::new(),
            returning: BTreeMap::new(),
            unseen: BTreeSet::new(),
        }
    }

    /// Everything there is, to be sent as the next world.
    pub(super) fn next(&mut self) -> Arc<Observed> {
        Arc::make_mut(&mut self.observed).number += 1;
        self.observed()
    }

    /// Everything there is.
    pub(super) fn observed(&self) -> Arc<Observed> {
        Arc::clone(&self.observed)
    }

    /// Takes up what was told; whether it is news.
    pub(super) fn take(&mut self, change: Change) -> bool {
        match change {
            Change::Began(kind) => {
                self.lists.insert(kind, BTreeSet::new());
                false
            }
            Change::Set(id, value) => {
                self.listed(&id);
                if let Some(told) = self.returning.get_mut(&id) {
                    *told = true;
                }
                self.set(&id, value)
            }
            Change::BeganIn(namespace) => {
                self.secret_lists.insert(namespace, BTreeSet::new());
                false
            }
            Change::Seen(id, version) => {
                if let Some(list) = self.secret_lists.get_mut(id.namespace.as_str()) {
                    list.insert(id.clone());
                }
                self.secrets.see(id, version);
                false
            }
            // What was read may be older than what the watch told meanwhile.
            Change::Read(id, value) if id.kind != Kind::Secret => {
                let is_latest = self.returning.remove(&id) == Some(false);
                match value {
                    _ if !is_latest => false,
                    Some(value) => self.set(&id, value),
                    // It was deleted while its watch is cut off. Were its name held on, it would be read again at once.
                    None => self.remove(&id),
                }
            }
            Change::Read(id, value) => {
                self.returning.remove(&id);
                let parts = self.secrets.read(&id, false);
                match value.map(|content| prune::referred(content.value(), &parts)) {
                    Some(Some(referred)) => self.set(&id, referred.into()),
                    // It serves as nothing that it is referred to as: none of it is held.
                    Some(None) => self.drop(&id),
                    None => false,
                }
            }
            Change::Unread(id, _) if id.kind != Kind::Secret => false,
            Change::Unread(id, why) => !self.secrets.read(&id, true).is_empty() && self.unread(id, why),
            Change::Gone(id) => self.remove(&id),
            Change::Listed(kind, _) => {
                let told = self.lists.remove(&kind).unwrap_or_default();
                self.retain(kind, |id| told.contains(id))
            }
            Change::ListedIn(namespace) => {
                self.namespaces.listed(&namespace);
                let told = self.secret_lists.remove(&namespace).unwrap_or_default();
                let is_changed = self.remove_all(&self.secrets.of(&namespace, |id| !told.contains(id)));
                self.tell_unreadable() || is_changed
            }
            // What was read before stays.
            Change::FailingIn(namespace, Failure { cause, .. }) => {
                self.namespaces.failing(&namespace, cause == Cause::Forbidden);
                self.tell_unreadable()
            }
            Change::Absent(kind, _) => {
                self.lists.remove(&kind);
                self.retain(kind, |_| false)
            }
            Change::Failing(..) | Change::Well(_) => false,
        }
    }

    /// Takes the contents in force, and their references. Returns whether objects were given up for them.
    pub(super) fn in_force(&mut self, mut told: InForce) -> bool {
        let mut is_changed = false;
        for id in self.stale.difference(&told.stale) {
            self.budget.beside(id, 0);
        }
        self.stale = std::mem::take(&mut told.stale);
        for (id, weight) in self.flight.land(told.world) {
            let before = if self.stale.contains(&id) { weight.max(self.budget.weight(&id).before) } else { 0 };
            let given = self.budget.beside(&id, before);
            is_changed |= self.give(given, None);
        }
        self.secrets.in_force(told);
        is_changed
    }

    /// The watches that are to begin, to end or to list anew; and whether it is news which namespaces have none.
    pub(super) fn follow(&mut self) -> (Vec<Order>, bool) {
        let mut orders = self.namespaces.want(self.secrets.namespaces());
        for order in &orders {
            if let Order::End(namespace) = order {
                self.secret_lists.remove(namespace);
                self.secrets.forget(namespace);
            }
        }
        let mut is_changed = self.tell_unreadable();
        // What is not even known by its name can't be read again by it.
        if !self.unseen.is_empty() && self.lists.is_empty() && self.budget.is_half_free() {
            self.unseen.clear();
            self.tell_unseen();
            orders.push(Order::Anew);
            is_changed = true;
        }
        (orders, is_changed)
    }

    /// Puts the namespaces whose Secrets can't be read into the world. Returns whether they changed.
    fn tell_unreadable(&mut self) -> bool {
        if !self.namespaces.is_news() {
            return false;
        }
        let unreadable = self.namespaces.unreadable();
        if self.observed.cluster.as_ref().is_none_or(|cluster| cluster.unreadable == unreadable) {
            return false;
        }
        if let Some(cluster) = &mut Arc::make_mut(&mut self.observed).cluster {
            cluster.unreadable = unreadable;
        }
        true
    }

    /// The objects to be read now: Secrets, and those that there is room for again. What nothing refers to any more is
    /// forgotten: no world needs to be told so.
    pub(super) fn begin_reads(&mut self) -> Vec<ObjectRef> {
        let (mut read, forget) = self.secrets.due();
        for id in &forget {
            self.drop(id);
        }
        // One that can't be read holds up no other.
        let more = MAX_REREADS.saturating_sub(self.returning.len());
        if more > 0 && self.lists.is_empty() {
            let mut returns = self.flight.due(MAX_REREADS);
            returns.retain(|id| !self.returning.contains_key(id));
            if returns.is_empty() {
                returns = self.budget.returns(MAX_REREADS);
                returns.retain(|id| !self.returning.contains_key(id) && !self.flight.is_full(id));
            }
            returns.truncate(more);
            self.returning.extend(returns.iter().map(|id| (id.clone(), false)));
            read.extend(returns);
        }
        read
    }

    /// Whether a Secret is being read for the first time, or looked for; strictly: also when that failed before.
    pub(super) fn waits(&self, strictly: bool) -> bool {
        self.secrets.waits(strictly) || self.namespaces.waits(strictly)
    }

    /// Whether objects are held as they were, until what changed before is planned.
    pub(super) fn is_behind(&self) -> bool {
        self.flight.is_behind()
    }

    fn listed(&mut self, id: &ObjectRef) {
        if let Some(list) = self.lists.get_mut(&id.kind) {
            list.insert(id.clone());
        }
    }

    /// A Secret that can't be read stays what it was; one that never was is broken.
    fn unread(&mut self, id: ObjectRef, why: String) -> bool {
        if self.observed.objects.contains_key(&id) {
            return false;
        }
        let (content, current) = (Hash::of(why.as_bytes()), Err(vec![Violation { path: "data".into(), message: why }]));
        let object = SourceObject { current, raw: None, generation: 1, content, origin: None, creation: None };
        Arc::make_mut(&mut self.observed).objects.insert(id, object);
        true
    }

    fn set(&mut self, id: &ObjectRef, content: Content) -> bool {
        // What is kept of an object is its content: a status, or an annotation, is no news.
        let (hash, length) = (Hash::of(content.text().as_bytes()), content.text().len());
        let known = self.observed.objects.get(id);
        let is_known = known.is_some_and(|known| known.content == hash);
        let was_name = self.budget.is_name(id);
        if is_known && !was_name {
            self.flight.take_up(id);
            return false;
        }
        if self.flight.is_full(id) {
            self.flight.put_off(id);
            return false;
        }
        self.flight.take_up(id);
        let value = content.value();
        drop(content);
        let (generation, creation) = (generation(&value, known), creation(&value));
        let age = creation.as_ref().map_or(i64::MAX, |creation| creation.created.as_millisecond());
        let Weight { now: left, before } = self.budget.weight(id);
        self.left(id, left);
        let given = self.budget.hold(id, id, age, Weight { now: budget::weight(&value), before });
        let fits = self.budget.is_whole(id);
        let is_changed = self.give(given, Some(id));
        if !fits && !self.budget.is_name(id) {
            return is_changed; // not even its name is held
        }
        if is_known && !fits {
            return is_changed;
        }
        // Of others nothing is read from it, and a Secret would be seen wherever this is printed.
        let raw = (id.kind.info().role == Role::Guard).then(|| value.clone());
        let current = match id.kind {
            _ if !fits => Err(vec![]),
            Kind::Secret if length > MAX_SECRET_BYTES => Err(vec![too_large(&value, length)]),
            _ => crds::admit(value).map(Arc::new),
        };
        let raw = raw.filter(|_| current.is_err()).map(Arc::new);
        if id.kind.info().refers {
            // A fleet that may not run where it is refers to nothing.
            let runs = id.kind != Kind::GatewayFleet
                || self.observed.cluster.as_ref().is_none_or(|cluster| cluster.runs_fleets_in(&id.namespace));
            self.secrets.refer(id, current.as_deref().ok().filter(|_| runs), self.observed.number + 1);
        }
        let object = SourceObject { current, raw, generation, content: hash, origin: None, creation };
        let observed = Arc::make_mut(&mut self.observed);
        observed.objects.insert(id.clone(), object);
        observed.left_out.remove(id);
        if !fits {
            self.leave_out(id);
        }
        true
    }

    /// Gives up what there is no room for, for an object that is being taken up. Returns whether that changes the
    /// world.
    fn give(&mut self, given: Vec<Given<ObjectRef>>, taken_up: Option<&ObjectRef>) -> bool {
        let mut is_changed = false;
        for less in given {
            match less {
                Given::Name(id) if Some(&id) == taken_up => {}
                Given::Name(id) => {
                    self.left(&id, self.budget.weight_again(&id));
                    self.leave_out(&id);
                    is_changed = true;
                }
                Given::Nothing(id) => is_changed |= self.forget(&id),
            }
        }
        is_changed
    }

    /// Counts the former content of an object, which worlds have until one without it is planned.
    fn left(&mut self, id: &ObjectRef, weight: u64) {
        if self.observed.number > 0 {
            self.flight.leave(id, self.observed.number + 1, weight);
        }
    }

    /// Leaves of an object its name, and of a policy what it guards.
    fn leave_out(&mut self, id: &ObjectRef) {
        let message = budget::message(&self.budget, id);
        let observed = Arc::make_mut(&mut self.observed);
        let Some(object) = observed.objects.get_mut(id) else { return };
        tracing::debug!(object = %id, message, "left out");
        let targets = budget::targets_of(object.current.as_deref().ok(), object.raw.as_deref());
        object.raw = targets.map(Arc::new);
        object.current = Err(vec![Violation { path: String::new(), message }]);
        observed.left_out.insert(id.clone());
        if id.kind.info().refers {
            self.secrets.refer(id, None, self.observed.number + 1);
        }
    }

    /// Takes an object whose very name is too much. Returns whether that changes the world.
    fn forget(&mut self, id: &ObjectRef) -> bool {
        tracing::debug!(object = %id, "there are so many objects in its namespace that not even its name is held");
        let was_held = self.drop(id);
        let is_changed = self.unseen.insert(budget::owner(id).to_owned());
        if is_changed {
            self.tell_unseen();
        }
        was_held || is_changed
    }

    /// Which namespaces have objects that are not seen, as a part of the world: no status can say it.
    fn tell_unseen(&mut self) {
        let problem = |namespace: &String| Problem {
            object: None,
            origin: None,
            field: String::new(),
            reason: reason::TOO_LARGE,
            message: format!(
                "namespace {namespace:?} has so many objects that the operator does not even hold their names: some are not \
                 seen at all; remove some"
            ),
            severity: Severity::Rejected,
        };
        Arc::make_mut(&mut self.observed).document_problems = self.unseen.iter().map(problem).collect();
    }

    /// Holds nothing of it any more; whether anything was.
    fn drop(&mut self, id: &ObjectRef) -> bool {
        self.left(id, self.budget.weight(id).now);
        self.budget.remove(id);
        self.returning.remove(id);
        self.flight.take_up(id);
        if !self.observed.objects.contains_key(id) {
            return false;
        }
        let observed = Arc::make_mut(&mut self.observed);
        observed.left_out.remove(id);
        observed.objects.remove(id).is_some()
    }

    fn remove(&mut self, id: &ObjectRef) -> bool {
        match id.kind {
            Kind::Secret => self.secrets.lose(id),
            kind if kind.info().refers => self.secrets.refer(id, None, self.observed.number + 1),
            _ => {}
        }
        self.drop(id)
    }

    /// Removes the objects of a kind that are not to stay.
    fn retain(&mut self, kind: Kind, stays: impl Fn(&ObjectRef) -> bool) -> bool {
        let first = ObjectRef { kind, namespace: String::new(), name: String::new() };
        let of_kind = self.observed.objects.range(first..).map(|(id, _)| id).take_while(|id| id.kind == kind);
        let gone: Vec<ObjectRef> = of_kind.filter(|id| !stays(id)).cloned().collect();
        self.remove_all(&gone)
    }

    fn remove_all<'i>(&mut self, gone: impl IntoIterator<Item = &'i ObjectRef>) -> bool {
        let mut is_changed = false;
        for id in gone {
            is_changed |= self.remove(id);
        }
        is_changed
    }
}

fn too_large(secret: &Value, size: usize) -> Violation {
    let (what, fix) = match secret["type"] == "kubernetes.io/tls" {
        true => ("tls.crt and tls.key have", "leave out certificates that the chain does not need"),
        false => ("it has", "keep credentials in a Secret of their own"),
    };
    let message = format!("{what} {} KiB, at most {} are read: {fix}", size >> 10, MAX_SECRET_BYTES >> 10);
    Violation { path: "data".into(), message }
}

/// `metadata.generation` where it counts changes of the spec; else counted here.
fn generation(value: &Value, known: Option<&SourceObject>) -> i64 {
    let written = value.pointer("/metadata/generation").and_then(Value::as_i64);
    written.unwrap_or_else(|| known.map_or(1, |known| known.generation + 1))
}

fn creation(value: &Value) -> Option<CreationMeta> {
    let uid = value.pointer("/metadata/uid")?.as_str()?.into();
    let created = value.pointer("/metadata/creationTimestamp")?.as_str()?.parse().ok()?;
    Some(CreationMeta { uid, created })
}
