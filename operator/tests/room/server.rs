//! An API server that has whatever it is told, and makes it up as it is asked for it: thousands of megabytes take no room
//! here. What is written to it, it keeps.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Method, Request, Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::broadcast};

/// An object as JSON, made when it is asked for.
pub(crate) type Make = Arc<dyn Fn() -> String + Send + Sync>;
type Key = (&'static str, String, String);
type Body = StreamBody<stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

const HEAD: &str = "{\"kind\":\"List\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"1\"";

/// What there is, and who watches it.
#[derive(Clone)]
pub(crate) struct Server {
    objects: Arc<Mutex<BTreeMap<Key, Make>>>,
    news: broadcast::Sender<(&'static str, &'static str, Make)>,
    /// What was written, by path.
    written: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self { objects: Arc::default(), news: broadcast::channel(1 << 18).0, written: Arc::default() }
    }

    /// Serves it on this port until the runtime ends.
    pub(crate) async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let server = server.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.take(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        url
    }

    /// There is one more, or it is another now; of a resource by its plural.
    pub(crate) fn put(&self, plural: &'static str, namespace: &str, name: &str, make: Make) {
        let key = (plural, namespace.to_owned(), name.to_owned());
        self.objects.lock().unwrap().insert(key, Arc::clone(&make));
        let _ = self.news.send((plural, "ADDED", make));
    }

    pub(crate) fn delete(&self, plural: &'static str, namespace: &str, name: &str) {
        self.objects.lock().unwrap().remove(&(plural, namespace.to_owned(), name.to_owned())).unwrap();
        let last =
            format!("{{\"metadata\":{{\"name\":\"{name}\",\"namespace\":\"{namespace}\",\"resourceVersion\":\"2\"}}}}");
        let _ = self.news.send((plural, "DELETED", Arc::new(move || last.clone())));
    }

    /// What was written, by the paths of what it was written to.
    pub(crate) fn written(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.written.lock().unwrap()
    }

    async fn take(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::GET {
            return self.answer(&request);
        }
        let path = request.uri().path().to_owned();
        let text = request.into_body().collect().await.unwrap().to_bytes();
        let value: Value = serde_json::from_slice(&text).unwrap();
        // Events have no name, and nobody asks for them.
        if !path.ends_with("/events") {
            self.written().insert(path, value);
        }
        body(stream::iter([String::from_utf8(text.to_vec()).unwrap()]).boxed())
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let plural = path.rsplit('/').next().unwrap_or_default().to_owned();
        let query = request.uri().query().unwrap_or_default();
        let parameter = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        if parameter("watch").is_some() {
            let news = stream::unfold(self.news.subscribe(), async |mut news| Some((news.recv().await.ok()?, news)));
            let lines = news.filter_map(move |(of, what, make)| {
                let line = (of == plural).then(|| format!("{{\"type\":\"{what}\",\"object\":{}}}\n", make()));
                std::future::ready(line)
            });
            return body(lines.boxed());
        }
        // A ConfigMap or Secret of the operators' own.
        if plural.starts_with("sluice-") {
            let gone = json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "none"}).to_string();
            let mut response = body(stream::iter([gone]).boxed());
            *response.status_mut() = hyper::StatusCode::NOT_FOUND;
            return response;
        }
        let only = parameter("fieldSelector").and_then(|field| field.strip_prefix("metadata.name%3D"));
        let limit: usize = parameter("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
        let namespace =
            path.split_once("/namespaces/").and_then(|(_, rest)| rest.split_once('/')).map(|(name, _)| name);
        // After the last of the page before, which is `NAMESPACE.NAME`.
        let (after, first) = (parameter("continue").and_then(|last| last.split_once('.')), String::new());
        let objects = self.objects.lock().unwrap();
        let Some(of) = objects.keys().map(|(of, ..)| *of).find(|of| *of == plural) else {
            return body(stream::iter([format!("{HEAD}}},\"items\":[]}}")]).boxed());
        };
        let after = match after {
            Some((namespace, name)) => Bound::Excluded((of, namespace.to_owned(), name.to_owned())),
            None => Bound::Included((of, first.clone(), first)),
        };
        let found = objects.range((after, Bound::Unbounded)).take_while(|((of, ..), _)| *of == plural);
        let found = found.filter(|((_, in_namespace, name), _)| {
            namespace.is_none_or(|n| n == in_namespace) && only.is_none_or(|only| only == name)
        });
        let found: Vec<(&Key, Make)> = found.take(limit).map(|(key, make)| (key, Arc::clone(make))).collect();
        let more =
            found.get(limit - 1).map(|((_, namespace, name), _)| format!(",\"continue\":\"{namespace}.{name}\""));
        let found: Vec<Make> = found.into_iter().map(|(_, make)| make).collect();
        let head = format!("{HEAD}{}}},\"items\":[", more.unwrap_or_default());
        let items =
            found.into_iter().enumerate().map(|(i, make)| format!("{}{}", if i == 0 { "" } else { "," }, make()));
        body(stream::iter(std::iter::once(head).chain(items).chain(["]}".to_owned()])).boxed())
    }
}

fn body(parts: stream::BoxStream<'static, String>) -> Response<Body> {
    let frames = parts.map(|part| Ok(Frame::data(Bytes::from(part)))).boxed();
    Response::builder().header("content-type", "application/json").body(StreamBody::new(frames)).unwrap()
}
