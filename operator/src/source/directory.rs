//! A directory of manifests as source: watched, and polled slowly in case the watch misses something. Any event rescans
//! the whole directory; what did not change costs a `stat`.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use notify::{
    EventKind, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::sync::{Notify, mpsc};

use super::{
    Generations, Latest, Observed,
    scan::{Busy, Scanner},
};
use crate::{admin::metrics, reconcile::event::Event};

/// Rescans at least this often.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The interval of rescans without a watch (none left of the system's, or a file system that has none).
const POLL_INTERVAL_UNWATCHED: Duration = Duration::from_secs(1);
/// The first report waits no longer than this for files that are being written.
const FIRST_SCAN_TIMEOUT: Duration = Duration::from_secs(2);
/// After an event, others are likely to follow: an editor writes, renames, deletes.
const DEBOUNCE: Duration = Duration::from_millis(2);

/// Reads a directory once.
pub fn read_once(dir: &Path) -> Observed {
    let mut scanner = Scanner::new(dir.to_owned(), Generations::new());
    loop {
        let scanned = scanner.scan(&Busy::new(), SystemTime::now());
        match scanned.again_in {
            Some(pause) => std::thread::park_timeout(pause),
            None => return scanner.observed(),
        }
    }
}

/// Sends what the directory holds whenever it changes, until the receiver is gone.
pub async fn run(dir: PathBuf, generations: Generations, events: mpsc::Sender<Event>) {
    let hints = Arc::new(Hints::default());
    let mut scanner = Scanner::new(dir.clone(), generations);
    let (mut watch, latest) = (None, Latest::default());
    let (mut first, mut told, started) = (true, false, Instant::now());
    loop {
        if watch.is_none() {
            watch = Watch::start(&dir, &hints).map_err(|error| unwatched(&dir, &error, &mut told)).ok();
        }
        let busy = hints.busy();
        let scan = tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            let scanned = scanner.scan(&busy, SystemTime::now());
            let read = start.elapsed();
            // What is missing is taken for deleted, so the first report waits until all is there that is being written.
            let whole = scanned.readable && (scanned.again_in.is_none() || started.elapsed() > FIRST_SCAN_TIMEOUT);
            let is_due = if first { whole } else { scanned.changed };
            let observed = is_due.then(|| scanner.observed());
            tracing::debug!(?read, total = ?start.elapsed(), ?scanned, "scanned");
            (scanner, scanned, observed)
        });
        let Ok((back, scanned, observed)) = scan.await else {
            // A bug of ours that this very content brings out. Whoever reads the log can remove the file.
            tracing::error!("scanning the manifests failed; they are not read any more");
            return;
        };
        scanner = back;
        metrics::get().scans.inc();
        if let Some(observed) = observed {
            first = false;
            if latest.put(Arc::new(observed)) && events.send(Event::WorldChanged(latest.clone())).await.is_err() {
                return;
            }
        }
        if watch.as_ref().is_some_and(|w| !w.is_of(&dir)) {
            watch = None;
        }
        let poll = if watch.is_some() { POLL_INTERVAL } else { POLL_INTERVAL_UNWATCHED };
        tokio::select! {
            () = hints.event.notified() => tokio::time::sleep(DEBOUNCE).await,
            () = tokio::time::sleep(scanned.again_in.unwrap_or(poll)) => {}
            () = events.closed() => return,
        }
    }
}

/// The files that the watch saw change since the last scan.
#[derive(Default)]
struct Hints {
    event: Notify,
    busy: Mutex<Busy>,
}

impl Hints {
    /// Files that are being written; those not heard of for long are forgotten.
    fn busy(&self) -> Busy {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        busy.retain(|_, since| now.duration_since(*since).is_ok_and(|age| age < 2 * POLL_INTERVAL_UNWATCHED));
        busy.clone()
    }

    fn take(&self, event: notify::Event) {
        let kind = event.kind;
        if matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write)) {
            return; // reading, such as our own
        }
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        for path in event.paths {
            if matches!(kind, EventKind::Modify(ModifyKind::Data(_))) {
                busy.insert(path, SystemTime::now());
            } else {
                busy.remove(&path);
            }
        }
        drop(busy);
        self.event.notify_one();
    }
}

/// A running watch of one directory; ends when dropped.
struct Watch {
    _watcher: notify::RecommendedWatcher,
    /// Inode of the directory when the watch began: another directory of that name needs a new watch.
    inode: u64,
}

impl Watch {
    fn start(dir: &Path, hints: &Arc<Hints>) -> notify::Result<Self> {
        let inode = inode(dir)?;
        let hints = Arc::clone(hints);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            Ok(event) => hints.take(event),
            Err(error) => {
                tracing::warn!(%error, "watching the manifests: an event was lost, rescanning");
                hints.event.notify_one();
            }
        })?;
        watcher.watch(dir, RecursiveMode::Recursive)?;
        Ok(Self { _watcher: watcher, inode })
    }

    fn is_of(&self, dir: &Path) -> bool {
        inode(dir).is_ok_and(|inode| inode == self.inode)
    }
}

fn inode(dir: &Path) -> io::Result<u64> {
    std::fs::metadata(dir).map(|meta| meta.ino())
}

/// Says once that there is no watch.
fn unwatched(dir: &Path, error: &notify::Error, told: &mut bool) {
    if !std::mem::replace(told, true) {
        tracing::warn!(%error, dir = %dir.display(), "can't watch the manifests, reading them every second");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However long the loop stands, one world waits for it, and it is the last.
    #[tokio::test]
    async fn worlds_do_not_queue_up() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut events) = mpsc::channel(10);
        tokio::spawn(run(dir.path().to_owned(), Generations::new(), sender));
        let mut next = async || match tokio::time::timeout(Duration::from_secs(20), events.recv()).await {
            Ok(Some(Event::WorldChanged(latest))) => latest,
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await.take().unwrap().objects.len(), 0);
        let write = |i: usize| {
            let manifest = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: n{i}}}\n");
            std::fs::write(dir.path().join(format!("{i}.yaml")), manifest).unwrap();
        };
        write(0);
        let latest = next().await;
        for i in 1..4 {
            write(i);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(latest.take().unwrap().objects.len() > 1, "what was told of was replaced");
        write(4);
        while next().await.take().unwrap().objects.len() < 5 {}
    }
}
