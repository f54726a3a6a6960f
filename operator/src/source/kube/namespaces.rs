//! The namespaces whose Secrets are watched: those of Secrets that something refers to, each by a watch of its own, since the
//! operator has the right to read Secrets namespace by namespace. Where it has not, that namespace's Secrets are unknown,
//! and nothing else is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::Client;
use planner::Unreadable;
use tokio::task::{AbortHandle, JoinSet};

use super::{
    secrets,
    watch::{self, Changes},
};

/// Most that are watched for fleets, and most that are for consumers alone: each is a watch of its own.
const MAX_NAMESPACES: usize = 256;

/// An order to begin or end a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    Begin(Arc<str>),
    End(Arc<str>),
    /// All but those of Secrets are to list anew.
    Anew,
}

/// Which are watched, and how far that is.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    watched: BTreeMap<Arc<str>, State>,
    /// Those of them that fleets refer to.
    of_fleets: BTreeSet<Arc<str>>,
    /// The namespaces beyond the bound.
    beyond: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Failed,
    Listed,
    Denied,
}

impl Namespaces {
    /// Takes the namespaces to be watched: of those that fleets refer to, their own sooner than others; consumers' beside
    /// them. What is watched keeps its place.
    pub(super) fn want(&mut self, wanted: &secrets::Namespaces<'_>) -> Vec<Order> {
        let secrets::Namespaces { own, others, consumers } = wanted;
        let is_of_fleets = |namespace: &str| own.contains(namespace) || others.contains(namespace);
        let is_wanted = |namespace: &str| is_of_fleets(namespace) || consumers.contains(namespace);
        let end: Vec<_> = self.watched.keys().filter(|namespace| !is_wanted(namespace)).cloned().collect();
        for namespace in &end {
            self.watched.remove(namespace);
        }
        let mut orders: Vec<_> = end.into_iter().map(Order::End).collect();
        self.beyond.clear();
        let of_fleets = self.watched.keys().filter(|namespace| is_of_fleets(namespace)).count();
        let mut room =
            [of_fleets, self.watched.len() - of_fleets].map(|watched| MAX_NAMESPACES.saturating_sub(watched));
        for namespace in own.iter().chain(others.difference(own)).chain(consumers) {
            if self.watched.contains_key(*namespace) {
                continue;
            }
            let room = &mut room[usize::from(!is_of_fleets(namespace))];
            if *room == 0 {
                self.beyond.insert((*namespace).to_owned());
                continue;
            }
            *room -= 1;
            let namespace: Arc<str> = (*namespace).into();
            self.watched.insert(Arc::clone(&namespace), State::Asked);
            orders.push(Order::Begin(namespace));
        }
        self.of_fleets = self.watched.keys().filter(|namespace| is_of_fleets(namespace)).cloned().collect();
        orders
    }

    /// All Secrets of one were told.
    pub(super) fn listed(&mut self, namespace: &str) {
        self.set(namespace, State::Listed);
    }

    /// Takes a failure of a namespace's watch; `is_denied`: the operator lacks the right, until somebody grants it.
    pub(super) fn failing(&mut self, namespace: &str, is_denied: bool) {
        let state = match self.watched.get(namespace) {
            _ if is_denied => State::Denied,
            Some(State::Asked) => State::Failed,
            Some(state) => *state,
            None => return,
        };
        self.set(namespace, state);
    }

    /// Sets the state of a namespace, unless its watch has ended meanwhile.
    fn set(&mut self, namespace: &str, state: State) {
        if let Some(known) = self.watched.get_mut(namespace) {
            *known = state;
        }
    }

    /// Whether one that fleets refer to is asked for the first time what there is; strictly: any of them, also when that
    /// failed before.
    pub(super) fn waits(&self, strictly: bool) -> bool {
        self.watched.iter().any(|(namespace, state)| match state {
            State::Asked => strictly || self.of_fleets.contains(namespace),
            State::Failed => strictly,
            State::Listed | State::Denied => false,
        })
    }

    /// The namespaces whose Secrets can't be read.
    pub(super) fn unreadable(&self) -> BTreeMap<String, Unreadable> {
        let denied = self.watched.iter().filter(|(_, state)| **state == State::Denied);
        let denied = denied.map(|(namespace, _)| (namespace.to_string(), Unreadable::Denied));
        denied
            .chain(self.beyond.iter().map(|namespace| (namespace.clone(), Unreadable::TooMany(MAX_NAMESPACES))))
            .collect()
    }
}

/// The watches. They end with it.
pub(super) struct Watches {
    client: Client,
    changes: Changes,
    tasks: JoinSet<()>,
    handles: BTreeMap<Arc<str>, AbortHandle>,
}

impl Watches {
    pub(super) fn new(client: Client, changes: Changes) -> Self {
        Self { client, changes, tasks: JoinSet::new(), handles: BTreeMap::new() }
    }

    pub(super) fn obey(&mut self, order: Order) {
        while self.tasks.try_join_next().is_some() {}
        match order {
            Order::Begin(namespace) => {
                let watch = watch::secrets(self.client.clone(), Arc::clone(&namespace), self.changes.clone());
                self.handles.insert(namespace, self.tasks.spawn(watch));
            }
            Order::End(namespace) => {
                if let Some(handle) = self.handles.remove(&namespace) {
                    handle.abort();
                }
            }
            Order::Anew => {} // not one of these
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fleets refer to.
    fn of_fleets<'a>(own: &[&'a str], others: &[&'a str]) -> secrets::Namespaces<'a> {
        let set = |names: &[&'a str]| names.iter().copied().collect();
        secrets::Namespaces { own: set(own), others: set(others), ..secrets::Namespaces::default() }
    }

    fn begin(namespace: &str) -> Order {
        Order::Begin(namespace.into())
    }

    #[test]
    fn what_is_referred_to_is_watched() {
        let mut namespaces = Namespaces::default();
        assert_eq!(namespaces.want(&of_fleets(&["shop"], &["shop", "vault"])), [begin("shop"), begin("vault")]);
        assert_eq!(namespaces.want(&of_fleets(&["shop"], &["vault"])), []);
        namespaces.listed("shop");
        assert!(namespaces.waits(false));
        namespaces.failing("vault", false);
        assert!(namespaces.waits(true) && !namespaces.waits(false));
        namespaces.failing("vault", true);
        assert!(!namespaces.waits(true), "what is denied is not waited for");
        assert_eq!(namespaces.unreadable(), [("vault".to_owned(), Unreadable::Denied)].into());
        namespaces.listed("vault");
        assert_eq!(namespaces.unreadable(), BTreeMap::new());
        assert_eq!(namespaces.want(&of_fleets(&["shop"], &[])), [Order::End("vault".into())]);
        namespaces.failing("vault", true);
        assert_eq!(namespaces.unreadable(), BTreeMap::new(), "said by a watch that has ended");
    }

    /// Whoever can make fleets could refer to Secrets of each namespace there is.
    #[test]
    fn what_was_watched_before_keeps_its_place() {
        let many: Vec<String> = (0..2 * MAX_NAMESPACES).map(|i| format!("n{i:03}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut namespaces = Namespaces::default();
        namespaces.want(&of_fleets(&["zebra"], &[]));
        assert_eq!(namespaces.want(&of_fleets(&["own", "zebra"], &many)).len(), MAX_NAMESPACES - 1);
        let unreadable = namespaces.unreadable();
        assert_eq!(unreadable.len(), MAX_NAMESPACES + 2);
        assert!(!unreadable.contains_key("zebra") && !unreadable.contains_key("own"));
        assert!(unreadable.values().all(|why| *why == Unreadable::TooMany(MAX_NAMESPACES)));
        // When others leave, those that waited have their places.
        assert_eq!(namespaces.want(&of_fleets(&["own", "zebra"], &["n511"])).last(), Some(&begin("n511")));
        assert_eq!(namespaces.unreadable(), BTreeMap::new());
    }

    /// Consumers are in thousands of namespaces: they take no place of a fleet's certificates.
    #[test]
    fn consumers_have_places_of_their_own() {
        let many: Vec<String> = (0..2 * MAX_NAMESPACES).map(|i| format!("n{i:03}")).collect();
        let consumers: BTreeSet<&str> = many.iter().map(String::as_str).collect();
        let mut namespaces = Namespaces::default();
        let mut wanted = secrets::Namespaces { consumers, ..secrets::Namespaces::default() };
        assert_eq!(namespaces.want(&wanted).len(), MAX_NAMESPACES);
        assert!(namespaces.waits(true) && !namespaces.waits(false), "they hold nobody's worlds up");
        wanted.own.insert("shop");
        wanted.others.insert("vault");
        assert_eq!(namespaces.want(&wanted), [begin("shop"), begin("vault")]);
        assert_eq!(namespaces.unreadable().len(), MAX_NAMESPACES);
    }
}
