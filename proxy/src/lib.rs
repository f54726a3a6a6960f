//! The data plane: takes snapshots, serves requests.
//!
//! ```text
//!  control/ ── stream to the operator ──► config/ compile ──► ArcSwap<Config> in shared.rs
//!                                                                  │ loaded once a request
//!  server/ accept ► tls ► http1/ | http2/ ► exchange/ ──────────────┤
//!     worker threads, one runtime each      router/ which rule     │
//!     drain, rebalance, max age             filter/ chain of rule ─┤
//!                                           upstream/ balance, pools, calls
//!                                           services/ what filters ask of others
//!                                           websocket.rs after 101
//!  rule.rs: a compiled rule; connection/, worker.rs: what a request knows of its client's connection, and of its thread
//!  message.rs, fields.rs: a head on its way, whatever protocol it came by; lookup.rs: what it says under a name
//!  memory/: what clients hold, and who is ended when it gets scarce
//!  telemetry/ ◄── one RequestRecord a request: metrics, access log, load windows
//!  keeper/: in a container, the process that holds the sockets and starts this one again when it crashes
//!  admin.rs: /readyz, /config /connections on loopback; /metrics
//! ```

mod admin;
mod backoff;
mod body;
pub mod cli;
pub mod client_address;
pub mod clock;
pub mod config;
pub mod connection;
pub mod consumers;
pub mod control;
mod date;
pub mod exchange;
mod fd_limit;
pub mod fields;
pub mod filter;
pub mod forwarded;
mod header_value;
pub mod http1;
pub mod http2;
pub mod keeper;
mod lookup;
pub mod memory;
pub mod message;
pub mod message_limits;
pub mod rate_limit_fields;
pub mod router;
pub mod rule;
pub mod server;
mod services;
pub mod shared;
mod sockopt;
pub mod telemetry;
mod timers;
pub mod upstream;
mod wall_clock;
mod websocket;
pub mod worker;

pub use shared::Shared;
