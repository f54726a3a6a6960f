//! How much of what a source has is held whole. Whoever may create objects could fill the operator's memory with them, up
//! to what etcd or a disk holds. So there is a bound on all of them together, which namespaces share: when it is reached,
//! the one that has most gives up what it can best do without, and of that only the name is held. What is given up comes
//! back when there is room again.
//!
//! Within a namespace the youngest goes first, and routes before what they need: no policy is given up while a route is
//! held that it may guard.
//!
//! Pure: no clock, nothing is read. What is decided for namespaces at one time and for good is `planner::share`; here
//! objects come one by one, and what is too much must go before the next one comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::{Object, Role};
use planner::{Kind, ObjectRef};
use serde_json::Value;

/// Most that is held, as [`weight`] has it: about what it comes to in memory. The chart gives an operator 512 MiB, and while
/// one plan follows another, a quarter more is held, beside the operator itself.
pub const MAX_HELD_BYTES: u64 = 224 << 20;
/// The bytes of an object however little it holds, in the maps of a world and of a plan.
const OBJECT_BYTES: u64 = 2 << 10;
/// The bytes of an object that has a status: the reason why it is held by its name only, and the status as it is
/// derived, waits, is written, and is there.
const OBJECT_WITH_STATUS_BYTES: u64 = 12 << 10;

/// The order in which objects are given up, the last first: kinds, then ages.
type Rank = (u8, i64);

/// The bytes that each namespace holds, within a bound.
#[derive(Debug)]
pub struct Budget<K> {
    most: u64,
    used: u64,
    items: BTreeMap<K, Item>,
    owners: BTreeMap<Arc<str>, Owner<K>>,
    /// Owners by what they have.
    by_use: BTreeSet<(u64, Arc<str>)>,
}

#[derive(Clone, Debug)]
struct Item {
    owner: Arc<str>,
    rank: Rank,
    /// The weight of its name.
    name: u64,
    weight: Weight,
    whole: bool,
}

/// The weight of an object's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weight {
    /// As it is now.
    pub now: u64,
    /// As it was before, if that may be in force: then both are held.
    pub before: u64,
}

impl Item {
    /// The present weight.
    fn held(&self) -> u64 {
        self.name + if self.whole { self.weight.now + self.weight.before } else { 0 }
    }
}

#[derive(Debug)]
struct Owner<K> {
    used: u64,
    whole: BTreeSet<(Rank, K)>,
    names: BTreeSet<(Rank, K)>,
}

impl<K> Default for Owner<K> {
    fn default() -> Self {
        Self { used: 0, whole: BTreeSet::new(), names: BTreeSet::new() }
    }
}

/// An object that is not held as it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Given<K> {
    /// By its name only.
    Name(K),
    /// Not at all: even the names of its namespace are too many.
    Nothing(K),
}

impl<K: Ord + Clone> Budget<K> {
    /// An empty budget of so much.
    pub fn new(most: u64) -> Self {
        Self { most, used: 0, items: BTreeMap::new(), owners: BTreeMap::new(), by_use: BTreeSet::new() }
    }

    /// The bound.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Whether as much again as there is would fit.
    pub fn is_half_free(&self) -> bool {
        self.used <= self.most / 2
    }

    /// Holds one from now on, in place of what it was before; gives back what is given up for it, which may be itself.
    pub fn hold(&mut self, key: &K, id: &ObjectRef, age: i64, weight: Weight) -> Vec<Given<K>> {
        self.remove(key);
        let owner: Arc<str> = owner(id).into();
        let item = Item { owner, rank: (rank(id.kind), age), name: name(id.kind), weight, whole: true };
        let closed = id.kind == Kind::ApiRoute && self.lacks_guards(&item.owner);
        let weight = Weight { before: if closed { 0 } else { weight.before }, ..weight };
        self.insert(key, Item { whole: !closed, weight, ..item });
        let mut given: Vec<_> = closed.then(|| Given::Name(key.clone())).into_iter().collect();
        given.extend(self.fit());
        given
    }

    /// Gives up what is too much.
    fn fit(&mut self) -> Vec<Given<K>> {
        let mut given = vec![];
        while self.used > self.most {
            let Some(less) = self.give_up() else { break };
            given.push(less);
        }
        given
    }

    /// Takes the end of an object.
    pub fn remove(&mut self, key: &K) {
        let Some(item) = self.items.remove(key) else { return };
        let entry = (item.rank, key.clone());
        self.change(&item.owner, |owner| {
            owner.whole.remove(&entry);
            owner.names.remove(&entry);
            owner.used -= item.held();
        });
        self.used -= item.held();
    }

    /// The weight of an object's contents as they are held.
    pub fn weight(&self, key: &K) -> Weight {
        self.items.get(key).filter(|item| item.whole).map_or(Weight::default(), |item| item.weight)
    }

    /// The weight of an object once it is held whole again.
    pub fn weight_again(&self, key: &K) -> u64 {
        self.items.get(key).map_or(0, |item| item.weight.now)
    }

    /// Holds the former content of an object beside the present one; returns the objects that are given up for that.
    pub fn beside(&mut self, key: &K, before: u64) -> Vec<Given<K>> {
        let is_other = |item: &&Item| item.whole && item.weight.before != before;
        let Some(item) = self.items.get(key).filter(is_other).cloned() else { return vec![] };
        self.remove(key);
        self.insert(key, Item { weight: Weight { before, ..item.weight }, ..item });
        self.fit()
    }

    /// Whether it is held whole.
    pub fn is_whole(&self, key: &K) -> bool {
        self.items.get(key).is_some_and(|item| item.whole)
    }

    /// Whether only its name is held.
    pub fn is_name(&self, key: &K) -> bool {
        self.items.get(key).is_some_and(|item| !item.whole)
    }

    /// The objects that there is room for again, of the namespace with the least first, so many at most: they are to be
    /// read, and then held. It takes nothing from anyone, so that nothing goes round in circles.
    pub fn returns(&self, at_most: usize) -> Vec<K> {
        let (mut free, mut found) = (self.most.saturating_sub(self.used), vec![]);
        for (_, name) in &self.by_use {
            let Some(owner) = self.owners.get(name) else { continue };
            for (rank, key) in owner.names.iter().take(at_most) {
                let more = self.items.get(key).map_or(0, |item| item.weight.now);
                if found.len() == at_most {
                    return found;
                }
                if more <= free {
                    free -= more;
                    found.push(key.clone());
                } else if rank.0 == GUARDS {
                    break; // what it guards waits for it
                }
            }
        }
        found
    }

    /// The numbers for messages: what a namespace has, what there is, and how many share it.
    pub fn numbers(&self, id: &ObjectRef) -> (u64, u64, usize) {
        (self.owners.get(owner(id)).map_or(0, |owner| owner.used), self.most, self.owners.len())
    }

    /// Whether a policy of a namespace is not held whole, so that it is not known what it guards.
    fn lacks_guards(&self, owner: &Arc<str>) -> bool {
        let names = self.owners.get(owner).map(|owner| &owner.names);
        // They are in the order of their ranks: behind the guards come thousands of routes.
        let first = names.and_then(|names| names.iter().find(|(rank, _)| rank.0 >= GUARDS));
        first.is_some_and(|(rank, _)| rank.0 == GUARDS)
    }

    /// Lets go of the last of whoever has most.
    fn give_up(&mut self) -> Option<Given<K>> {
        let (_, name) = self.by_use.last()?;
        let owner = self.owners.get(name)?;
        let (is_whole, (_, key)) = match (owner.whole.last(), owner.names.last()) {
            // Of what is small, little but its name would be given up, and more and more of what serves for new names.
            (Some(last), Some(name)) if is_needless(name) && self.is_small(&last.1) => (false, name.clone()),
            (Some(last), _) => (true, last.clone()),
            (None, name) => (false, name?.clone()),
        };
        if !is_whole {
            self.remove(&key);
            return Some(Given::Nothing(key));
        }
        let item = self.items.get(&key)?.clone();
        self.remove(&key);
        self.insert(&key, Item { whole: false, weight: Weight { before: 0, ..item.weight }, ..item });
        Some(Given::Name(key))
    }

    /// Whether an object's contents weigh less than its name.
    fn is_small(&self, key: &K) -> bool {
        self.items.get(key).is_some_and(|item| item.weight.now + item.weight.before < item.name)
    }

    fn insert(&mut self, key: &K, item: Item) {
        let (held, entry) = (item.held(), (item.rank, key.clone()));
        self.change(&item.owner, |owner| {
            owner.used += held;
            if item.whole {
                owner.whole.insert(entry)
            } else {
                owner.names.insert(entry)
            };
        });
        self.used += held;
        self.items.insert(key.clone(), item);
    }

    fn change(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Owner<K>)) {
        let owner = self.owners.entry(Arc::clone(name)).or_default();
        self.by_use.remove(&(owner.used, Arc::clone(name)));
        change(owner);
        if owner.whole.is_empty() && owner.names.is_empty() {
            self.owners.remove(name);
        } else {
            self.by_use.insert((owner.used, Arc::clone(name)));
        }
    }
}

/// The namespace that an object is of.
pub fn owner(id: &ObjectRef) -> &str {
    if id.kind == Kind::Namespace { &id.name } else { &id.namespace }
}

/// The rank of policies.
const GUARDS: u8 = Role::Guard as u8;

/// Whether nothing else depends on whether even the name is held.
fn is_needless<K>((rank, _): &(Rank, K)) -> bool {
    rank.0 > GUARDS
}

/// The rank of a kind: what others need goes last, a fleet, a permission, a policy, then backends, then routes.
fn rank(kind: Kind) -> u8 {
    kind.info().role as u8
}

/// The weight of an object's name, with all that is held of it beside its content.
pub fn name(kind: Kind) -> u64 {
    if kind.info().has_status { OBJECT_WITH_STATUS_BYTES } else { OBJECT_BYTES }
}

/// About what a document comes to in memory, once it is decoded, validated and compiled: each of its values costs
/// something, however short it is written. (A match of a route is `{}` in JSON.)
pub fn weight(document: &Value) -> u64 {
    // A route stands in the snapshot of each fleet that it names.
    let fleets =
        document.pointer("/spec/parentRefs").and_then(Value::as_array).map_or(1, |parents| parents.len().max(1));
    // Digests of credentials are remembered besides.
    let is_credential = document.pointer("/metadata/labels/sluice.dev~1credential").is_some();
    let copies = fleets as u64 * if is_credential { 2 } else { 1 };
    let mut weight = 0;
    let mut rest = vec![document];
    while let Some(value) = rest.pop() {
        weight += match value {
            Value::Object(members) => {
                rest.extend(members.values());
                192 + members.keys().map(|key| key.len() as u64).sum::<u64>()
            }
            Value::Array(items) => {
                rest.extend(items);
                64
            }
            Value::String(text) => 64 + 3 * text.len() as u64,
            Value::Null | Value::Bool(_) | Value::Number(_) => 16,
        };
    }
    weight * copies
}

/// Why only the name of an object is held.
pub fn message<K: Ord + Clone>(budget: &Budget<K>, id: &ObjectRef) -> String {
    let (used, most, sharers) = budget.numbers(id);
    let namespace = owner(id);
    format!(
        "the operator holds {} MiB of objects, which {sharers} namespaces share, and {namespace:?} has {} of them, more than \
         any other: only the name of this one is held; remove objects of this namespace, or make them smaller",
        most >> 20,
        used >> 20,
    )
}

/// The targets of a policy, as it was admitted or as it was written: they are held besides its name, so that what it
/// guards answers 500 rather than stand open.
pub fn targets_of(policy: Option<&Object>, written: Option<&Value>) -> Option<Value> {
    let admitted = match policy {
        Some(Object::RatePolicy(policy)) => serde_json::to_value(policy).ok(),
        Some(Object::AccessPolicy(policy)) => serde_json::to_value(policy).ok(),
        _ => None,
    };
    let document = admitted.as_ref().or(written)?;
    let target = |target: &Value| {
        let text = |key: &str| target.get(key).and_then(Value::as_str).filter(|text| text.len() <= 253);
        Some(serde_json::json!({"kind": text("kind")?, "name": text("name")?}))
    };
    let refs = document.pointer("/spec/targetRefs")?.as_array()?.iter().take(16).filter_map(target);
    Some(serde_json::json!({"spec": {"targetRefs": refs.collect::<Vec<_>>()}}))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const K: u64 = 1 << 10;

    fn id(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
        ObjectRef { kind, namespace: namespace.into(), name: name.into() }
    }

    fn route(namespace: &str, name: &str) -> ObjectRef {
        id(Kind::ApiRoute, namespace, name)
    }

    /// Holds one that weighs so many kilobytes, with its name, if that does not weigh more.
    fn hold(budget: &mut Budget<ObjectRef>, id: &ObjectRef, age: i64, weight: u64) -> Vec<String> {
        hold_beside(budget, id, age, (weight, 0))
    }

    fn hold_beside(budget: &mut Budget<ObjectRef>, id: &ObjectRef, age: i64, (now, before): (u64, u64)) -> Vec<String> {
        let weight = Weight { now: (now * K).saturating_sub(super::name(id.kind)), before: before * K };
        let name = |given: Given<ObjectRef>| match given {
            Given::Name(id) => id.name,
            Given::Nothing(id) => format!("{}!", id.name),
        };
        budget.hold(id, id, age, weight).into_iter().map(name).collect()
    }

    #[test]
    fn who_has_most_gives_up_its_youngest() {
        let mut budget = Budget::new(1000 * K);
        assert_eq!(hold(&mut budget, &route("crowd", "a"), 1, 300), [""; 0]);
        assert_eq!(hold(&mut budget, &route("crowd", "b"), 3, 300), [""; 0]);
        assert_eq!(hold(&mut budget, &route("crowd", "c"), 2, 300), [""; 0]);
        assert_eq!(hold(&mut budget, &route("shop", "x"), 9, 200), ["b"]);
        assert_eq!(hold(&mut budget, &route("crowd", "d"), 4, 300), ["d"]);
        assert_eq!(hold(&mut budget, &route("shop", "y"), 10, 150), [""; 0]);
        // What is there again goes back where there is room, the oldest first.
        assert_eq!(budget.returns(32), []);
        budget.remove(&route("crowd", "a"));
        assert_eq!(budget.returns(32), [route("crowd", "b")]);
        assert_eq!(hold(&mut budget, &route("crowd", "b"), 3, 300), [""; 0]);
        assert!(!budget.is_name(&route("crowd", "b")) && budget.is_name(&route("crowd", "d")));
        // All that is left of a namespace that is gone is nothing.
        for name in ["a", "b", "c", "d"] {
            budget.remove(&route("crowd", name));
        }
        assert_eq!((budget.used, budget.owners.len()), (350 * K, 1));
    }

    #[test]
    fn no_policy_is_given_up_while_a_route_is_held_that_it_may_guard() {
        let mut budget = Budget::new(1000 * K);
        let policy = |name: &str| id(Kind::RatePolicy, "ns", name);
        hold(&mut budget, &route("ns", "r"), 1, 300);
        assert_eq!(hold(&mut budget, &policy("p"), 2, 600), [""; 0]);
        assert_eq!(hold(&mut budget, &policy("q"), 3, 600), ["r", "q"]);
        // However small it is, and whatever room there is.
        assert_eq!(hold(&mut budget, &route("ns", "s"), 1, 20), ["s"]);
        assert_eq!(hold(&mut budget, &route("other", "s"), 1, 20), [""; 0]);
        assert_eq!(budget.returns(32), []);
        budget.remove(&policy("p"));
        assert_eq!(budget.returns(32)[0], policy("q"));
    }

    #[test]
    fn even_names_are_bounded() {
        let mut budget = Budget::new(100 * K);
        let given: Vec<_> = (0..20).flat_map(|i| hold(&mut budget, &route("ns", &format!("{i:02}")), i, 50)).collect();
        assert!(budget.used <= 100 * K && given.iter().any(|name| name.ends_with('!')), "{given:?}");
        assert_eq!(hold(&mut budget, &route("other", "x"), 99, 4).iter().filter(|name| *name == "x").count(), 0);
    }

    /// Or who has many would have names alone.
    #[test]
    fn small_ones_stay_whole_and_the_youngest_are_not_seen() {
        let mut budget = Budget::new(1000 * K);
        (0..200).for_each(|i| drop(hold(&mut budget, &route("ns", &format!("{i:03}")), i, 14)));
        let owner = &budget.owners["ns"];
        assert!(owner.whole.len() >= 69 && owner.names.len() <= 2, "{} {}", owner.whole.len(), owner.names.len());
        assert!(budget.is_whole(&route("ns", "000")) && budget.used <= budget.most);
    }

    #[test]
    fn what_is_in_force_counts_beside_what_is_there() {
        let mut budget = Budget::new(1000 * K);
        let (a, b) = (route("crowd", "a"), route("crowd", "b"));
        hold(&mut budget, &a, 1, 300);
        hold(&mut budget, &b, 2, 300);
        assert_eq!((budget.beside(&a, 300 * K), budget.used), (vec![], 900 * K));
        assert_eq!(budget.beside(&b, 300 * K), [Given::Name(b.clone())]);
        // Of what is held by its name nothing is in force, either; and it comes back as it is now.
        let name = super::name(Kind::ApiRoute);
        assert_eq!((budget.used, budget.weight(&b)), (600 * K + name, Weight::default()));
        assert_eq!(budget.returns(32), std::slice::from_ref(&b));
        assert_eq!(hold(&mut budget, &b, 2, 300), [""; 0]);
        assert_eq!((budget.beside(&a, 0), budget.used), (vec![], 600 * K));
    }

    #[test]
    fn what_is_short_in_json_is_not_light() {
        let matches = vec![serde_json::json!({}); 1024];
        assert!(weight(&serde_json::json!({ "matches": matches })) > 190_000);
        let policy =
            serde_json::json!({"spec": {"targetRefs": [{"kind": "ApiRoute", "name": "r", "sectionName": "x"}, 7]}});
        assert_eq!(
            targets_of(None, Some(&policy)).unwrap(),
            serde_json::json!({"spec": {"targetRefs": [{"kind": "ApiRoute", "name": "r"}]}})
        );
    }

    proptest! {
        #[test]
        fn fair(steps in proptest::collection::vec((0..4u8, 0..8u8, 0..5usize, 0..160u64, 0..80u64), 0..60)) {
            const KINDS: [Kind; 3] = [Kind::RatePolicy, Kind::Service, Kind::ApiRoute];
            let mut budget = Budget::new(400 * K);
            for (namespace, name, kind, weight, before) in steps {
                let id = id(KINDS[kind % 3], &namespace.to_string(), &name.to_string());
                if weight == 0 {
                    budget.remove(&id);
                } else {
                    hold_beside(&mut budget, &id, name.into(), (weight, before));
                }
                if before % 2 == 0 {
                    budget.beside(&id, before % 16 * K);
                }
                prop_assert!(budget.used <= budget.most);
                prop_assert_eq!(budget.used, budget.items.values().map(Item::held).sum::<u64>());
                prop_assert_eq!(budget.used, budget.owners.values().map(|owner| owner.used).sum::<u64>());
                for owner in budget.owners.values() {
                    let lacks = owner.names.iter().any(|(rank, _)| rank.0 == GUARDS);
                    prop_assert!(!lacks || !owner.whole.iter().any(|(rank, _)| rank.0 == 4), "a route stands without its guard");
                }
                // What returns is held, and drives out nothing.
                for id in budget.returns(32) {
                    let Some(item) = budget.items.get(&id).cloned() else { continue };
                    prop_assert_eq!(budget.hold(&id, &id, item.rank.1, item.weight), []);
                }
                prop_assert!(budget.used <= budget.most);
            }
            // In the end it is at rest: nothing goes round in circles.
            for _ in 0..64 {
                let returns = budget.returns(32);
                if returns.is_empty() {
                    return Ok(());
                }
                for id in returns {
                    let Some(item) = budget.items.get(&id).cloned() else { continue };
                    budget.hold(&id, &id, item.rank.1, item.weight);
                }
            }
            prop_assert!(false, "it never comes to rest: {budget:?}");
        }
    }
}
