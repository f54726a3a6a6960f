//! Writes the status of every custom resource, in the background: whatever changed, at the pace that its place bears. On
//! one machine into files, in a cluster into the API server.

mod api;
mod files;
mod queue;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use kube::Client;
use planner::{FleetRef, FleetView, Millis, ObjectRef, Plan, Status, World};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    source::{Observed, kube::Lists},
    state::objects::ObjectRecord,
};

/// How often statuses are written.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Transitions are written at once; those that follow within this time at most are written together.
    pub coalesce: Duration,
    /// Numbers that drift (requests, percentages) are written this often, if they changed.
    pub drift: Duration,
}

/// For files of this machine, which cost nothing next to writes to an API server.
pub const FILES: Pace = Pace { coalesce: Duration::from_millis(100), drift: Duration::from_secs(2) };
/// For an API server, where each write is one for every watcher of the object.
pub const API: Pace = Pace { coalesce: Duration::from_millis(250), drift: Duration::from_secs(30) };

/// The input that statuses are made of.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Every object, as planned.
    pub world: Arc<World>,
    /// Every object, as the source has it.
    pub observed: Arc<Observed>,
    /// The plan, with the problems of fleets.
    pub plan: Arc<Plan>,
    /// The observed state of the fleets.
    pub fleets: BTreeMap<FleetRef, FleetView>,
    /// When each object was first seen.
    pub records: Arc<BTreeMap<ObjectRef, ObjectRecord>>,
}

/// Takes what statuses are made of; the newest wins.
#[derive(Debug)]
pub struct Writer {
    /// How often it writes.
    pub pace: Pace,
    input: watch::Sender<Input>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Starts on the folder that `sluice-operator get` reads.
    pub fn to_files(folder: PathBuf, pace: Pace) -> Self {
        Self::start(pace, |input| files::follow(folder, pace, input))
    }

    /// Starts on an API server. Nothing is read or written before there is something to write.
    pub fn to_api(client: Client, lists: Lists, pace: Pace) -> Self {
        Self::start(pace, |input| api::follow(client, lists, pace, input))
    }

    fn start<T: Future<Output = ()> + Send + 'static>(
        pace: Pace,
        follow: impl FnOnce(watch::Receiver<Input>) -> T,
    ) -> Self {
        let (input, receiver) = watch::channel(Input::default());
        Self { pace, input, task: tokio::spawn(follow(receiver)) }
    }

    /// Has statuses written that are made of this.
    pub fn set(&self, input: Input) {
        self.input.send_replace(input);
    }

    /// Waits until all is written; an API server is waited for a moment at most.
    pub async fn finish(self) {
        drop(self.input);
        let _ = self.task.await;
    }
}

/// Derives the statuses, in a thread where that may take a while. `None`: a bug of ours that this very input brings out.
async fn derive<T: Send + 'static>(
    input: Input,
    previous: Arc<BTreeMap<ObjectRef, Status>>,
    then: impl FnOnce(&Input, BTreeMap<ObjectRef, Status>) -> T + Send + 'static,
) -> Option<T> {
    let derive = tokio::task::spawn_blocking(move || {
        let statuses = planner::statuses(&input.world, &input.plan, &input.fleets, &previous, now());
        then(&input, statuses)
    });
    let derived = derive.await.ok();
    if derived.is_none() {
        tracing::error!("deriving statuses failed; what was written before stays");
    }
    derived
}

/// The time of day.
pub(crate) fn now() -> Millis {
    Millis(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default())
}
