//! A watch of objects of which there are few: what there is as a whole, then each change, and failures, after each of which it
//! is tried again, later and later.

use std::{fmt::Debug, future::ready};

use futures::{Stream, StreamExt as _};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _,
        watcher::{Config, Error, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::backoff::{Backoff, Bounds};

/// A change that a watch brings.
#[derive(Debug)]
pub(crate) enum Change<T> {
    /// All objects that there are; others are no more.
    Listed(Vec<T>),
    /// An object that is new, or changed.
    Appeared(T),
    /// The end of an object, as it last was.
    Vanished(T),
    /// A change of an object that is not read: the watch works, and that is all.
    NotRead,
    /// A failure of the watch; the objects that it told of stay.
    Failing(Error),
}

/// Follows the objects of a kind for ever. `read` says what is kept of one, if anything.
pub(crate) fn changes<K, T>(
    api: Api<K>,
    which: Config,
    pauses: Bounds,
    read: impl Fn(K) -> Option<T>,
) -> impl Stream<Item = Change<T>>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut list = vec![];
    watcher(api, which).backoff(Backoff::new(pauses)).filter_map(move |event| {
        ready(match event {
            Ok(Event::Init) => {
                list.clear();
                None
            }
            Ok(Event::InitApply(object)) => {
                list.extend(read(object));
                None
            }
            Ok(Event::InitDone) => Some(Change::Listed(std::mem::take(&mut list))),
            Ok(Event::Apply(object)) => Some(read(object).map_or(Change::NotRead, Change::Appeared)),
            Ok(Event::Delete(object)) => Some(read(object).map_or(Change::NotRead, Change::Vanished)),
            Err(error) => Some(Change::Failing(error)),
        })
    })
}

/// The API server's words when the operator lacks the right to watch.
pub(crate) fn refusal(error: &Error) -> Option<&str> {
    let status = match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchFailed(kube::Error::Api(status)) => status,
        Error::WatchError(status) => status,
        _ => return None,
    };
    (status.code == 403).then_some(status.message.as_str())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::kube::{
        backoff::WATCH,
        testing::{Answer, api_server, status},
    };

    fn object(name: &str, version: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "resourceVersion": version}})
    }

    fn list(names: &[&str], more: &str) -> Answer {
        let items: Vec<_> = names.iter().map(|name| object(name, "3")).collect();
        let metadata = json!({"resourceVersion": "3", "continue": more});
        Answer::json(200, json!({"kind": "L", "apiVersion": "v1", "metadata": metadata, "items": items}))
    }

    fn events(events: &[(&str, Value)]) -> Answer {
        let lines = events.iter().map(|(kind, object)| json!({"type": kind, "object": object}).to_string() + "\n");
        Answer::Sent(200, lines.collect())
    }

    /// A list of which a page failed is told once, as a whole, when it is there.
    #[tokio::test(start_paused = true)]
    async fn what_there_is_is_told_as_a_whole_then_each_change() {
        let gone = || events(&[("ERROR", status(410))]);
        let mut answers = vec![
            Answer::status(403),
            list(&["a"], "more"),
            Answer::status(500),
            list(&["a", "other"], "more"),
            list(&["b"], ""),
            events(&[("ADDED", object("c", "4")), ("MODIFIED", object("other", "5")), ("DELETED", object("a", "6"))]),
            gone(),
            list(&["d"], ""),
        ]
        .into_iter();
        let (client, _asked) = api_server(move |_| answers.next().unwrap_or(Answer::Silence));
        let named = |found: ConfigMap| Some(found.name_any()).filter(|name| name != "other");
        let api: Api<ConfigMap> = Api::namespaced(client, "ns");
        let told = changes(api, Config::default().page_size(1), WATCH, named).map(|change| match change {
            Change::Failing(error) => format!("failing: {:?}", refusal(&error)),
            change => format!("{change:?}"),
        });
        let mut told = std::pin::pin!(told);
        let mut all = vec![];
        while let Ok(Some(change)) = tokio::time::timeout(Duration::from_secs(60), told.next()).await {
            all.push(change);
        }
        let expect = [
            "failing: Some(\"m\")",
            "failing: None",
            "Listed([\"a\", \"b\"])",
            "Appeared(\"c\")",
            "NotRead",
            "Vanished(\"a\")",
            "failing: None",
            "Listed([\"d\"])",
        ];
        assert_eq!(all, expect);
    }
}
