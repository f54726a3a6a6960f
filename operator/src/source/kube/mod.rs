//! An API server as source: watches of everything that a plan is made of, in all namespaces; of Secrets only in those where
//! something refers to them.
//!
//! ```text
//!  watch_stream.rs: a watch, outages and all          raw.rs: objects as they come
//!    ▲      └► lists.rs: a page in turn        secrets.rs, reader.rs: those that are read one by one
//!    │                                         resource.rs: what is watched; prune.rs: what is kept of it
//!  watch.rs: one of each resource ─────┐
//!  namespaces.rs: Secrets, in each ────┤
//!  optional.rs: kinds, while their ────┴─Change─► collect ─► store.rs ─Event::WorldChanged─► the loop
//!    definitions are there                          │          └► crds::admit
//!                                                   └► health.rs, watch_error.rs ─► progress.rs, the log
//! ```
//!
//! # Use
//!
//! ```ignore
//! let (progress, ready) = source::kube::progress();
//! let (certificates, in_force) = watch::channel(None);
//! tokio::spawn(source::kube::run(client, lists, cluster, events, progress, in_force));
//! // readyz: `ready.borrow().synced`; its `Display` says which watch is waited for, and why.
//! ```
//!
//! The client should be made of a configuration that went through [`patient`]: without it an API server that takes a
//! request and never answers is waited for forever, and one that refuses it for now is asked again for minutes, unseen.
//!
//! # How it behaves
//!
//! - The first world is sent when every required watch has listed, and ReferenceGrants have, if there are any. Each world
//!   is whole. A change is sent at once; of many, what they come to every 20 ms.
//! - Only what plans are made of is kept (prune.rs), and only a change of that is news: a status is not.
//! - All that is kept is bounded, and shared between namespaces (../budget.rs): beyond that only names are. What was left
//!   out is read again, one by one, when there is room. So is what changes faster than it is planned (flight.rs).
//! - An object that is not admitted is there as broken. Nothing in an object ends a watch.
//! - A watch that falls behind or whose connection is lost lists anew or goes on; meanwhile everything stays as it was.
//!
//! # What it needs to be allowed
//!
//! | group | resources | verbs |
//! |---|---|---|
//! | `sluice.dev` | `gatewayfleets`, `apiroutes`, `ratepolicies`, `accesspolicies`, `consumers` | `list`, `watch` |
//! | (core) | `services`, `namespaces`, `nodes` | `list`, `watch` |
//! | (core) | `secrets`, where something refers to them | `list`, `watch` |
//! | `discovery.k8s.io` | `endpointslices` | `list`, `watch` |
//! | `gateway.networking.k8s.io` | `referencegrants` | `list`, `watch` |
//! | `apiextensions.k8s.io` | `customresourcedefinitions`, name `referencegrants.gateway.networking.k8s.io` | `list`, `watch` |
//!
//! Of Secrets only the names are asked for, and the content of those that something refers to; RBAC can't express that. A
//! namespace where it may not read them is a fact about that namespace: what refers to its Secrets says so, with the Role
//! that permits it; what was read before stays, and it is tried again.

mod flight;
mod health;
mod lists;
mod namespaces;
mod optional;
mod progress;
mod prune;
mod raw;
mod reader;
mod resource;
mod secrets;
mod store;
mod watch;
mod watch_error;
mod watch_stream;

use std::time::Duration;

use planner::{Cluster, ObjectRef};
use tokio::{
    sync::{mpsc, watch as channel},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use self::{
    health::Health,
    namespaces::{Order, Watches},
    reader::Reader,
    store::Store,
    watch::{Change, Changes},
};
use super::{FollowInForce, Latest};
use crate::reconcile::event::Event;

pub use lists::Lists;
pub use progress::{Progress, WatchState, progress};
pub(crate) use raw::Raw;

/// Least time between two worlds. The loop takes up no more either.
const MIN_INTERVAL: Duration = Duration::from_millis(20);
/// Most changes that wait to be taken up, and are taken up at once: the watches wait with what is more. Each may be an
/// object of 1.5 MiB.
const QUEUE_LEN: usize = 16;
/// The wait for optional watches before the first world.
const OPTIONAL_TIMEOUT: Duration = Duration::from_secs(10);
/// A Secret that is referred to anew holds a world back for no longer than this, or the first reconciliation of a leader. Usually it
/// is there in milliseconds.
pub(crate) const SECRET_READ_TIMEOUT: Duration = Duration::from_secs(2);
/// An API server that is silent for this long is not there. A watch is never silent for as long: it ends after 60 s, and
/// begins again. (A list is given up sooner: watch_stream.rs.)
const SILENCE_TIMEOUT: Duration = Duration::from_secs(90);

/// A configuration of a client that does not wait forever for an API server that is silent, and sends what it is told once.
pub fn patient(mut config: kube::Config) -> kube::Config {
    config.read_timeout = Some(SILENCE_TIMEOUT);
    config.reset_reader_on_write = true;
    // kube would send a request that got 429, 503 or 504 fifteen times more, in pauses of up to minutes, beneath whoever
    // sent it: a write without asking the fence again, of what was to be written then; a read past the end of the outage.
    // Everything here tries again by itself, and what it then sends is of that moment.
    config.default_retry = false;
    config
}

/// Sends what the API server has whenever that changes, until the receiver is gone. The first time only when every
/// required watch has listed, it is known what is in force, and every Secret that is referred to is read. That it returns
/// while the receiver is there is a fault of ours: the operator should end.
pub async fn run(
    client: kube::Client,
    lists: Lists,
    cluster: Cluster,
    events: mpsc::Sender<Event>,
    progress: channel::Sender<Progress>,
    in_force: FollowInForce,
) {
    let (sender, changes) = mpsc::channel(QUEUE_LEN);
    let (anew, told_anew) = channel::channel(());
    let sender = Changes::new(sender, lists, told_anew);
    let mut watches = JoinSet::new();
    for watched in resource::required() {
        watches.spawn(watch::watch(client.clone(), watched, watched.versions[0], sender.clone()));
    }
    let reader = Reader::new(client.clone(), sender.clone());
    let mut secrets = Watches::new(client.clone(), sender.clone());
    for optional in resource::optional() {
        watches.spawn(optional::follow(client.clone(), optional, sender.clone()));
    }
    drop(sender);
    let read = |id| reader.read(id);
    let follow = |order| match order {
        Order::Anew => _ = anew.send(()),
        order => secrets.obey(order),
    };
    tokio::select! {
        () = collect(Store::new(cluster), changes, &events, progress, in_force, read, follow) => {}
        ended = watches.join_next() => {
            if let Some(Err(error)) = ended {
                tracing::error!(%error, "a watch of the API server failed");
            }
        }
    }
}

/// Makes worlds of what the watches tell.
async fn collect(
    mut store: Store,
    mut changes: mpsc::Receiver<Change>,
    events: &mpsc::Sender<Event>,
    progress: channel::Sender<Progress>,
    mut in_force: FollowInForce,
    read: impl Fn(ObjectRef),
    mut follow: impl FnMut(Order),
) {
    let (mut health, latest) = (Health::new(progress), Latest::default());
    let mut batch = Vec::with_capacity(QUEUE_LEN);
    // That there is nothing is news too, at first.
    let (mut is_changed, mut due) = (true, Instant::now());
    let mut grace = Box::pin(sleep(OPTIONAL_TIMEOUT));
    // Until what is in force refers to is known, and while a Secret is read.
    let (mut is_known, mut held_until) = (false, None);
    in_force.mark_changed();
    loop {
        let (orders, is_told) = store.follow();
        orders.into_iter().for_each(&mut follow);
        is_changed |= is_told;
        store.begin_reads().into_iter().for_each(&read);
        let is_first = !health.is_synced();
        let is_whole = !store.waits(is_first);
        let is_ready = is_changed && health.is_listed() && is_known && (is_whole || !is_first);
        let at = match is_ready && !is_whole {
            true => due.max(*held_until.get_or_insert_with(|| Instant::now() + SECRET_READ_TIMEOUT)),
            false => due,
        };
        tokio::select! {
            biased;
            () = events.closed() => return,
            Ok(()) = in_force.changed() => {
                if let Some(told) = in_force.borrow_and_update().clone() {
                    is_changed |= store.in_force(told);
                    is_known = true;
                }
            }
            () = sleep_until(at), if is_ready => {
                if latest.put(store.next()) && events.send(Event::WorldChanged(latest.clone())).await.is_err() {
                    return;
                }
                health.synced();
                (is_changed, due, held_until) = (false, Instant::now() + MIN_INTERVAL, None);
            }
            () = &mut grace, if !grace.is_elapsed() => health.without_optional(),
            count = changes.recv_many(&mut batch, QUEUE_LEN) => {
                if count == 0 {
                    return;
                }
                let told = std::mem::replace(&mut batch, Vec::with_capacity(QUEUE_LEN));
                // Objects are checked one by one: heavy, when there are many.
                let take = tokio::task::spawn_blocking(move || {
                    let mut is_changed = false;
                    for change in &told {
                        health.note(change);
                    }
                    for change in told {
                        is_changed |= store.take(change);
                    }
                    (store, health, is_changed)
                });
                let Ok((taken, noted, changed)) = take.await else {
                    // A bug of ours that this very content brings out.
                    tracing::error!("taking up what the API server told failed; it is not followed any more");
                    return;
                };
                (store, health) = (taken, noted);
                is_changed |= changed;
            }
        }
    }
}

#[cfg(test)]
mod tests;
