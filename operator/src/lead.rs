//! Whether this operator leads. One of several does: it moves fleets, publishes, writes statuses. The others watch and
//! plan, so that whichever takes over knows everything.

use tokio::sync::watch;

/// Whether this operator leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lead {
    /// Another does, or none.
    Standby {
        /// Where the leader takes proxies, `IP:port`; `None`: nobody holds the lease.
        holder: Option<String>,
    },
    /// This one, until its process ends: an operator that loses the lease ends.
    Leader {
        /// Counts leaders; what an earlier one pushes is never applied.
        epoch: u64,
    },
}

/// Follows whether this operator leads.
pub type Leading = watch::Receiver<Lead>;

/// An operator without others.
pub fn alone(epoch: u64) -> Leading {
    watch::channel(Lead::Leader { epoch }).1
}
