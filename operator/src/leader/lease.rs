//! The Lease that decides who leads, as a state machine: what to do next, given what the Lease said and when. `now` is an
//! argument; [`crate::leader::election`] does what it says.
//!
//! No clock of another machine is trusted. A holder counts as dead when its Lease did not change for [`LEASE_DURATION`] by the
//! clock of the one who looks. A leader gives up [`RENEW_DEADLINE`] after it *began* its last successful renewal, by its own
//! clock: 3 s before anyone else may take over, time for what is on its way to the API server.
//!
//! A Lease that was deleted says nothing of who held it, and its holder may not have heard: so it is nobody's only after
//! [`LEASE_DURATION`], also when somebody made it anew, empty. The holder itself puts it back as it was. One that is not there
//! when a process starts may have been deleted just before: the same holds; and of one that is gone, or another, although
//! it was empty when it was last read. (Other elections create it at once; the chart
//! makes it, so that this costs an installation nothing.) One that is there and empty then is the chart's: it is taken.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

/// A Lease that did not change for this long is nobody's.
pub const LEASE_DURATION: Duration = Duration::from_secs(10);
/// A leader whose last renewal is this old leads no more.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(7);
/// How often a leader renews.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// How often others look. A Lease that was given up is taken within this time.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// After an error, the next attempt.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// The longest duration of a Lease that counts, or a typing error would leave nobody leading.
const MAX_DURATION: Duration = Duration::from_secs(60);

/// Where the holder takes proxies, `IP:port`.
pub const ADDRESS: &str = "sluice.dev/address";

/// The next step of an election.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Read the Lease; then [`Election::read`].
    Read,
    /// Write this, replacing exactly the version that was read; then [`Election::wrote`] or [`Election::failed`].
    Write(Box<Lease>),
    /// A wait until then.
    Wait(Instant),
    /// The loss of the lease: this operator led, and must end at once.
    Lost(&'static str),
}

/// The state of one contender.
#[derive(Debug)]
pub struct Election {
    /// Unique among all processes that ever were: a process that starts again is another contender.
    identity: String,
    address: Option<String>,
    role: Role,
    /// The Lease as last read or written; `None`: there is none, or nothing is known.
    lease: Option<Lease>,
    /// Since when it says what it says, by our clock.
    unchanged_since: Instant,
    /// From when it may be taken while it names no holder; `None`: it was never read.
    vacant_from: Option<Instant>,
    /// The highest count of holders that was read: a Lease that was deleted and made anew goes on from there.
    counted: i32,
    /// The Lease was read since the last write that failed.
    known: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Standby {
        look: Instant,
    },
    Leader {
        epoch: u64,
        /// When the last successful renewal began.
        renewed: Instant,
        next: Instant,
    },
    Lost(&'static str),
}

impl Election {
    /// A contender that knows nothing yet.
    pub fn new(identity: String, address: Option<String>, now: Instant) -> Self {
        let role = Role::Standby { look: now };
        Self { identity, address, role, lease: None, unchanged_since: now, vacant_from: None, counted: 0, known: false }
    }

    /// The epoch and when it ends unless it is renewed, while this one leads.
    pub fn term(&self) -> Option<(u64, Instant)> {
        match self.role {
            Role::Leader { epoch, renewed, .. } => Some((epoch, renewed + RENEW_DEADLINE)),
            Role::Standby { .. } | Role::Lost(_) => None,
        }
    }

    /// Where the holder takes proxies, when another leads.
    pub fn holder_address(&self) -> Option<&str> {
        let lease = self.lease.as_ref().filter(|lease| holder(lease).is_some())?;
        lease.metadata.annotations.as_ref()?.get(ADDRESS).map(String::as_str)
    }

    /// The holder's name, if there is one.
    pub fn holder(&self) -> Option<&str> {
        self.lease.as_ref().and_then(holder)
    }

    /// The step to take at this moment. `wall` is only written down, for people.
    pub fn next(&mut self, now: Instant, wall: Timestamp) -> Step {
        if let Role::Leader { renewed, .. } = self.role
            && now >= renewed + RENEW_DEADLINE
        {
            self.role = Role::Lost("the lease could not be renewed in time");
        }
        match self.role {
            Role::Lost(why) => Step::Lost(why),
            Role::Leader { next, .. } if now < next => Step::Wait(next),
            Role::Leader { .. } if self.known => self.write(wall),
            Role::Leader { .. } => Step::Read,
            Role::Standby { look } if now < look => Step::Wait(look),
            Role::Standby { .. } if !self.known => Step::Read,
            Role::Standby { .. } if now >= self.free_from() => self.write(wall),
            Role::Standby { .. } => {
                // Looks when it may have become free, and until then as often as ever.
                let look = self.free_from().min(now + POLL_INTERVAL);
                self.role = Role::Standby { look };
                self.known = false;
                Step::Wait(look)
            }
        }
    }

    /// The Lease was read: `None`: there is none.
    pub fn read(&mut self, lease: Option<Lease>, now: Instant) {
        let same = match (&self.lease, &lease) {
            (Some(a), Some(b)) => says_the_same(a, b),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.unchanged_since = now;
        }
        // Nobody has held this one: if there was a holder, it was deleted, and perhaps made anew.
        let is_new = lease.as_ref().is_none_or(|lease| transitions(lease) == 0);
        let is_missing = lease.is_none() && (self.vacant_from.is_none() || self.lease.is_some());
        // Between two readings somebody may have taken even one that was empty before.
        let is_another = |new: &Lease| self.lease.as_ref().is_some_and(|old| old.metadata.uid != new.metadata.uid);
        if is_missing || (is_new && (self.holder().is_some() || lease.as_ref().is_some_and(is_another))) {
            self.vacant_from = Some(now + self.duration());
        } else {
            self.vacant_from.get_or_insert(now);
        }
        self.counted = self.counted.max(lease.as_ref().map_or(0, transitions));
        self.known = true;
        if let Role::Leader { .. } = self.role
            && lease.as_ref().is_some_and(|lease| holder(lease) != Some(&self.identity))
        {
            self.role = Role::Lost("another took the lease");
        }
        self.lease = lease;
    }

    /// A write that began at `sent` succeeded.
    pub fn wrote(&mut self, lease: Lease, sent: Instant, now: Instant) {
        let epoch = epoch(&lease);
        self.lease = Some(lease);
        self.unchanged_since = now;
        self.role = Role::Leader { epoch, renewed: sent, next: sent + RENEW_INTERVAL };
    }

    /// Reading or writing failed. Whether a write arrived all the same is for the next reading to say.
    pub fn failed(&mut self, now: Instant) {
        self.known = false;
        match &mut self.role {
            Role::Standby { look } => *look = now + RETRY_INTERVAL,
            Role::Leader { next, .. } => *next = now + RETRY_INTERVAL,
            Role::Lost(_) => {}
        }
    }

    /// Another was faster: what the Lease says now is to be read at once.
    pub fn conflicted(&mut self, now: Instant) {
        self.failed(now);
        match &mut self.role {
            Role::Standby { look } => *look = now,
            Role::Leader { next, .. } => *next = now,
            Role::Lost(_) => {}
        }
    }

    /// The Lease as it is given up; `None`: this one does not lead.
    pub fn released(&self) -> Option<Lease> {
        let Role::Leader { .. } = self.role else { return None };
        let mut lease = self.lease.clone()?;
        if let Some(annotations) = &mut lease.metadata.annotations {
            annotations.remove(ADDRESS);
        }
        lease.spec.get_or_insert_default().holder_identity = Some(String::new());
        Some(lease)
    }

    /// From when it may be taken, as far as is known.
    fn free_from(&self) -> Instant {
        match self.holder() {
            None => self.vacant_from.unwrap_or(self.unchanged_since),
            // Ours: a write arrived of which we heard nothing.
            Some(holder) if holder == self.identity => self.unchanged_since,
            Some(_) => self.unchanged_since + self.duration(),
        }
    }

    /// How long the Lease must not have changed. Its own word counts when it is longer than ours.
    fn duration(&self) -> Duration {
        let spec = self.lease.as_ref().and_then(|lease| lease.spec.as_ref());
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default()).clamp(LEASE_DURATION, MAX_DURATION)
    }

    /// The Lease as it is to be written: taken, or renewed.
    fn write(&self, wall: Timestamp) -> Step {
        let mut lease = self.lease.clone().unwrap_or_else(|| Lease { metadata: ObjectMeta::default(), spec: None });
        let ours = holder(&lease) == Some(&self.identity);
        let held = matches!(self.role, Role::Leader { .. });
        let transitions = match self.role {
            // Also when somebody deleted it meanwhile: it comes back as it was.
            Role::Leader { epoch, .. } => i32::try_from(epoch.saturating_sub(1)).unwrap_or(i32::MAX),
            _ if ours => transitions(&lease),
            _ => following(self.counted, wall),
        };
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if !(held || ours) || spec.acquire_time.is_none() {
            spec.acquire_time = Some(MicroTime(wall));
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(LEASE_DURATION.as_secs() as i32);
        spec.lease_transitions = Some(transitions);
        spec.renew_time = Some(MicroTime(wall));
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match &self.address {
            Some(address) => drop(annotations.insert(ADDRESS.to_owned(), address.clone())),
            None => drop(annotations.remove(ADDRESS)),
        }
        Step::Write(Box::new(lease))
    }
}

/// The epoch of the one who holds this Lease: never 0.
fn epoch(lease: &Lease) -> u64 {
    u64::try_from(transitions(lease)).unwrap_or_default() + 1
}

fn transitions(lease: &Lease) -> i32 {
    lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default()
}

/// The count of a new holder. One who did not know a Lease that was deleted would begin at 0 again, and proxies never
/// follow an epoch below the one they know: so counting begins with the seconds since 2024, of which there is one at most
/// for each holder.
fn following(transitions: i32, wall: Timestamp) -> i32 {
    const Y2024: i64 = 1_704_067_200;
    match transitions {
        ..=0 => i32::try_from(wall.as_second() - Y2024).unwrap_or_default().max(1),
        counted => counted.saturating_add(1),
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

/// Whether nobody took or renewed it in between; labels and annotations of others do not count.
fn says_the_same(a: &Lease, b: &Lease) -> bool {
    let (Some(a), Some(b)) = (&a.spec, &b.spec) else { return a.spec.is_none() && b.spec.is_none() };
    a.holder_identity == b.holder_identity
        && a.lease_transitions == b.lease_transitions
        && a.acquire_time == b.acquire_time
        && a.renew_time == b.renew_time
}

#[cfg(test)]
mod tests;
