//! Reads objects one by one: Secrets that are referred to, and what there is room for again. A few at a time; namespaces take
//! turns, so that one with very many references delays no other, and one whose reads hang leaves room for those of others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use kube::{Api, Client};
use planner::ObjectRef;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    raw::Raw,
    resource,
    watch::{Change, Changes, Content, kept},
    watch_error::{Cause, Failure},
};
use crate::kube::{
    api::{RequestError, request},
    backoff::{Backoff, Bounds},
};

/// The name of reads in messages and metrics, beside the watches.
pub(super) const READS: &str = "reads";
/// Reads at one time.
const MAX_CONCURRENT_READS: usize = 8;
/// Reads at one time in one namespace.
const MAX_CONCURRENT_READS_OF_NAMESPACE: usize = MAX_CONCURRENT_READS / 2;
/// The API server answers a read within this time, or it is tried again.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between attempts.
const RETRY_PAUSES: Bounds = Bounds::new(Duration::from_secs(1), Duration::from_secs(30));

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// The API server was silent until the deadline.
    #[error("the API server does not answer")]
    NoAnswer,
    /// The request failed.
    #[error(transparent)]
    Failed(#[from] RequestError),
    /// The kind has no version.
    #[error("no version of it is known")]
    NoVersion,
}

/// Reads objects one by one.
pub(super) struct Reader {
    asks: mpsc::UnboundedSender<ObjectRef>,
}

impl Reader {
    pub(super) fn new(client: Client, changes: Changes) -> Self {
        let (asks, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let reads = Reads { client, changes };
            tokio::select! {
                () = reads.follow(asked) => {}
                () = reads.changes.closed() => {}
            }
        });
        Self { asks }
    }

    /// Begins to read one.
    pub(super) fn read(&self, id: ObjectRef) {
        // When nobody listens, there is nobody to read for.
        let _ = self.asks.send(id);
    }
}

/// The objects that wait to be read, each once, whoever asks how often.
#[derive(Default)]
struct Waiting {
    queues: BTreeMap<String, VecDeque<ObjectRef>>,
    /// The namespaces that have something waiting, in the order of their turns.
    turns: VecDeque<String>,
    queued: BTreeSet<ObjectRef>,
    /// Those that are being read, and whether one was asked for again meanwhile: what comes may be older.
    reading: HashMap<ObjectRef, bool>,
    /// How many of each namespace are being read.
    busy: HashMap<String, usize>,
}

impl Waiting {
    fn push(&mut self, id: ObjectRef) {
        if let Some(again) = self.reading.get_mut(&id) {
            *again = true;
            return;
        }
        if !self.queued.insert(id.clone()) {
            return;
        }
        let queue = self.queues.entry(id.namespace.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(id.namespace.clone());
        }
        queue.push_back(id);
    }

    /// The next to be read, which counts as being read from then on.
    fn next(&mut self) -> Option<ObjectRef> {
        if self.reading.len() >= MAX_CONCURRENT_READS {
            return None;
        }
        let may = |namespace: &String| self.busy.get(namespace).is_none_or(|n| *n < MAX_CONCURRENT_READS_OF_NAMESPACE);
        let namespace = self.turns.remove(self.turns.iter().position(may)?)?;
        let queue = self.queues.get_mut(&namespace)?;
        let id = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&namespace);
        } else {
            self.turns.push_back(namespace.clone());
        }
        self.queued.remove(&id);
        self.reading.insert(id.clone(), false);
        *self.busy.entry(namespace).or_default() += 1;
        Some(id)
    }

    /// One is not being read any more.
    fn done(&mut self, id: &ObjectRef) {
        if let Some(busy) = self.busy.get_mut(&id.namespace) {
            *busy -= 1;
            if *busy == 0 {
                self.busy.remove(&id.namespace);
            }
        }
        if self.reading.remove(id) == Some(true) {
            self.push(id.clone());
        }
    }
}

struct Reads {
    client: Client,
    changes: Changes,
}

impl Reads {
    async fn follow(&self, mut asked: mpsc::UnboundedReceiver<ObjectRef>) {
        let (mut waiting, mut reading) = (Waiting::default(), FuturesUnordered::new());
        // Those that could not be read, and when they are tried again.
        let (mut failed, mut again) = (HashMap::<ObjectRef, Backoff>::new(), BTreeSet::<(Instant, ObjectRef)>::new());
        loop {
            while let Some(id) = waiting.next() {
                reading.push(self.attempt_and_tell(id.clone(), failed.contains_key(&id)));
            }
            let next = again.first().map(|(at, _)| *at);
            tokio::select! {
                id = asked.recv() => match id {
                    Some(id) => waiting.push(id),
                    None => return,
                },
                Some((id, is_read)) = reading.next(), if !reading.is_empty() => {
                    waiting.done(&id);
                    if is_read {
                        failed.remove(&id);
                    } else {
                        let pauses = failed.entry(id.clone()).or_insert_with(|| Backoff::new(RETRY_PAUSES));
                        again.insert((Instant::now() + pauses.pause(), id));
                    }
                }
                () = at(next) => if let Some((_, id)) = again.pop_first() {
                    waiting.push(id);
                },
            }
        }
    }

    /// Tells what one holds, or why it can't be read; returns whether it was.
    async fn attempt_and_tell(&self, id: ObjectRef, has_failed: bool) -> (ObjectRef, bool) {
        let failure = match self.attempt(&id).await {
            Ok(value) => {
                if has_failed {
                    self.tell(Change::Well(READS)).await;
                }
                self.tell(Change::Read(id.clone(), value)).await;
                return (id, true);
            }
            Err(why) => format!("{id} can't be read: {why}"),
        };
        // Not of the watch of its kind, which may well work.
        let of_reads = Failure { cause: Cause::Other, message: failure.clone() };
        self.tell(Change::Failing(READS, of_reads)).await;
        self.tell(Change::Unread(id.clone(), failure)).await;
        (id, false)
    }

    async fn attempt(&self, id: &ObjectRef) -> Result<Option<Content>, ReadError> {
        let watched = resource::of(id.kind);
        let mut error = ReadError::NoVersion;
        // Of ReferenceGrants it is not known here which version is served.
        for version in &watched.versions {
            let api = match id.kind.is_namespaced() {
                true => Api::<Raw>::namespaced_with(self.client.clone(), &id.namespace, &watched.api(version)),
                false => Api::<Raw>::all_with(self.client.clone(), &watched.api(version)),
            };
            // Not `get`: this is what `list` and `watch` permit.
            match request(READ_TIMEOUT, api.list(&watched.only(&id.name))).await {
                Ok(found) => {
                    let found = found.items.into_iter().next();
                    return Ok(found.and_then(|raw| kept(id.kind, &watched.api_version(version), raw.value())));
                }
                Err(RequestError::NoAnswer(_)) => return Err(ReadError::NoAnswer),
                Err(why) => error = why.into(),
            }
        }
        Err(error)
    }

    /// When nobody listens, there is nobody to tell.
    async fn tell(&self, change: Change) {
        let _ = self.changes.send(change).await;
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use planner::Kind;
    use tokio::sync::{mpsc, watch as channel};

    use super::{super::lists::Lists, *};
    use crate::kube::testing::{Answer, api_server};

    /// Its watch may well work.
    #[tokio::test]
    async fn one_that_cannot_be_read_is_no_watch_that_fails() {
        let (client, _asked) = api_server(|_| Answer::Sent(500, String::new()));
        let (sender, mut told) = mpsc::channel(10);
        let changes = Changes::new(sender, Lists::default(), channel::channel(()).1);
        let reader = Reader::new(client, changes);
        reader.read(ObjectRef { kind: Kind::Service, namespace: "shop".into(), name: "s".into() });
        let change = told.recv().await;
        assert!(matches!(change, Some(Change::Failing(READS, _))), "{change:?}");
    }

    fn id(namespace: &str, name: usize) -> ObjectRef {
        ObjectRef { kind: Kind::Secret, namespace: namespace.into(), name: name.to_string() }
    }

    /// One with very many references delays no other, nor does one whose reads hang.
    #[test]
    fn namespaces_take_turns() {
        let mut waiting = Waiting::default();
        (0..1000).for_each(|i| waiting.push(id("crowd", i)));
        (0..3).for_each(|i| waiting.push(id("few", i)));
        waiting.push(id("few", 2));
        let mut next = |done: &[ObjectRef]| {
            done.iter().for_each(|id| waiting.done(id));
            std::iter::from_fn(|| waiting.next()).map(|id| format!("{} {}", id.namespace, id.name)).collect::<Vec<_>>()
        };
        let first = ["crowd 0", "few 0", "crowd 1", "few 1", "crowd 2", "few 2", "crowd 3"];
        assert_eq!(next(&[]), first, "the rest is of one that has its part");
        assert_eq!(next(&[id("crowd", 2)]), ["crowd 4"]);
        assert_eq!(next(&[id("few", 0), id("few", 1), id("few", 2)]), [""; 0]);
    }

    /// One that is asked for while it is read is read once more, and never twice at a time.
    #[test]
    fn what_is_asked_for_again_is_read_after() {
        let mut waiting = Waiting::default();
        waiting.push(id("few", 0));
        assert_eq!(waiting.next(), Some(id("few", 0)));
        waiting.push(id("few", 0));
        waiting.push(id("few", 0));
        assert_eq!(waiting.next(), None);
        waiting.done(&id("few", 0));
        assert_eq!((waiting.next(), waiting.next()), (Some(id("few", 0)), None));
    }

    /// Through the API server: what comes later of another namespace is read while a thousand of one wait.
    #[tokio::test]
    async fn a_crowd_delays_nobody() {
        let list = || serde_json::json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []});
        let (client, _requests) = api_server(move |_| Answer::json(200, list()));
        let (sender, mut told) = mpsc::channel(1);
        let changes = Changes::new(sender, Lists::default(), channel::channel(()).1);
        let reader = Reader::new(client, changes);
        (0..1000).for_each(|i| reader.read(id("crowd", i)));
        reader.read(id("few", 0));
        for before in 0.. {
            match told.recv().await {
                Some(Change::Read(read, None)) if read.namespace == "few" => break,
                Some(Change::Read(..)) => assert!(before < 2 * MAX_CONCURRENT_READS, "{before} were read before it"),
                other => panic!("{other:?}"),
            }
        }
    }
}
