//! Keeps a folder of JSON files equal to a map, writing only what changed, in the background.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use planner::ObjectRef;
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};

use super::{file, object_path};

/// The stored form of one object.
pub trait Stored: Send + Sync + 'static {
    /// Whether the file of `other` is good for this too.
    fn same(&self, other: &Self) -> bool;
    /// The file's content.
    fn json(&self, id: &ObjectRef) -> Value;
}

/// Everything that is to be stored.
pub type Content<V> = Arc<BTreeMap<ObjectRef, V>>;

/// Hands content to the background task; the newest wins.
#[derive(Debug)]
pub struct Mirror<V> {
    content: watch::Sender<Content<V>>,
    task: JoinHandle<()>,
}

impl<V: Stored> Mirror<V> {
    /// Starts on a folder that holds `content`; writes at most once in `pause`.
    pub fn start(folder: PathBuf, content: Content<V>, pause: Duration) -> Self {
        let (sender, receiver) = watch::channel(Arc::clone(&content));
        let task = tokio::spawn(follow(folder, content, receiver, pause));
        Self { content: sender, task }
    }

    /// Takes what is to be stored from now on.
    pub fn set(&self, content: Content<V>) {
        self.content.send_replace(content);
    }

    /// Waits until all is written.
    pub async fn finish(self) {
        drop(self.content);
        let _ = self.task.await;
    }
}

async fn follow<V: Stored>(
    folder: PathBuf,
    mut written: Content<V>,
    mut receiver: watch::Receiver<Content<V>>,
    pause: Duration,
) {
    loop {
        let ended = receiver.changed().await.is_err();
        let wanted = Arc::clone(&receiver.borrow_and_update());
        let folder_of_task = folder.clone();
        let writing = tokio::task::spawn_blocking(move || {
            write(&folder_of_task, &written, &wanted);
            wanted
        });
        match writing.await {
            Ok(wanted) => written = wanted,
            Err(_) => return, // the runtime ends
        }
        if ended {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

fn write<V: Stored>(folder: &Path, before: &BTreeMap<ObjectRef, V>, after: &BTreeMap<ObjectRef, V>) {
    let note = |path: &Path, done: io::Result<()>| {
        if let Err(error) = done {
            // Written again when it changes again; what is in memory stays right.
            tracing::error!(path = %path.display(), %error, "can't write state");
        }
    };
    for (id, stored) in after {
        if before.get(id).is_none_or(|former| !stored.same(former)) {
            let path = folder.join(object_path(id));
            note(&path, file::write(&path, format!("{:#}\n", stored.json(id)).as_bytes()));
        }
    }
    for id in before.keys().filter(|id| !after.contains_key(id)) {
        let path = folder.join(object_path(id));
        note(&path, file::remove(&path));
    }
}

/// Reads every JSON file of the folder. Files that can't be read are reported and removed: what they held is derived
/// anew.
pub fn read(folder: &Path) -> Vec<Value> {
    let files = walkdir::WalkDir::new(folder).into_iter().flatten();
    let is_json = |path: &Path| path.extension().is_some_and(|e| e == "json");
    files.filter(|entry| is_json(entry.path())).filter_map(|entry| read_file(entry.path())).collect()
}

fn read_file(path: &Path) -> Option<Value> {
    let text = std::fs::read(path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "removed a state file that is no JSON");
            let _ = std::fs::remove_file(path);
            None
        }
    }
}
