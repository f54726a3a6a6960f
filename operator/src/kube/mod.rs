//! The API server as every part of the operator meets it.
//!
//! - [`api`]: one request under a deadline, and the class of its error. [`backoff`]: the pause before the next attempt.
//! - [`outage`]: the log line of an API server that fails. [`reapply`]: when an object that others change is applied again.
//! - [`managers`]: which field manager changed what of an object. [`names`]: what the operator's own objects are called.
//!
//! kube's `Controller` and `reflector` are not used. A plan is made of the whole world, not object by object, so a queue of
//! keys would lead nowhere; sources watch raw values, so that one object that can't be read ends no watch; and jobs of a
//! fleet know what a generic reconciler does not: which objects others contest, and that nothing is deleted while its
//! GatewayFleet exists. Watches are followed in three places, which share the back-off alone: `source/kube/watch_stream.rs`
//! takes turns by page and tells outages, `fleet/kube/watch.rs` tells which namespaces may not be read, and
//! `default_fleet.rs` follows one object.

pub(crate) mod api;
pub(crate) mod backoff;
pub mod managers;
pub mod names;
pub mod not_leading;
pub(crate) mod outage;
pub(crate) mod reapply;
