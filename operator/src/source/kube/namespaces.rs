//! The namespaces whose Secrets are watched: those of Secrets that something refers to, each by a watch of its own, since the
//! operator has the right to read Secrets namespace by namespace. Where it has not, that namespace's Secrets are unknown,
//! and nothing else is: what only consumers refer to takes no place of others then.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
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
/// Most of consumers' that are watched though they may not be read, beside those: they take turns, whether somebody permits it
/// meanwhile.
const MAX_DENIED: usize = 16;

/// An order to begin or end a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    Begin(Arc<str>),
    End(Arc<str>),
    /// All but those of Secrets are to list anew.
    Anew,
}

type Names = BTreeSet<Arc<str>>;

/// Which are watched, and how far that is.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// Those that fleets refer to: their own, and others.
    of_fleets: [Names; 2],
    /// Those that consumers alone refer to.
    of_consumers: Names,
    watched: BTreeMap<Arc<str>, State>,
    /// Consumers' that may not be read and are not watched now; who waits longest comes first.
    denied: VecDeque<Arc<str>>,
    /// The namespaces beyond the bound.
    beyond: BTreeSet<String>,
    /// Whether others may have a place than have one.
    is_due: bool,
    /// Whether others may be unreadable than was told.
    is_news: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Failed,
    Listed,
    Denied(Denied),
}

/// How often it was denied, since it has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    Before,
    Once,
    /// A pause after an attempt was over then, so that turns are no faster than attempts.
    Again,
}

impl Namespaces {
    /// Takes the namespaces to be watched; `None`: they are the same. Of those that fleets refer to, their own have a place
    /// sooner than others; consumers' are beside them. What is watched keeps its place, unless it may not be read and is
    /// consumers'.
    pub(super) fn want(&mut self, wanted: Option<secrets::Namespaces<'_>>) -> Vec<Order> {
        if let Some(secrets::Namespaces { own, others, consumers }) = wanted {
            let names = |names: BTreeSet<&str>| names.into_iter().map(Arc::from).collect();
            self.of_fleets = [names(own), names(others)];
            self.of_consumers = names(consumers);
            self.is_due = true;
        }
        if !std::mem::take(&mut self.is_due) {
            return vec![];
        }
        self.is_news = true;
        let mut orders = vec![];
        let is_wanted = |name: &Arc<str>| self.is_of_fleets(name) || self.of_consumers.contains(name);
        let unwanted: Vec<_> = self.watched.keys().filter(|name| !is_wanted(name)).cloned().collect();
        unwanted.into_iter().for_each(|name| self.end(name, &mut orders));
        let of_consumers = &self.of_consumers;
        self.denied.retain(|name| of_consumers.contains(name));
        self.beyond.clear();
        let [own, others] = &self.of_fleets;
        let of_fleets: Vec<_> = own.iter().chain(others.difference(own)).cloned().collect();
        let taken = self.watched.keys().filter(|name| self.is_of_fleets(name)).count();
        self.begin(of_fleets, MAX_NAMESPACES.saturating_sub(taken), &mut orders);
        self.take_turns(&mut orders);
        let waiting: BTreeSet<&Arc<str>> = self.denied.iter().collect();
        let of_consumers = self.of_consumers.iter().filter(|name| !waiting.contains(name)).cloned().collect();
        let is_taken = |(name, state): &(&Arc<str>, &State)| {
            self.of_consumers.contains(*name) && !matches!(state, State::Denied(_))
        };
        let taken = self.watched.iter().filter(is_taken).count();
        self.begin(of_consumers, MAX_NAMESPACES.saturating_sub(taken), &mut orders);
        orders
    }

    /// Begins to watch those that are not watched, as far as there is room.
    fn begin(&mut self, names: Vec<Arc<str>>, mut room: usize, orders: &mut Vec<Order>) {
        for name in names.into_iter().filter(|name| !self.watched.contains_key(name)).collect::<Vec<_>>() {
            if room == 0 {
                self.beyond.insert(name.to_string());
                continue;
            }
            room -= 1;
            self.watched.insert(Arc::clone(&name), State::Asked);
            orders.push(Order::Begin(name));
        }
    }

    fn end(&mut self, name: Arc<str>, orders: &mut Vec<Order>) {
        self.watched.remove(&name);
        orders.push(Order::End(name));
    }

    /// Of consumers' namespaces that may not be read a few are watched, one after the other.
    fn take_turns(&mut self, orders: &mut Vec<Order>) {
        let denied = self.watched.iter().filter_map(|(name, state)| match state {
            State::Denied(denied) if self.of_consumers.contains(name) => Some((Arc::clone(name), *denied)),
            _ => None,
        });
        let (again, once): (Vec<_>, Vec<_>) = denied.partition(|(_, denied)| *denied == Denied::Again);
        let (mut count, mut waiting) = (again.len() + once.len(), self.denied.len());
        for (name, denied) in again.into_iter().chain(once) {
            let gives_way = denied == Denied::Again && waiting > 0;
            if count <= MAX_DENIED && !gives_way {
                continue;
            }
            (count, waiting) = (count - 1, waiting.saturating_sub(usize::from(gives_way)));
            self.denied.push_back(Arc::clone(&name));
            self.end(name, orders);
        }
        while count < MAX_DENIED
            && let Some(name) = self.denied.pop_front()
        {
            count += 1;
            self.watched.insert(Arc::clone(&name), State::Denied(Denied::Before));
            orders.push(Order::Begin(name));
        }
    }

    /// All Secrets of one were told.
    pub(super) fn listed(&mut self, namespace: &str) {
        self.set(namespace, State::Listed);
    }

    /// Takes a failure of a namespace's watch; `is_denied`: the operator lacks the right, until somebody grants it.
    pub(super) fn failing(&mut self, namespace: &str, is_denied: bool) {
        let state = match self.watched.get(namespace) {
            Some(State::Denied(Denied::Once | Denied::Again)) if is_denied => State::Denied(Denied::Again),
            Some(_) if is_denied => State::Denied(Denied::Once),
            Some(State::Asked) => State::Failed,
            _ => return,
        };
        self.set(namespace, state);
    }

    /// Sets the state of a namespace, unless its watch has ended meanwhile.
    fn set(&mut self, namespace: &str, state: State) {
        if let Some(known) = self.watched.get_mut(namespace)
            && *known != state
        {
            *known = state;
            (self.is_due, self.is_news) = (true, true);
        }
    }

    /// Whether one that fleets refer to is asked for the first time what there is; strictly: any of them, also when that
    /// failed before.
    pub(super) fn waits(&self, strictly: bool) -> bool {
        self.watched.iter().any(|(namespace, state)| match state {
            State::Asked => strictly || self.is_of_fleets(namespace),
            State::Failed => strictly,
            State::Listed | State::Denied(_) => false,
        })
    }

    fn is_of_fleets(&self, namespace: &str) -> bool {
        self.of_fleets.iter().any(|names| names.contains(namespace))
    }

    /// Whether [`Self::unreadable`] may be others than when this was asked last.
    pub(super) fn is_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// The namespaces whose Secrets can't be read.
    pub(super) fn unreadable(&self) -> BTreeMap<String, Unreadable> {
        let denied = self.watched.iter().filter(|(_, state)| matches!(state, State::Denied(_)));
        let denied = denied.map(|(namespace, _)| namespace).chain(&self.denied);
        denied
            .map(|namespace| (namespace.to_string(), Unreadable::Denied))
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
mod tests;
