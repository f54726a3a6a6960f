//! Secrets. A cluster may have thousands, with the keys of everybody, of which fleets and consumers refer to a few: so in
//! the namespaces that they refer to (namespaces.rs) only names and versions are watched, and only what one refers to is
//! read, and held for as long as it does.
//!
//! An object refers by what it is now and by what is in force of it, which differ while it is broken. The former this finds
//! out itself, so that a world is not sent before what it refers to is read; the latter it is told by the loop. Between
//! them there is a time: what an object was a moment ago may come into force by a plan that is under way. So what one
//! dropped is held until the loop has planned the world that says so.
//!
//! Whether an object may refer to a Secret of another namespace is for the planner to say, once it is to be served.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::Object;
use planner::{Kind, ObjectRef, references};

use crate::source::InForce;

/// Which Secrets there are, and which are read.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// Each that there is, with its version.
    seen: BTreeMap<ObjectRef, Arc<str>>,
    /// The Secrets that each object refers to as it is now.
    referring: BTreeMap<ObjectRef, BTreeSet<ObjectRef>>,
    in_force: BTreeSet<ObjectRef>,
    /// The Secrets that objects referred to before, by the number of the world in which they do no more.
    dropped: BTreeMap<u64, BTreeSet<ObjectRef>>,
    /// Each that was asked for.
    copies: BTreeMap<ObjectRef, Copy>,
    /// Whether there may be more, or less, to be read than was said last.
    is_due: bool,
}

/// The namespaces of what is referred to.
#[derive(Debug, Default)]
pub(super) struct Namespaces<'a> {
    /// Those that have a fleet which refers to something.
    pub(super) own: BTreeSet<&'a str>,
    /// Others that fleets refer to.
    pub(super) others: BTreeSet<&'a str>,
    /// Those that only consumers refer to, each to its own.
    pub(super) consumers: BTreeSet<&'a str>,
}

/// How far the content of one is.
#[derive(Debug)]
struct Copy {
    /// The version that was there when it was asked for: what comes is that or a later one.
    version: Arc<str>,
    state: State,
    /// Whether the Secret is being read.
    busy: bool,
    /// Whether others wait for it: a fleet refers to it, or what is in force.
    holds_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Asked,
    Failed,
    Read,
}

impl Secrets {
    /// Takes a Secret that a watch shows.
    pub(super) fn see(&mut self, id: ObjectRef, version: Arc<str>) {
        self.is_due = true;
        self.seen.insert(id, version);
    }

    /// Takes the end of a Secret.
    pub(super) fn lose(&mut self, id: &ObjectRef) {
        self.is_due = true;
        self.seen.remove(id);
        self.copies.remove(id);
    }

    /// The Secrets of a namespace for which the predicate holds.
    pub(super) fn of(&self, namespace: &str, holds: impl Fn(&ObjectRef) -> bool) -> Vec<ObjectRef> {
        let first = ObjectRef { kind: Kind::Secret, namespace: namespace.to_owned(), name: String::new() };
        let of_namespace = self.seen.range(first..).map(|(id, _)| id).take_while(|id| id.namespace == namespace);
        of_namespace.filter(|id| holds(id)).cloned().collect()
    }

    /// Forgets a namespace that is watched no more.
    pub(super) fn forget(&mut self, namespace: &str) {
        for id in self.of(namespace, |_| true) {
            self.seen.remove(&id);
        }
    }

    /// The namespaces of what is referred to.
    pub(super) fn namespaces(&self) -> Namespaces<'_> {
        let fleets: BTreeSet<&str> =
            self.referring.keys().filter(|id| id.kind == Kind::GatewayFleet).map(|id| id.namespace.as_str()).collect();
        let mut found = Namespaces::default();
        let (of_fleets, of_others) =
            self.referring.iter().partition::<Vec<_>, _>(|(id, _)| id.kind == Kind::GatewayFleet);
        let (of_fleets, of_others) = (named(of_fleets), named(of_others));
        for namespace in self.wanted().into_iter().map(|id| id.namespace.as_str()) {
            let is_only_of_others = of_others.contains(namespace) && !of_fleets.contains(namespace);
            let list = match (is_only_of_others, fleets.contains(namespace)) {
                (true, _) => &mut found.consumers,
                (false, true) => &mut found.own,
                (false, false) => &mut found.others,
            };
            list.insert(namespace);
        }
        found
    }

    /// An object is this in the world of this number, the next; `None`: it is no more. What can't be read of it refers to
    /// nothing.
    pub(super) fn refer(&mut self, id: &ObjectRef, content: Option<&Object>, world: u64) {
        self.is_due = true;
        let former = match content {
            Some(content) => self.referring.insert(id.clone(), references::secrets(id, content).into_iter().collect()),
            None => self.referring.remove(id),
        };
        // Before the first world is sent nobody knows a former version of the object, and that world waits for every Secret
        // that is held: what it dropped until then need not be held for anyone.
        if let Some(former) = former.filter(|former| world > 1 && !former.is_empty()) {
            self.dropped.entry(world).or_default().extend(former);
        }
    }

    /// Takes the references of the contents in force, after the world of this number was planned.
    pub(super) fn in_force(&mut self, InForce { world, secrets, .. }: InForce) {
        self.is_due = true;
        self.in_force = secrets;
        self.dropped.retain(|by, _| *by > world);
    }

    fn wanted(&self) -> BTreeSet<&ObjectRef> {
        self.referring.values().chain(self.dropped.values()).flatten().chain(&self.in_force).collect()
    }

    /// The Secrets to be read now, and those not to be held any longer. What is to be read counts as being read from
    /// then on.
    pub(super) fn due(&mut self) -> (Vec<ObjectRef>, Vec<ObjectRef>) {
        if !std::mem::take(&mut self.is_due) {
            return (vec![], vec![]);
        }
        let wanted = self.wanted();
        let forget: Vec<_> = self.copies.keys().filter(|id| !wanted.contains(id)).cloned().collect();
        let is_due = |id: &ObjectRef, version: &Arc<str>| {
            self.copies.get(id).is_none_or(|copy| !copy.busy && copy.version != *version)
        };
        let there = wanted.into_iter().filter_map(|id| self.seen.get_key_value(id));
        let read: Vec<_> = there
            .filter(|(id, version)| is_due(id, version))
            .map(|(id, version)| (id.clone(), Arc::clone(version)))
            .collect();
        for id in &forget {
            self.copies.remove(id);
        }
        for (id, version) in &read {
            let state = self.copies.get(id).map_or(State::Asked, |copy| copy.state);
            self.copies.insert(id.clone(), Copy { version: Arc::clone(version), state, busy: true, holds_up: true });
        }
        let (of_fleets, of_tenants) =
            self.referring.iter().partition::<Vec<_>, _>(|(by, _)| by.kind == Kind::GatewayFleet);
        let (of_fleets, of_tenants) = (all(of_fleets), all(of_tenants));
        for (id, copy) in self.copies.iter_mut().filter(|(_, copy)| copy.state == State::Asked) {
            copy.holds_up = of_fleets.contains(id) || !of_tenants.contains(id);
        }
        (read.into_iter().map(|(id, _)| id).collect(), forget)
    }

    /// Takes a Secret that was read, or could not be and is tried again; returns whether it is still referred to.
    pub(super) fn read(&mut self, id: &ObjectRef, failed: bool) -> bool {
        let Some(copy) = self.copies.get_mut(id) else { return false };
        self.is_due = true;
        copy.busy = failed;
        copy.state = match (failed, copy.state) {
            (true, State::Asked) => State::Failed,
            (true, state) => state,
            (false, _) => State::Read,
        };
        true
    }

    /// Whether a read is under way that was not answered yet, but for what tenants alone refer to, who hold nobody's worlds
    /// up. Strictly: any read that did not succeed yet, so that the first world lacks nothing.
    pub(super) fn waits(&self, strictly: bool) -> bool {
        self.copies.values().any(|copy| match copy.state {
            State::Asked => strictly || copy.holds_up,
            State::Failed => strictly,
            State::Read => false,
        })
    }
}

/// The Secrets that these objects refer to.
fn all<'a>(referring: Vec<(&ObjectRef, &'a BTreeSet<ObjectRef>)>) -> BTreeSet<&'a ObjectRef> {
    referring.into_iter().flat_map(|(_, secrets)| secrets).collect()
}

/// The namespaces of the Secrets that these objects refer to.
fn named<'a>(referring: Vec<(&ObjectRef, &'a BTreeSet<ObjectRef>)>) -> BTreeSet<&'a str> {
    referring.into_iter().flat_map(|(_, secrets)| secrets).map(|id| id.namespace.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::state::objects::ObjectRecord;

    fn secret(name: &str) -> ObjectRef {
        ObjectRef { kind: Kind::Secret, namespace: "shop".into(), name: name.into() }
    }

    fn fleet(name: &str) -> ObjectRef {
        ObjectRef { kind: Kind::GatewayFleet, namespace: "shop".into(), name: name.into() }
    }

    fn told(world: u64, names: &[&str]) -> InForce {
        InForce { world, secrets: names.iter().map(|name| secret(name)).collect(), ..InForce::default() }
    }

    fn names(ids: &[ObjectRef]) -> Vec<&str> {
        ids.iter().map(|id| id.name.as_str()).collect()
    }

    /// What is to be read, and what is to be forgotten.
    #[track_caller]
    fn due(secrets: &mut Secrets, read: &[&str], forget: &[&str]) {
        let (to_read, to_forget) = secrets.due();
        assert_eq!((names(&to_read), names(&to_forget)), (read.to_vec(), forget.to_vec()));
    }

    #[test]
    fn what_a_fleet_refers_to_is_read_once_for_each_version() {
        let mut secrets = Secrets::default();
        secrets.see(secret("a"), "1".into());
        secrets.see(secret("b"), "1".into());
        due(&mut secrets, &[], &[]);
        secrets.in_force(told(1, &["a", "missing"]));
        due(&mut secrets, &["a"], &[]);
        due(&mut secrets, &[], &[]);
        assert!(secrets.waits(false));
        // It changes while it is read: what comes may be older.
        secrets.see(secret("a"), "2".into());
        due(&mut secrets, &[], &[]);
        assert!(secrets.read(&secret("a"), false) && !secrets.waits(true));
        due(&mut secrets, &["a"], &[]);
        assert!(!secrets.waits(true), "there is one to go on with");
        assert!(secrets.read(&secret("a"), false));
        due(&mut secrets, &[], &[]);
        // The one that is missing comes, another is let go.
        secrets.see(secret("missing"), "9".into());
        secrets.in_force(told(1, &["missing"]));
        due(&mut secrets, &["missing"], &["a"]);
        assert!(!secrets.read(&secret("a"), false), "nobody wants it any more");
    }

    /// What a consumer refers to is waited for by nobody else, unless a fleet does, too.
    #[test]
    fn what_tenants_refer_to_holds_nobody_up() {
        let consumer = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "Consumer",
            "metadata": {"name": "c", "namespace": "shop"},
            "spec": {"credentials": [{"type": "APIKey", "secretRef": {"name": "a"}}]}});
        let id = ObjectRef { kind: Kind::Consumer, namespace: "shop".into(), name: "c".into() };
        let mut secrets = Secrets::default();
        secrets.see(secret("a"), "1".into());
        secrets.refer(&id, Some(&crds::admit(consumer).unwrap()), 2);
        due(&mut secrets, &["a"], &[]);
        assert!(secrets.waits(true) && !secrets.waits(false));
        secrets.refer(&fleet("f"), Some(&manifest(&json!([{"name": "a"}]))), 3);
        due(&mut secrets, &[], &[]);
        assert!(secrets.waits(false));
    }

    #[test]
    fn what_can_not_be_read_holds_up_the_first_world_alone() {
        let mut secrets = Secrets::default();
        secrets.see(secret("a"), "1".into());
        secrets.in_force(told(1, &["a"]));
        due(&mut secrets, &["a"], &[]);
        assert!(secrets.read(&secret("a"), true));
        assert!(secrets.waits(true) && !secrets.waits(false));
        due(&mut secrets, &[], &[]);
        secrets.see(secret("a"), "2".into());
        due(&mut secrets, &[], &[]); // it is tried again as it is
        secrets.lose(&secret("a"));
        assert!(!secrets.waits(true) && !secrets.read(&secret("a"), false));
        due(&mut secrets, &[], &[]);
    }

    /// Fleet `shop/f`, which refers to these.
    fn manifest(refers: &Value) -> Object {
        let listener = json!({"name": "a", "protocol": "HTTPS", "port": 443, "tls": {"certificateRefs": refers}});
        let metadata = json!({"name": "f", "namespace": "shop"});
        let spec = json!({"listeners": [listener]});
        let object =
            json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "GatewayFleet", "metadata": metadata, "spec": spec});
        crds::admit(object).unwrap()
    }

    #[test]
    fn what_a_fleet_dropped_is_held_until_that_is_planned() {
        let mut secrets = Secrets::default();
        secrets.see(secret("a"), "1".into());
        // What it refers to before the first world is told is nothing to anybody.
        secrets.refer(&fleet("f"), Some(&manifest(&json!([{"name": "a"}]))), 1);
        due(&mut secrets, &["a"], &[]);
        secrets.refer(&fleet("f"), None, 1);
        due(&mut secrets, &[], &["a"]);
        secrets.refer(&fleet("f"), Some(&manifest(&json!([{"name": "a"}]))), 1);
        due(&mut secrets, &["a"], &[]);
        // The next world drops it, while the one before is planned, or waits for that.
        secrets.refer(&fleet("f"), None, 2);
        due(&mut secrets, &[], &[]);
        secrets.in_force(InForce::default());
        due(&mut secrets, &[], &[]);
        secrets.in_force(told(1, &["a"]));
        due(&mut secrets, &[], &[]);
        // By now it is known what the fleet falls back to.
        secrets.in_force(told(2, &["a"]));
        due(&mut secrets, &[], &[]);
        secrets.in_force(told(2, &[]));
        due(&mut secrets, &[], &["a"]);
    }

    #[test]
    fn a_fleet_refers_by_what_it_is_and_by_what_is_in_force_of_it() {
        let current = manifest(&json!([{"name": "a"}, {"name": "b", "namespace": "other"}]));
        let mut secrets = Secrets::default();
        secrets.refer(&fleet("f"), Some(&current), 1);
        let accepted = Some(Arc::new(manifest(&json!([{"name": "c"}]))));
        let (content, created) = (snapshot::Hash::of(b""), jiff::Timestamp::UNIX_EPOCH);
        let known = ObjectRecord { generation: 1, content, created, accepted, accepted_at: None, gone: None };
        let known = crate::source::in_force::secrets(&[(fleet("f"), known)].into());
        secrets.in_force(InForce { world: 1, secrets: known, ..InForce::default() });
        let wanted: Vec<_> = secrets.wanted().into_iter().map(ToString::to_string).collect();
        assert_eq!(wanted, ["Secret other/b", "Secret shop/a", "Secret shop/c"]);
        // What it is now can't be read.
        secrets.refer(&fleet("f"), None, 1);
        let wanted: Vec<_> = secrets.wanted().into_iter().map(ToString::to_string).collect();
        assert_eq!(wanted, ["Secret shop/c"]);
    }
}
