//! The operator: the I/O around the pure planner.
//!
//! ```text
//!  source/ ──Event──► turn.rs: plan → fleet → publish → status
//!  push/ ───Event──►      │        │       │         ├─► status/ ──► STATE/status | API server
//!  fleet/ ──Event──►      │        │       │         └─► events.rs, news.rs ──► Kubernetes Events
//!  timer ───Event──►      │        │       └─► push/ ──► proxies
//!                         │        └─► fleet/process/ ──► processes, sockets | fleet/kube/ ──► pods, a Service, ...
//!                         └─► planner (pure)              state/: what outlives this process, in files | a ConfigMap
//!  lease.rs ──► lead.rs: who leads ──► turn/reign.rs      fence.rs: no write without the lease
//!  admin.rs ◄── view.rs: what the last turn came to
//! ```
//!
//! - [`event::Event`]: everything that can happen; [`turn::Operator`] takes it up.
//! - [`source`]: where objects come from. [`fleet::Fleet`]: what runs proxies. These two are what differs between one
//!   machine and a cluster.
//! - [`gateway::Gateway`]: what is known of one fleet while it runs.
//! - [`cli`]: the commands.

pub mod admin;
pub mod cli;
pub mod default_fleet;
pub mod edits;
pub mod event;
pub mod events;
pub mod fence;
pub mod fleet;
pub mod gateway;
pub mod identity;
mod kube;
pub mod lead;
pub mod lease;
pub mod load;
mod log;
pub mod metrics;
pub mod names;
pub mod news;
mod outage;
mod pace;
mod places;
pub mod push;
pub mod source;
pub mod state;
pub mod status;
pub mod turn;
pub mod view;
pub mod world;
