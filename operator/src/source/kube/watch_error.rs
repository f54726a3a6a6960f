//! Failures of watches, and their likely cause: logged once, not at each attempt.

use std::{collections::BTreeMap, error::Error as _, fmt::Write as _};

use kube::{core::Status, runtime::watcher};

use super::resource::Watched;

/// Why a watch does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// The API server is not reached, or silent.
    Unreachable,
    /// The operator may not.
    Forbidden,
    /// The API server does not know who asks.
    Unauthorized,
    /// The API server does not know the resource.
    Missing,
    /// The API server says something else.
    Other,
}

/// A watch that does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    /// The failure, its cause and the fix.
    pub(super) message: String,
}

impl Failure {
    /// A list that the API server does not answer.
    pub(super) fn silent() -> Self {
        Self { cause: Cause::Unreachable, message: "the API server can't be reached: no answer in time".into() }
    }

    /// `None`: nothing is wrong, the watch fell behind and lists anew.
    pub(super) fn of(watched: &Watched, error: &watcher::Error) -> Option<Self> {
        let (asked, error) = match error {
            watcher::Error::InitialListFailed(error) => ("list", error),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => ("watch", error),
            watcher::Error::WatchError(status) => return Self::of_status(watched, "watch", status),
            watcher::Error::NoResourceVersion => {
                let message = format!("{}: the API server lists it without resourceVersion", watched.name);
                return Some(Self { cause: Cause::Other, message });
            }
        };
        match error {
            kube::Error::Api(status) => Self::of_status(watched, asked, status),
            kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
                let message = format!("the API server can't be reached: {}", innermost(error));
                Some(Self { cause: Cause::Unreachable, message })
            }
            error => {
                Some(Self { cause: Cause::Other, message: format!("can't {asked} {}: {}", watched.name, chain(error)) })
            }
        }
    }

    fn of_status(watched: &Watched, asked: &str, status: &Status) -> Option<Self> {
        let (name, said) = (watched.name, status.message.trim());
        let (cause, message) = match status.code {
            410 => return None,
            403 => (
                Cause::Forbidden,
                format!(
                    "{name}: the operator may not {asked} them: its ClusterRole must allow list and watch of {name}, and a \
                     ClusterRoleBinding give it to the operator's ServiceAccount ({said})"
                ),
            ),
            401 => (
                Cause::Unauthorized,
                format!("{name}: the API server does not accept the operator's credentials ({said})"),
            ),
            404 => (Cause::Missing, format!("{name}: the API server does not know them: {}", watched.remedy())),
            code => (Cause::Other, format!("can't {asked} {name}: the API server answers {code} ({said})")),
        };
        Some(Self { cause, message })
    }
}

/// The outages that there are: what was said of each watch.
#[derive(Debug, Default)]
pub(super) struct Outages(BTreeMap<&'static str, Vec<Cause>>);

impl Outages {
    /// A watch fails: says so, once for each cause of an outage; that nobody answers, once for all watches.
    pub(super) fn begin(&mut self, watch: &'static str, failure: &Failure) -> bool {
        let is_new_cause = match failure.cause {
            Cause::Unreachable => !self.0.values().flatten().any(|cause| *cause == Cause::Unreachable),
            cause => !self.0.get(watch).is_some_and(|told| told.contains(&cause)),
        };
        self.0.entry(watch).or_default().push(failure.cause);
        self.0.entry(watch).or_default().dedup();
        is_new_cause
    }

    /// A watch works again. Gives back whether there was an outage, and whether another is left.
    pub(super) fn end(&mut self, watch: &'static str) -> (bool, bool) {
        (self.0.remove(watch).is_some(), !self.0.is_empty())
    }
}

/// An error with what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Many repeat what is below them.
        if !text.contains(&error.to_string()) {
            let _ = write!(text, ": {error}");
        }
        source = error.source();
    }
    text
}

/// The innermost cause of an error.
fn innermost(error: &kube::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match (error.source(), innermost.to_string().as_str()) {
        (None, _) => chain(error),
        (_, "deadline has elapsed") => "no answer in time".into(), // tokio's words
        (_, text) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use planner::Kind;

    use super::{super::resource, *};

    fn status(code: u16, message: &str) -> Box<Status> {
        Box::new(Status { code, message: message.into(), ..Status::default() })
    }

    #[track_caller]
    fn check(error: &watcher::Error, expect: Option<(Cause, &str)>) {
        let failure = Failure::of(resource::of(Kind::ApiRoute), error);
        assert_eq!(failure.as_ref().map(|f| (f.cause, f.message.as_str())), expect);
    }

    #[test]
    fn causes() {
        use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
        check(&WatchError(status(410, "too old")), None);
        check(&InitialListFailed(kube::Error::Api(status(410, "the continue token is too old"))), None);
        check(
            &InitialListFailed(kube::Error::Api(status(403, "apiroutes.sluice.dev is forbidden"))),
            Some((
                Cause::Forbidden,
                "apiroutes.sluice.dev: the operator may not list them: its ClusterRole must allow list and watch of \
                 apiroutes.sluice.dev, and a ClusterRoleBinding give it to the operator's ServiceAccount \
                 (apiroutes.sluice.dev is forbidden)",
            )),
        );
        check(
            &InitialListFailed(kube::Error::Api(status(404, "404 page not found"))),
            Some((
                Cause::Missing,
                "apiroutes.sluice.dev: the API server does not know them: its CustomResourceDefinition is not installed: \
                 upgrade the Helm release with crds.enabled=true, or `kubectl apply --server-side -f` the files of crds/yaml",
            )),
        );
        check(
            &WatchStartFailed(kube::Error::Api(status(500, "etcd"))),
            Some((Cause::Other, "can't watch apiroutes.sluice.dev: the API server answers 500 (etcd)")),
        );
        check(
            &WatchFailed(kube::Error::ReadEvents(std::io::Error::other("connection reset"))),
            Some((Cause::Unreachable, "the API server can't be reached: connection reset")),
        );
    }

    #[test]
    fn said_once() {
        let failure = |cause| Failure { cause, message: String::new() };
        let mut outages = Outages::default();
        assert!(outages.begin("a", &failure(Cause::Unreachable)));
        assert!(!outages.begin("a", &failure(Cause::Unreachable)));
        assert!(!outages.begin("b", &failure(Cause::Unreachable)));
        assert!(outages.begin("b", &failure(Cause::Forbidden)));
        assert!(!outages.begin("b", &failure(Cause::Unreachable)));
        assert!(!outages.begin("b", &failure(Cause::Forbidden)));
        assert!(outages.begin("a", &failure(Cause::Forbidden)));
        assert_eq!(outages.end("a"), (true, true));
        assert_eq!(outages.end("a"), (false, true));
        assert_eq!(outages.end("b"), (true, false));
        assert!(outages.begin("a", &failure(Cause::Unreachable)));
    }
}
