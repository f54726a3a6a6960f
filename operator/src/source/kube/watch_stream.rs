//! A watch, step by step: kube's watcher, with back-off, with outages that begin and end, and with a permit for each
//! page that it lists (lists.rs).

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use kube::{
    Api, Client,
    core::{ApiResource, DynamicResourceScope, PartialObjectMeta, Resource},
    runtime::watcher::{self, Event, watcher},
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until, timeout},
};

use super::{
    lists::Lists,
    raw::{self, Raw},
    resource::Watched,
    watch_error::{Cause, Failure},
};
use crate::kube::backoff::{self, Backoff};

/// Longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Longest pause while the resource is not known: it is about to be installed.
const MAX_BACKOFF_MISSING: Duration = Duration::from_secs(1);
/// Longest pause while the operator has no right to it: who gives it one looks whether that helped.
const MAX_BACKOFF_FORBIDDEN: Duration = Duration::from_secs(3);
/// A watch that did not fail again within this time after an attempt works again. Nothing else says so while nothing
/// changes. Longer than kube's client tries to connect (30 s).
const RECOVERED_AFTER: Duration = Duration::from_secs(35);

/// A page of a list is there within this time, or the list begins anew: others wait for its permit meanwhile. Shorter
/// than [`RECOVERED_AFTER`], or a list that hangs would be taken for a watch that works again.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// The outcome of a step of a watch.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // taken apart as soon as it is there
pub(super) enum WatchStep {
    /// An event of the watcher.
    Event(Event<Raw>),
    /// A failure of the watch; its former objects stay.
    Failing(Failure),
    /// The end of a failure.
    Well,
}

/// A watch of one resource, in one namespace or in all.
pub(super) struct WatchStream {
    client: Client,
    watched: &'static Watched,
    version: &'static str,
    namespace: Option<Arc<str>>,
    stream: BoxStream<'static, watcher::Result<Event<Raw>>>,
    backoff: Backoff,
    /// The next attempt is not before.
    pause: Option<Instant>,
    failing: bool,
    /// To be told after it was told that the watch works again.
    next: Option<Event<Raw>>,
    lists: Lists,
    listing: bool,
    /// While it lists: until a page is told, or fails; and how much of it is not told yet.
    turn: Option<OwnedSemaphorePermit>,
    left: u32,
}

impl WatchStream {
    /// In one namespace, or in all.
    pub(super) fn new(
        client: Client,
        lists: Lists,
        watched: &'static Watched,
        version: &'static str,
        namespace: Option<Arc<str>>,
    ) -> Self {
        let stream = stream(client.clone(), watched, version, namespace.as_deref());
        let backoff = Backoff::new(backoff::WATCH);
        Self {
            client,
            watched,
            version,
            namespace,
            stream,
            backoff,
            pause: None,
            failing: false,
            next: None,
            lists,
            listing: false,
            turn: None,
            left: 0,
        }
    }

    /// The next step. Nothing is lost when it is not waited for to the end.
    pub(super) async fn next(&mut self) -> WatchStep {
        loop {
            if let Some(event) = self.next.take() {
                return WatchStep::Event(event);
            }
            if let Some(until) = self.pause {
                sleep_until(until).await;
                self.pause = None;
            }
            if self.listing && self.turn.is_none() {
                self.turn = self.lists.turn().await;
                self.left = self.watched.page;
            }
            let silence = match (&self.turn, self.failing) {
                (Some(_), _) => PAGE_TIMEOUT,
                (None, true) => RECOVERED_AFTER,
                (None, false) => Duration::MAX,
            };
            let Ok(step) = timeout(silence, self.stream.next()).await else {
                self.failing = std::mem::take(&mut self.listing);
                if !self.failing {
                    return WatchStep::Well;
                }
                self.turn = None;
                self.stream = stream(self.client.clone(), self.watched, self.version, self.namespace.as_deref());
                return WatchStep::Failing(Failure::silent());
            };
            if matches!(step, Some(Ok(Event::InitApply(_)))) {
                self.left = self.left.saturating_sub(1);
            } else {
                self.listing = matches!(step, Some(Ok(Event::Init)));
            }
            // Whatever a list came to: who is about to wait, for a permit or for the next attempt, must not have one.
            if !self.listing || self.left == 0 {
                self.turn = None;
            }
            match step {
                // It never ends; should it, there is nothing to be told.
                None => std::future::pending().await,
                Some(Ok(Event::Init)) => return WatchStep::Event(Event::Init), // only the intention to list
                Some(Ok(event)) => {
                    self.backoff.reset();
                    if !std::mem::take(&mut self.failing) {
                        return WatchStep::Event(event);
                    }
                    self.next = Some(event);
                    return WatchStep::Well;
                }
                Some(Err(error)) => {
                    let failure = Failure::of(self.watched, &error);
                    tracing::debug!(watch = self.watched.name, %error, ?failure, "a watch failed");
                    let most = match &failure {
                        Some(Failure { cause: Cause::Missing, .. }) => MAX_BACKOFF_MISSING,
                        Some(Failure { cause: Cause::Forbidden, .. }) => MAX_BACKOFF_FORBIDDEN,
                        _ => MAX_BACKOFF,
                    };
                    let pause = self.backoff.pause().min(most);
                    self.pause = Some(Instant::now() + pause);
                    if let Some(failure) = failure {
                        self.failing = true;
                        return WatchStep::Failing(failure);
                    }
                }
            }
        }
    }
}

fn stream(
    client: Client,
    watched: &Watched,
    version: &str,
    namespace: Option<&str>,
) -> BoxStream<'static, watcher::Result<Event<Raw>>> {
    match watched.names_only {
        false => watcher(api::<Raw>(client, watched, version, namespace), watched.config()).boxed(),
        true => {
            let api = api::<PartialObjectMeta<Raw>>(client, watched, version, namespace);
            watcher(api, watched.config()).map_ok(raw::named).boxed()
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
    use planner::Kind;
    use serde_json::{Value, json};
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::{super::resource, *};
    use crate::kube::testing::{Answer, Asked, api_server, status};

    /// A client whose requests are answered one after the other; the last watch stays open. Gives back what was asked.
    fn client(answers: Vec<(u16, String)>) -> (Client, UnboundedReceiver<Asked>) {
        let mut answers = answers.into_iter();
        api_server(move |_| answers.next().map_or(Answer::Silence, |(code, body)| Answer::Sent(code, body)))
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
            let (client, mut asked) = client(answers);
            let mut steps = WatchStream::new(client, Lists::default(), resource::of(Kind::ApiRoute), "v1alpha1", None);
            let mut told = vec![];
            while told.len() < expect.len() {
                told.push(match steps.next().await {
                    WatchStep::Event(event) => event.to_string(),
                    WatchStep::Failing(failure) => format!("failing: {:?}", failure.cause),
                    WatchStep::Well => "well".into(),
                });
            }
            assert_eq!(told, expect);
            let asked: Vec<String> = std::iter::from_fn(|| Some(asked.try_recv().ok()?.uri.to_string())).collect();
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
            &["/apis/sluice.dev/v1alpha1/apiroutes?&limit=8", "limit", "limit"],
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

    /// A page of a list that is not over.
    fn page(version: &str, names: &[&str]) -> String {
        list(version, names).replace("\"resourceVersion\"", "\"continue\":\"more\",\"resourceVersion\"")
    }

    /// What watches tell that list at one time, until their lists are over.
    async fn listed(watches: Vec<Vec<(u16, String)>>) -> Vec<Vec<String>> {
        let lists = Lists::default();
        let follow = watches.into_iter().map(|answers| {
            let lists = lists.clone();
            async move {
                let mut steps =
                    WatchStream::new(client(answers).0, lists, resource::of(Kind::ApiRoute), "v1alpha1", None);
                let mut told = vec![];
                loop {
                    match steps.next().await {
                        WatchStep::Event(Event::InitDone) => return told,
                        WatchStep::Event(event) => told.push(event.to_string()),
                        WatchStep::Failing(failure) => told.push(failure.message),
                        WatchStep::Well => told.push("well".into()),
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
        let all = futures::future::join_all(follow);
        timeout(Duration::from_secs(3600), all).await.expect("each comes to its end")
    }

    /// However long another's list is.
    #[tokio::test(start_paused = true)]
    async fn there_is_a_turn_for_each_page() {
        let lists = Lists::default();
        let full: Vec<_> = (0..resource::of(Kind::ApiRoute).page).map(|i| format!("r{i}")).collect();
        let full: Vec<_> = full.iter().map(String::as_str).collect();
        let begin = |answers| {
            WatchStream::new(client(answers).0, lists.clone(), resource::of(Kind::ApiRoute), "v1alpha1", None)
        };
        let mut long = [(), ()].map(|()| begin(vec![(200, page("3", &full)), (200, list("3", &["last"]))]));
        for steps in &mut long {
            for _ in 0..=full.len() {
                assert!(matches!(steps.next().await, WatchStep::Event(Event::Init | Event::InitApply(_))));
            }
        }
        // Both have more pages; neither is asked for the next one meanwhile.
        let mut short = begin(vec![(200, list("3", &[]))]);
        assert!(matches!(short.next().await, WatchStep::Event(Event::Init)));
        let done = timeout(Duration::from_secs(1), short.next()).await;
        assert!(matches!(done, Ok(WatchStep::Event(Event::InitDone))), "{done:?}");
    }

    /// As when etcd forgets what both read of: each has a permit, and begins anew.
    #[tokio::test(start_paused = true)]
    async fn lists_that_begin_anew_do_not_wait_for_each_other() {
        let answers = || vec![(200, page("3", &["a"])), (410, status(410).to_string()), (200, list("9", &["b"]))];
        let expect = ["Init", "InitApply(a)", "Init", "InitApply(b)"];
        assert_eq!(listed(vec![answers(), answers(), answers()]).await, vec![expect; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_not_answered_gives_its_turn_to_others() {
        let (began, lists) = (Instant::now(), Lists::default());
        let stuck = [(), ()].map(|()| {
            let mut steps =
                WatchStream::new(client(vec![]).0, lists.clone(), resource::of(Kind::ApiRoute), "v1alpha1", None);
            tokio::spawn(async move { (steps.next().await, steps.next().await, steps) })
        });
        tokio::task::yield_now().await;
        let mut third = WatchStream::new(
            client(vec![(200, list("3", &[]))]).0,
            lists,
            resource::of(Kind::ApiRoute),
            "v1alpha1",
            None,
        );
        assert!(matches!(third.next().await, WatchStep::Event(Event::Init)));
        assert!(matches!(third.next().await, WatchStep::Event(Event::InitDone)));
        assert_eq!(began.elapsed(), PAGE_TIMEOUT);
        for stuck in stuck {
            let (_, told, _steps) = stuck.await.unwrap();
            assert!(
                matches!(&told, WatchStep::Failing(failure) if failure.message.contains("no answer in time")),
                "{told:?}"
            );
        }
    }
}
