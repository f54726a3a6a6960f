//! Rate limits as pure algorithms: no clock, no I/O; `now` is passed in. See `README.md` beside for properties and model.
//!
//! ```text
//!  Limiter::take(key, table, now) ─► bucket.rs  token bucket as GCRA: one u64 of state
//!        │ no key: one atomic of its own            ▲
//!        └ keyed:  table.rs  bounded, sharded ──────┘ keys as hashes of 96 bits (key.rs)
//! ```
//!
//! - [`TokenBucket`]: rate and burst, and what a request does to a bucket's state.
//! - [`Limiter`]: one limit with its state, for one key or for many.
//! - [`Table`]: the states of all keys of all limits, within bounds.

mod bucket;
mod key;
mod limiter;
mod table;

pub use bucket::{Decision, TokenBucket};
pub use key::{Key, KeyBuilder};
pub use limiter::{Limiter, Receipt};
pub use table::Table;
