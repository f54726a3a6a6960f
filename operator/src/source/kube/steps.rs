//! One watch, step by step: kube's watcher, with back-off, and with outages that begin and end.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use kube::{
    Api, Client,
    core::{ApiResource, DynamicResourceScope, PartialObjectMeta, Resource},
    runtime::{
        utils::Backoff as _,
        watcher::{self, DefaultBackoff, Event, watcher},
    },
};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    outage::{Cause, Failure},
    raw::{self, Raw},
    resource::Watched,
};

/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The same while the resource is not known: it is about to be installed.
const MAX_PAUSE_MISSING: Duration = Duration::from_secs(1);
/// The same while the operator has no right to it: who gives it one looks whether that helped.
const MAX_PAUSE_FORBIDDEN: Duration = Duration::from_secs(3);
/// A watch that did not fail again within this time after an attempt works again. Nothing else says so while nothing
/// changes. Longer than kube's client tries to connect (30 s).
const QUIET: Duration = Duration::from_secs(35);

/// What a watch came to.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // taken apart as soon as it is there
pub(super) enum Step {
    /// News.
    Event(Event<Raw>),
    /// It does not work. What it said before stays.
    Failing(Failure),
    /// It works again.
    Well,
}

/// One watch.
pub(super) struct Steps {
    watched: &'static Watched,
    stream: BoxStream<'static, watcher::Result<Event<Raw>>>,
    backoff: DefaultBackoff,
    /// The next attempt is not before.
    pause: Option<Instant>,
    failing: bool,
    /// To be told after it was told that the watch works again.
    next: Option<Event<Raw>>,
}

impl Steps {
    /// In one namespace, or in all.
    pub(super) fn new(client: Client, watched: &'static Watched, version: &str, namespace: Option<&str>) -> Self {
        let stream = match watched.names_only {
            false => watcher(api::<Raw>(client, watched, version, namespace), watched.config()).boxed(),
            true => {
                let api = api::<PartialObjectMeta<Raw>>(client, watched, version, namespace);
                watcher(api, watched.config()).map_ok(raw::named).boxed()
            }
        };
        Self { watched, stream, backoff: DefaultBackoff::default(), pause: None, failing: false, next: None }
    }

    /// The next step. Nothing is lost when it is not waited for to the end.
    pub(super) async fn next(&mut self) -> Step {
        loop {
            if let Some(event) = self.next.take() {
                return Step::Event(event);
            }
            if let Some(until) = self.pause {
                sleep_until(until).await;
                self.pause = None;
            }
            let step = match self.failing {
                false => self.stream.next().await,
                true => match timeout(QUIET, self.stream.next()).await {
                    Ok(step) => step,
                    Err(_) => {
                        self.failing = false;
                        return Step::Well;
                    }
                },
            };
            match step {
                // It never ends; should it, there is nothing to be told.
                None => std::future::pending().await,
                Some(Ok(Event::Init)) => return Step::Event(Event::Init), // only the intention to list
                Some(Ok(event)) => {
                    self.backoff.reset();
                    if !std::mem::take(&mut self.failing) {
                        return Step::Event(event);
                    }
                    self.next = Some(event);
                    return Step::Well;
                }
                Some(Err(error)) => {
                    let failure = Failure::of(self.watched, &error);
                    tracing::debug!(watch = self.watched.name, %error, ?failure, "a watch failed");
                    let most = match &failure {
                        Some(Failure { cause: Cause::Missing, .. }) => MAX_PAUSE_MISSING,
                        Some(Failure { cause: Cause::Forbidden, .. }) => MAX_PAUSE_FORBIDDEN,
                        _ => MAX_PAUSE,
                    };
                    let pause = self.backoff.next().unwrap_or(most).min(most);
                    self.pause = Some(Instant::now() + pause);
                    if let Some(failure) = failure {
                        self.failing = true;
                        return Step::Failing(failure);
                    }
                }
            }
        }
    }
}

fn api<K>(client: Client, watched: &Watched, version: &str, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
{
    let resource = watched.api(version);
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
    };

    use http_body_util::BodyExt as _;
    use hyper::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::{super::resource::REQUIRED, *};

    /// A client whose requests are answered one after the other; the last watch stays open. Gives back what was asked.
    fn client(answers: Vec<(u16, String)>) -> (Client, Arc<Mutex<Vec<String>>>) {
        let (answers, asked) = (Arc::new(Mutex::new(VecDeque::from(answers))), Arc::<Mutex<Vec<String>>>::default());
        let asks = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let (answers, asks) = (Arc::clone(&answers), Arc::clone(&asks));
            async move {
                asks.lock().unwrap().push(request.uri().to_string());
                let answer = answers.lock().unwrap().pop_front();
                let Some((code, body)) = answer else { return std::future::pending().await };
                let body = http_body_util::Full::new(bytes::Bytes::from(body)).boxed();
                Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        (Client::new(service, "default"), asked)
    }

    fn status(code: u16) -> Value {
        json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "m", "reason": "r", "code": code})
    }

    fn list(version: &str, names: &[&str]) -> String {
        let items: Vec<_> = names.iter().map(|name| json!({"metadata": {"name": name}})).collect();
        json!({"kind": "L", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}).to_string()
    }

    fn events(events: &[(&str, Value)]) -> String {
        events.iter().map(|(kind, object)| json!({"type": kind, "object": object}).to_string() + "\n").collect()
    }

    #[track_caller]
    fn check(answers: Vec<(u16, String)>, expect: &[&str], asks: &[&str]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (client, asked) = client(answers);
            let mut steps = Steps::new(client, &REQUIRED[1], "v1alpha1", None);
            let mut told = vec![];
            while told.len() < expect.len() {
                told.push(match steps.next().await {
                    Step::Event(event) => event.to_string(),
                    Step::Failing(failure) => format!("failing: {:?}", failure.cause),
                    Step::Well => "well".into(),
                });
            }
            assert_eq!(told, expect);
            let asked = asked.lock().unwrap().clone();
            let fits = asked.len() == asks.len() && asked.iter().zip(asks).all(|(uri, part)| uri.contains(part));
            assert!(fits, "{asked:#?}");
        });
    }

    #[test]
    fn what_is_missing_is_waited_for() {
        let missing = || (404, "404 page not found\n".to_owned());
        check(
            vec![missing(), missing(), (200, list("3", &["a"]))],
            &["Init", "failing: Missing", "Init", "failing: Missing", "Init", "well", "InitApply(a)", "InitDone"],
            &["/apis/sluice.dev/v1alpha1/apiroutes?&limit=25", "limit", "limit"],
        );
    }

    #[test]
    fn one_that_fell_behind_lists_anew() {
        let odd = json!({"metadata": {"name": "b", "resourceVersion": "5"}, "spec": [null, {"x": 1e99}], "kind": 7});
        let bookmark = json!({"kind": "ApiRoute", "apiVersion": "v", "metadata": {"resourceVersion": "9"}});
        check(
            vec![
                (200, list("3", &["a"])),
                (200, events(&[("ADDED", odd), ("BOOKMARK", bookmark)])),
                (200, events(&[("ERROR", status(410))])),
                (200, list("12", &["c"])),
            ],
            &["Init", "InitApply(a)", "InitDone", "Apply(b)", "Init", "InitApply(c)", "InitDone"],
            &["limit", "resourceVersion=3", "resourceVersion=9", "limit"],
        );
    }

    #[test]
    fn a_watch_that_is_quiet_again_works() {
        check(
            vec![(200, list("3", &[])), (503, status(503).to_string()), (403, status(403).to_string())],
            &["Init", "InitDone", "failing: Other", "failing: Forbidden", "well"],
            &["limit", "resourceVersion=3", "resourceVersion=3", "resourceVersion=3"],
        );
    }
}
