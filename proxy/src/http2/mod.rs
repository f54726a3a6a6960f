//! HTTP/2 from clients, on the `h2` crate, with what that leaves open: budgets for what is no request.
//!
//! ```text
//!  wire ⇄ flood_guard.rs ⇄ h2 ─► serve.rs: a task for each stream (stream, head, source, sender, respond) ─► exchange
//!           ├ frames.rs, frame_budget.rs: PING, SETTINGS, RST_STREAM, … against a budget; heads.rs: what HPACK makes of a few bytes
//!           ├ held.rs: what h2 holds of bodies and heads, against the worker's memory; how fast the client reads
//!           └ blocks.rs: trailers of which h2 has cut something off
//!  plain.rs: fields as they would be by HTTP/1.1
//! ```
//!
//! Bounded by `h2` itself: streams, a head's size and its CONTINUATIONs, small DATA frames, streams reset before they
//! are accepted.

pub(crate) mod blocks;
mod flood_guard;
mod frame_budget;
pub(crate) mod frames;
pub mod head;
pub(crate) mod heads;
pub(crate) mod held;
mod keep_alive;
pub(crate) mod plain;
mod respond;
mod sender;
pub(crate) mod serve;
mod source;
mod stream;
