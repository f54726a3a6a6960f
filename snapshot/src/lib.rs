//! The contract between operator and proxy: what a proxy executes, and how it gets there.
//!
//! ```text
//!  operator                                                   proxy
//!  Snapshot ──diff(held)──► Delta ──wire::push──► messages ──wire::Assembly──► Delta ──apply──► Snapshot
//!     ▲                                                                          │
//!     └──────────────── Ack { revision, nacks: [key, hash, field] } ◄──check─────┘
//! ```
//!
//! - [`Snapshot`]: resources by [`Key`], each with its content [`struct@Hash`]; the revision is the hash of it all.
//! - [`proto`]: the messages, compiled from `proto/*.proto`.
//! - [`check`]: what makes a resource executable. Both sides run it: the operator before it publishes, the proxy before
//!   it applies.
//! - [`mod@refs`]: what a resource refers to.
//! - [`closed()`]: what stands in for a policy that can't be honoured.
//! - [`credential`]: digests of credentials.
//! - [`expression`]: regular expressions, whose cost is known before anything runs them.
//! - [`origin`]: origins, as browsers name them and as filters list them.
//! - [`wire`]: pushes cut into messages of at most 1 MiB, and put together again under bounds.
//! - [`report`]: what proxies tell, held to the sizes that operators take.
//! - [`codec`]: messages, decoded under a bound on what they take in memory.
//! - [`latency`]: the histogram of load reports.
//! - [`handover`]: how listening sockets pass between processes (standalone).

pub mod check;
mod closed;
pub mod codec;
pub mod credential;
pub mod expression;
pub mod handover;
pub mod key;
pub mod latency;
pub mod origin;
pub mod path;
pub mod refs;
pub mod report;
pub mod sensitive;
pub mod set;
pub mod wire;

/// The protocol's messages (see `proto/`), and the gRPC service `Control`.
#[allow(missing_docs, clippy::all, unreachable_pub)] // generated; documented in the .proto files
pub mod proto {
    tonic::include_proto!("sluice.v1");
}

impl proto::Listener {
    /// The port that a proxy opens; `port` is the one that clients know.
    pub fn opened_port(&self) -> u32 {
        if self.bind_port == 0 { self.port } else { self.bind_port }
    }
}

pub use closed::{closed, closed_fleet, guards_as, stand_in};
pub use key::{Hash, Key, Kind};
pub use refs::refs;
pub use set::{Delta, Entry, Snapshot};

/// Version of the resources' format; a proxy that speaks another is told so.
pub const FORMAT_VERSION: u32 = 1;
