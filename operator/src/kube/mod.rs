//! The API server as every part of the operator meets it.
//!
//! - [`api`]: one request under a deadline, and the class of its error. [`backoff`]: the pause before the next attempt.
//! - [`watch`]: objects of which there are few, followed for ever. [`keyed_tasks`]: work on objects, so many at a time.
//! - [`outage`]: the log line of an API server that fails. [`reapply`]: when an object that others change is applied again.
//! - [`managers`]: which field manager changed what of an object. [`names`]: what the operator's own objects are called.
//!
//! # Why not kube's `Controller` and `reflector`
//!
//! A plan is made of the whole world, not object by object, so a queue of keys would lead nowhere; and sources watch raw
//! values, so that one object that can't be read ends no watch. `source/kube/watch_stream.rs` follows them by kube's watcher,
//! event by event, since a list of all objects of a cluster must not be held beside the world that is made of it; it takes
//! turns by page and tells outages. [`watch`] is for the rest, whose lists are short and count as a whole.
//!
//! What is written has a queue where it is decided, and each asks something else before it writes. A `Controller` asks
//! nothing: it calls a function for each key that changed, and 10,000 keys may be one namespace's. What they have in common
//! is here: tasks by key ([`keyed_tasks`]), pauses ([`backoff`]), and what becomes of a contested object ([`reapply`]).
//!
//! | work by key | what is due, and when | of its own |
//! |---|---|---|
//! | objects of a fleet (`fleet/kube`) | what is rendered and not so in a watch, as [`reapply`] permits | nothing is deleted while its GatewayFleet exists; nothing is concluded of what is not known |
//! | statuses (`status/queue.rs`) | what differs from what was written; later, if only numbers drifted | namespaces take turns; in an outage a few are tried each second, whichever are next |
//! | the default fleet (`default_fleet.rs`) | a manifest, a lease, a fleet that changed, as [`reapply`] permits | one object, which its ConfigMap must own |
//! | what outlives the process (`state`) | what differs from what was written | one object each; texts are made beside the loop |
//! | Secrets (`source/kube/reader.rs`) | one read for each version that something refers to | reads, until nobody refers to it |
//! | Events (`events/recorder.rs`) | each: none replaces another | dropped beyond a rate, never tried again |

pub(crate) mod api;
pub(crate) mod backoff;
pub(crate) mod keyed_tasks;
pub mod managers;
pub mod names;
pub mod not_leading;
pub(crate) mod outage;
pub(crate) mod reapply;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod watch;
