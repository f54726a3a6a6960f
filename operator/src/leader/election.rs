//! The leader election of operators. One of several does: it moves fleets, publishes, writes statuses. The others watch
//! and plan, so that whichever takes over knows everything.
//!
//! The Lease is in [`crate::leader::lease`], as a state machine; here it is read and written. Nothing is written after the lease
//! ran out: [`crate::leader::fencing`] asks [`LeaseValidity`] before each write.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use crate::{
    admin::metrics,
    kube::api::{Class, request},
    leader::lease::{Election, Step},
};

/// The field manager of what the operator writes.
pub const MANAGER: &str = "sluice-operator";

/// The leader election of operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderState {
    /// Another operator leads, or none.
    Standby {
        /// Where the leader takes proxies, `IP:port`; `None`: nobody holds the lease.
        holder: Option<String>,
    },
    /// This operator leads, until its process ends: one that loses the lease ends.
    Leader {
        /// Counts leaders; what an earlier one pushes is never applied.
        epoch: u64,
    },
}

/// Follows whether this operator leads.
pub type LeaderWatch = watch::Receiver<LeaderState>;

/// An operator without others.
pub fn sole_leader(epoch: u64) -> LeaderWatch {
    watch::channel(LeaderState::Leader { epoch }).1
}

/// Until when this operator leads, by its own clock: one that goes on while the machine is suspended, as the clocks of
/// the others do.
#[derive(Clone, Debug, Default)]
pub struct LeaseValidity(Arc<Mutex<Option<Duration>>>);

impl LeaseValidity {
    /// Whether it leads at this very moment.
    pub fn holds(&self) -> bool {
        self.until().is_some_and(|until| since_boot() < until)
    }

    pub(crate) fn set(&self, until: Option<Instant>) {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        // Read before the other clock: what passes in between makes the term shorter.
        let boot = since_boot();
        *self.until() = until.map(|until| boot + left(until));
    }

    fn until(&self) -> MutexGuard<'_, Option<Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let part = |n: i64| u64::try_from(n).unwrap_or_default();
    Duration::from_secs(part(now.tv_sec)) + Duration::from_nanos(part(now.tv_nsec))
}

/// Which Lease, and who asks for it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The Lease's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The identity of this process: the pod's name, and something that no other process of that pod has.
    pub identity: String,
    /// Where it takes proxies while it leads, `IP:port`.
    pub address: Option<String>,
}

/// Why an operator must end.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// Another may lead by now.
    #[error("the lease {namespace}/{name} is lost: {why}; this operator ends, and begins again as a standby")]
    Lost {
        /// Namespace of the Lease.
        namespace: String,
        /// Its name.
        name: String,
        /// The event that lost it.
        why: &'static str,
    },
}

/// Deadline of one request about the Lease.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs for the lease, and holds it, until `ends` says true: then it is given up, and another takes it at once.
///
/// Comes back with an error when the lease was held and is lost.
pub async fn run(
    client: Client,
    candidate: Candidate,
    lead: watch::Sender<LeaderState>,
    validity: LeaseValidity,
    mut ends: watch::Receiver<bool>,
) -> Result<(), LeadError> {
    let leases = Leases { api: Api::namespaced(client, &candidate.namespace), candidate };
    let Candidate { identity, address, .. } = leases.candidate.clone();
    let mut election = Election::new(identity, address, Instant::now());
    let mut errors = LogOnChange::default();
    while !*ends.borrow_and_update() {
        // A request under way is waited for: what it wrote is what the next one has to replace.
        if let Err(lost) = leases.step(&mut election, &mut errors, &mut ends).await {
            // Another may lead from now on, however long the last renewal would have been good for.
            validity.set(None);
            return Err(lost);
        }
        validity.set(election.term().map(|(_, until)| until));
        tell(&lead, &election);
    }
    // Nothing more is written from here on, so that the next one may begin.
    validity.set(None);
    if let Some(lease) = election.released() {
        leases.release(lease).await;
    }
    Ok(())
}

/// Publishes a change of the leader.
fn tell(lead: &watch::Sender<LeaderState>, election: &Election) {
    let now = match election.term() {
        Some((epoch, _)) => LeaderState::Leader { epoch },
        None => LeaderState::Standby { holder: election.holder_address().map(str::to_owned) },
    };
    lead.send_if_modified(|before| {
        let changed = *before != now;
        if changed {
            let metrics = metrics::get();
            match &now {
                LeaderState::Leader { epoch } => {
                    tracing::info!(epoch, "this operator leads");
                    metrics.leader.set(1);
                    metrics.epoch.set(i64::try_from(*epoch).unwrap_or(i64::MAX));
                }
                LeaderState::Standby { holder: address } => {
                    let holder = election.holder();
                    tracing::info!(holder, address, "another operator leads, or none yet");
                    metrics.leader.set(0);
                }
            }
            *before = now;
        }
        changed
    });
}

/// A log of one kind of error, which logs each error once, however often it comes.
#[derive(Debug, Default)]
struct LogOnChange(Option<String>);

impl LogOnChange {
    fn log(&mut self, what: &str, error: &str) {
        if self.0.as_deref() != Some(error) {
            tracing::warn!(error, "{what}");
            self.0 = Some(error.to_owned());
        }
    }

    fn clear(&mut self) {
        self.0 = None;
    }
}

struct Leases {
    api: Api<Lease>,
    candidate: Candidate,
}

impl Leases {
    /// Does the next thing.
    async fn step(
        &self,
        election: &mut Election,
        errors: &mut LogOnChange,
        ends: &mut watch::Receiver<bool>,
    ) -> Result<(), LeadError> {
        let sent = Instant::now();
        match election.next(sent, Timestamp::now()) {
            Step::Wait(until) => {
                tokio::select! {
                    () = tokio::time::sleep_until(until.into()) => {}
                    _ = ends.wait_for(|ends| *ends) => {}
                }
            }
            Step::Read => match request(REQUEST_TIMEOUT, self.api.get_opt(&self.candidate.name)).await {
                Ok(lease) => {
                    election.read(lease, Instant::now());
                    errors.clear();
                }
                Err(failure) => {
                    errors.log("the lease can't be read; is `get` on leases allowed?", &failure.to_string());
                    election.failed(Instant::now());
                }
            },
            Step::Write(lease) => match request(REQUEST_TIMEOUT, self.write(*lease)).await {
                Ok(lease) => {
                    election.wrote(lease, sent, Instant::now());
                    errors.clear();
                }
                // Changed, created or deleted by somebody else meanwhile.
                Err(failure) if matches!(failure.class(), Class::NotFound | Class::Conflict) => {
                    election.conflicted(Instant::now());
                }
                Err(failure) => {
                    let what = "the lease can't be written; are `create` and `update` on leases allowed?";
                    errors.log(what, &failure.to_string());
                    election.failed(Instant::now());
                }
            },
            Step::Lost(why) => {
                let Candidate { namespace, name, .. } = self.candidate.clone();
                return Err(LeadError::Lost { namespace, name, why });
            }
        }
        Ok(())
    }

    async fn write(&self, mut lease: Lease) -> Result<Lease, kube::Error> {
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        if lease.metadata.resource_version.is_some() {
            return self.api.replace(&self.candidate.name, &params, &lease).await;
        }
        let Candidate { namespace, name, .. } = self.candidate.clone();
        lease.metadata = ObjectMeta { name: Some(name), namespace: Some(namespace), ..lease.metadata };
        self.api.create(&params, &lease).await
    }

    async fn release(&self, mut lease: Lease) {
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let holder = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        for _ in 0..3 {
            match request(REQUEST_TIMEOUT, self.api.replace(&self.candidate.name, &params, &lease)).await {
                Ok(_) => return tracing::info!("the lease is given up"),
                // Somebody wrote something else on it, perhaps.
                Err(failure) if failure.class() == Class::Conflict => {
                    match request(REQUEST_TIMEOUT, self.api.get(&self.candidate.name)).await {
                        Ok(now) if holder(&now).as_ref() == Some(&self.candidate.identity) => {
                            lease.metadata.resource_version = now.metadata.resource_version;
                        }
                        Ok(_) => return,
                        Err(error) => return tracing::warn!(%error, "the lease can't be given up"),
                    }
                }
                // Then it runs out by itself.
                Err(error) => return tracing::warn!(%error, "the lease can't be given up"),
            }
        }
    }
}
