//! Kubernetes Events: what happened to an object, for `kubectl describe`. Bounded: the same is not said again for ten
//! minutes, and when more happens at once than anyone reads, the rest is only counted: of one namespace before that of
//! all. (kube's `Recorder` would count "from 3 to 5" as a repetition of "from 2 to 3".)

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event as Written},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::mpsc;

use crate::{
    admin::metrics,
    kube::{
        api::{Class, request},
        outage,
    },
    leader::election::MANAGER,
};

/// Events that wait to be written.
const QUEUE_LEN: usize = 256;
/// The bucket of all Events: so many at once, and one more each second.
const BURST: f64 = 50.0;
const PER_SECOND: f64 = 1.0;
/// The bucket of one namespace, within that of all.
const BURST_OF_NAMESPACE: f64 = 20.0;
const PER_SECOND_OF_NAMESPACE: f64 = 0.2;
/// The time after which the same Event is written again.
const REPEATED_AFTER: Duration = Duration::from_secs(600);
/// Most that is remembered of what was said.
const MAX_REMEMBERED: usize = 4096;
/// The API server takes 1024 bytes.
const MAX_NOTE_BYTES: usize = 1000;
/// Longest name of an object, less what tells its Events apart.
const MAX_NAME_LEN: usize = 253 - 17;
/// Deadline of the write of one Event.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// An Event to be written: one thing that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// To which object.
    pub regarding: ObjectReference,
    /// Whether the Event needs someone's attention.
    pub warning: bool,
    /// A fixed CamelCase word.
    pub reason: &'static str,
    /// The operator's action, done or tried, in CamelCase.
    pub action: &'static str,
    /// The event, in a sentence.
    pub note: String,
}

/// A handle that takes Events, and never waits.
#[derive(Clone, Debug, Default)]
pub struct EventRecorder(Option<mpsc::Sender<Event>>);

impl EventRecorder {
    /// Where there is nobody to tell: it stands in the log.
    pub fn nowhere() -> Self {
        Self(None)
    }

    /// A recorder for tests, whose Events go to this channel.
    #[cfg(test)]
    pub(crate) fn to(sender: mpsc::Sender<Event>) -> Self {
        Self(Some(sender))
    }

    /// Writes Events as this pod. To be called within a runtime.
    pub fn start(client: Client, pod: &str) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_LEN);
        tokio::spawn(follow(client, pod.to_owned(), receiver));
        Self(Some(sender))
    }

    /// Says that something happened.
    pub fn publish(&self, event: Event) {
        if let Some(sender) = &self.0
            && sender.try_send(event).is_err()
        {
            metrics::get().events_dropped.inc();
        }
    }
}

async fn follow(client: Client, pod: String, mut receiver: mpsc::Receiver<Event>) {
    let mut bounds = Bounds::new(Instant::now());
    while let Some(event) = receiver.recv().await {
        match bounds.admit(&event, Instant::now()) {
            Admission::Repeated => {}
            Admission::TooMany => metrics::get().events_dropped.inc(),
            Admission::Write => write(&client, &pod, event).await,
        }
    }
}

#[derive(Debug, PartialEq)]
enum Admission {
    Write,
    /// Not long ago.
    Repeated,
    TooMany,
}

/// The bounds on Events: those of late, and how many more may be written.
struct Bounds {
    seen: BTreeMap<String, Instant>,
    all: Bucket,
    /// The buckets of namespaces that are not full.
    namespaces: BTreeMap<String, Bucket>,
}

/// How much more may be said.
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn fill(&mut self, rate: f64, burst: f64, now: Instant) {
        self.tokens = (self.tokens + now.duration_since(self.filled).as_secs_f64() * rate).min(burst);
        self.filled = now;
    }
}

impl Bounds {
    fn new(now: Instant) -> Self {
        let all = Bucket { tokens: BURST, filled: now };
        Self { seen: BTreeMap::new(), all, namespaces: BTreeMap::new() }
    }

    fn admit(&mut self, event: &Event, now: Instant) -> Admission {
        let Event { regarding, reason, note, .. } = event;
        let ObjectReference { kind, namespace, name, uid, .. } = regarding;
        let key = format!("{kind:?} {namespace:?} {name:?} {uid:?} {reason} {note}");
        if self.seen.get(&key).is_some_and(|at| now.duration_since(*at) < REPEATED_AFTER) {
            return Admission::Repeated;
        }
        self.all.fill(PER_SECOND, BURST, now);
        self.namespaces.retain(|_, bucket| {
            bucket.fill(PER_SECOND_OF_NAMESPACE, BURST_OF_NAMESPACE, now);
            bucket.tokens < BURST_OF_NAMESPACE
        });
        let namespace = namespace.clone().unwrap_or_default();
        let of_one = self.namespaces.entry(namespace).or_insert(Bucket { tokens: BURST_OF_NAMESPACE, filled: now });
        if self.all.tokens < 1.0 || of_one.tokens < 1.0 {
            return Admission::TooMany;
        }
        self.all.tokens -= 1.0;
        of_one.tokens -= 1.0;
        if self.seen.len() >= MAX_REMEMBERED {
            self.seen.retain(|_, at| now.duration_since(*at) < REPEATED_AFTER);
        }
        if self.seen.len() < MAX_REMEMBERED {
            self.seen.insert(key, now);
        }
        Admission::Write
    }
}

async fn write(client: &Client, pod: &str, event: Event) {
    let rendered = rendered(pod, event, Timestamp::now());
    let namespace = rendered.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Written> = Api::namespaced(client.clone(), &namespace);
    let params = PostParams::default();
    let Err(error) = request(REQUEST_TIMEOUT, api.create(&params, &rendered)).await else { return };
    match error.class() {
        Class::NotLeading => {}
        // Nobody waits for it; what it says stands in the log and in statuses too.
        Class::Unavailable | Class::NoAnswer => outage::log("an Event", api.resource_url(), &error),
        _ => tracing::warn!(%error, reason = rendered.reason, "an Event can't be written"),
    }
}

fn rendered(pod: &str, event: Event, now: Timestamp) -> Written {
    let Event { regarding, warning, reason, action, mut note } = event;
    cut(&mut note, MAX_NOTE_BYTES);
    let mut name = regarding.name.clone().unwrap_or_default();
    cut(&mut name, MAX_NAME_LEN);
    Written {
        metadata: ObjectMeta {
            // Unique without asking: as others name theirs.
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(regarding.namespace.clone().unwrap_or_else(|| "default".into())),
            ..ObjectMeta::default()
        },
        action: Some(action.to_owned()),
        reason: Some(reason.to_owned()),
        note: Some(note),
        type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
        event_time: Some(MicroTime(now)),
        regarding: Some(regarding),
        reporting_controller: Some(format!("sluice.dev/{MANAGER}")),
        reporting_instance: Some(pod.to_owned()),
        ..Written::default()
    }
}

fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, note: &str) -> Event {
        let regarding = ObjectReference {
            kind: Some("ApiRoute".into()),
            namespace: Some("shop".into()),
            name: Some(name.into()),
            ..ObjectReference::default()
        };
        Event { regarding, warning: true, reason: "BackendNotFound", action: "Plan", note: note.into() }
    }

    #[test]
    fn nothing_is_said_twice_and_nobody_is_flooded() {
        let start = Instant::now();
        let mut bounds = Bounds::new(start);
        assert_eq!(bounds.admit(&event("a", "x"), start), Admission::Write);
        assert_eq!(bounds.admit(&event("a", "x"), start + REPEATED_AFTER / 2), Admission::Repeated);
        assert_eq!(bounds.admit(&event("a", "y"), start), Admission::Write);
        assert_eq!(bounds.admit(&event("a", "x"), start + REPEATED_AFTER), Admission::Write);
        let later = start + REPEATED_AFTER;
        let written = (0..10_000).filter(|i| bounds.admit(&event(&i.to_string(), "x"), later) == Admission::Write);
        assert_eq!(written.count(), 19);
        assert_eq!(bounds.admit(&event("b", "x"), later), Admission::TooMany);
        assert_eq!(bounds.admit(&event("b", "x"), later + Duration::from_secs(1)), Admission::TooMany);
        assert_eq!(bounds.admit(&event("b", "x"), later + Duration::from_secs(5)), Admission::Write);
        // Others have theirs, up to that of all.
        let of = |namespace: String| {
            let other = event("a", "x");
            Event { regarding: ObjectReference { namespace: Some(namespace), ..other.regarding }, ..other }
        };
        let others =
            (0..100).filter(|i| bounds.admit(&of(i.to_string()), later + Duration::from_secs(5)) == Admission::Write);
        assert_eq!(others.count(), 34);
        for i in 0..10_000u32 {
            bounds.admit(&event(&i.to_string(), "z"), later + REPEATED_AFTER * 2 + Duration::from_secs(i.into()));
        }
        assert!(bounds.seen.len() <= MAX_REMEMBERED);
    }

    #[test]
    fn as_the_api_server_takes_it() {
        let written = rendered("pod-1", event(&"n".repeat(253), &"é".repeat(2000)), Timestamp::now());
        assert!(written.metadata.name.unwrap().len() <= 253);
        assert!(written.note.unwrap().len() <= 1024);
        assert_eq!(written.reporting_controller.as_deref(), Some("sluice.dev/sluice-operator"));
    }
}
