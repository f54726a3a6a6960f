//! One watch, step by step: kube's watcher, with back-off, and with outages that begin and end.

use std::time::Duration;

use futures::{StreamExt as _, stream::BoxStream};
use kube::{
    Api, Client,
    runtime::{
        utils::Backoff as _,
        watcher::{self, DefaultBackoff, Event, watcher},
    },
};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    outage::{Cause, Failure},
    raw::Raw,
    resource::Watched,
};

/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The same while the resource is not known: it is about to be installed.
const MAX_PAUSE_MISSING: Duration = Duration::from_secs(1);
/// A watch that did not fail again within this time after an attempt works again. Nothing else says so while nothing
/// changes. Longer than kube's client tries to connect (30 s).
const QUIET: Duration = Duration::from_secs(35);

/// What a watch came to.
#[derive(Debug)]
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
    pub(super) fn new(client: Client, watched: &'static Watched, version: &str) -> Self {
        let api = Api::all_with(client, &watched.api(version));
        let stream = watcher(api, watched.config()).boxed();
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
