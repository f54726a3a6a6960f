//! The operator: the I/O around the pure planner.
//!
//! ```text
//!  source/ ──Event──► reconcile/: plan → fleet → publish → status
//!  push/ ───Event──►      │         │       │         ├─► status/ ──► STATE/status | API server
//!  fleet/ ──Event──►      │         │       │         └─► events/ ──► Kubernetes Events
//!  timer ───Event──►      │         │       └─► push/ ──► proxies
//!                         │         └─► fleet/process/ ──► processes, sockets | fleet/kube/ ──► pods, a Service, ...
//!                         └─► planner (pure)              state/: what outlives this process, in files | a ConfigMap
//!  leader/: lease.rs ──► election.rs ──► reconcile/leadership.rs     leader/fencing.rs: no write without the lease
//!  admin/ ◄── admin/view.rs: what the last reconciliation came to
//! ```
//!
//! - [`reconcile`]: the control loop; [`reconcile::event::Event`]: everything that can happen;
//!   [`reconcile::fleet_state`]: what is known of one fleet while it runs.
//! - [`source`]: where objects come from. [`fleet::Fleet`]: what runs proxies. These two are what differs between one
//!   machine and a cluster.
//! - [`leader`]: which of several operators leads. [`push`]: what proxies are sent. [`identity`]: how they prove themselves.
//! - [`status`], [`events`]: what users read of it. [`admin`]: metrics, health, and what the operator knows.
//! - [`kube`]: requests to the API server, as all of these make them. [`state`]: what outlives this process.
//! - [`cli`]: the commands. [`default_fleet`]: the fleet that comes with an installation.

pub mod admin;
pub mod cli;
pub mod default_fleet;
pub mod events;
pub mod fleet;
pub mod identity;
pub mod kube;
pub mod leader;
mod log_throttle;
pub mod push;
pub mod reason;
pub mod reconcile;
pub mod source;
pub mod state;
pub mod status;
