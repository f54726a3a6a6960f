//! Keeps track of how the watches do: for readiness, and in the log.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

use super::{
    progress::{Progress, WatchState},
    reader::READS,
    resource::{Optional, optional, required, secrets},
    watch::Change,
    watch_error::{Cause, Failure, Outages},
};
use crate::admin::metrics;

/// How the watches do.
#[derive(Debug)]
pub(super) struct Health {
    progress: watch::Sender<Progress>,
    outages: Outages,
    /// Namespaces whose Secrets the operator may not read.
    denied: BTreeSet<Arc<str>>,
}

impl Health {
    pub(super) fn new(progress: watch::Sender<Progress>) -> Self {
        let all = || required().chain([secrets()]).chain(optional().iter().map(|optional| optional.watched));
        let definitions = || optional().iter().map(|optional| &optional.definition);
        let state = |optional| WatchState { optional, ..WatchState::default() };
        let watches = all().chain(definitions()).map(|watched| (watched.name, state(watched.optional))).collect();
        progress.send_replace(Progress { synced: false, watches });
        let health = Self { progress, outages: Outages::default(), denied: BTreeSet::new() };
        // Lists nothing that a world has.
        for definition in definitions() {
            health.update(definition.name, |state| state.listed = true);
        }
        // In each namespace by itself, once something refers to one.
        health.update(secrets().name, |state| state.listed = true);
        health.update(READS, |state| state.listed = true);
        for watched in all() {
            health.update(watched.name, |_| {}); // so that its metric is there
        }
        health
    }

    /// Whether there is nothing more to wait for before the first world.
    pub(super) fn is_listed(&self) -> bool {
        self.progress.borrow().watches.values().all(|state| state.listed)
    }

    /// Whether the first world was sent.
    pub(super) fn is_synced(&self) -> bool {
        self.progress.borrow().synced
    }

    /// The first world was sent.
    pub(super) fn synced(&self) {
        self.progress.send_if_modified(|progress| !std::mem::replace(&mut progress.synced, true));
    }

    /// Ends the wait for watches that the operator can do without.
    pub(super) fn without_optional(&self) {
        self.progress.send_if_modified(|progress| {
            let mut waiting: Vec<_> =
                progress.watches.values_mut().filter(|state| state.optional && !state.listed).collect();
            waiting.iter_mut().for_each(|state| state.listed = true);
            !waiting.is_empty()
        });
    }

    /// Takes note of what was told.
    pub(super) fn note(&mut self, change: &Change) {
        match change {
            Change::Listed(_, watch) | Change::Absent(_, watch) => {
                self.well(watch);
                self.update(watch, |state| state.listed = true);
            }
            Change::Well(watch) => self.well(watch),
            Change::ListedIn(namespace) => {
                if self.denied.remove(namespace) {
                    tracing::info!(%namespace, "Secrets of this namespace are read");
                }
                self.well(secrets().name);
            }
            // A fact about that namespace, which the fleets that refer to it tell.
            Change::FailingIn(namespace, Failure { cause: Cause::Forbidden, message }) => {
                if self.denied.insert(Arc::clone(namespace)) {
                    tracing::warn!(%namespace, "{message}; what was read before stays");
                }
            }
            Change::FailingIn(_, failure) => self.failing(secrets().name, failure),
            Change::Failing(watch, failure) => self.failing(watch, failure),
            Change::Began(_)
            | Change::BeganIn(_)
            | Change::Set(..)
            | Change::Seen(..)
            | Change::Read(..)
            | Change::Unread(..)
            | Change::Gone(_) => {}
        }
    }

    fn failing(&mut self, watch: &'static str, failure: &Failure) {
        let is_optional = self.progress.borrow().watches.get(watch).is_some_and(|state| state.optional);
        let is_changed = self.outages.begin(watch, failure);
        match failure.cause {
            // Its definition comes or goes at this moment.
            Cause::Missing if is_optional => {}
            _ if is_changed && is_optional => {
                tracing::warn!("{}; none that is not known already counts meanwhile", failure.message);
            }
            _ if is_changed => tracing::warn!("{}; what was known before stays in force", failure.message),
            _ => {}
        }
        self.update(watch, |state| state.failing = Some(failure.message.clone()));
        if is_optional && failure.cause == Cause::Forbidden {
            // It stays like that until somebody does something about it.
            let is_this = |optional: &&Optional| watch == optional.watched.name || watch == optional.definition.name;
            for optional in optional().iter().filter(is_this) {
                self.update(optional.watched.name, |state| state.listed = true);
            }
        }
    }

    fn well(&mut self, watch: &'static str) {
        let (was_failing, others_fail) = self.outages.end(watch);
        match (was_failing, others_fail) {
            (true, true) => tracing::info!("{watch}: works again"),
            (true, false) => tracing::info!("{watch}: works again; so does every other watch"),
            _ => {}
        }
        self.update(watch, |state| state.failing = None);
    }

    fn update(&self, watch: &'static str, change: impl FnOnce(&mut WatchState)) {
        self.progress.send_if_modified(|progress| {
            let state = progress.watches.entry(watch).or_default();
            let before = state.clone();
            change(state);
            metrics::get().watch_failing.with_label_values(&[watch]).set(i64::from(state.failing.is_some()));
            *state != before
        });
    }
}
