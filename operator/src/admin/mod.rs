//! The admin port: `/metrics`, `/healthz`, `/readyz`, `/default-fleet` (`helm test` asks for it), and for clients on this
//! machine `/debug/{world,snapshot,decision}` and `/refusals`, which is what `sluice-operator refusals` asks.
//!
//! [`view`]: what the last reconciliation came to, as it is shown. [`metrics`]: the operator's own.

pub mod metrics;
pub mod view;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, Uri, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use snapshot::Key;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use transport::slots::ConnectionSlots;

use self::view::View;
use crate::{default_fleet, source::kube::Progress};

/// A client that sends no request for this long is let go.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait of a probe that would rather wait.
const MAX_PROBE_WAIT: Duration = Duration::from_secs(2);
/// Connections at a time; one more takes the place of another, so that probes are answered however many there are.
const MAX_CONNECTIONS: usize = 64;
/// A loop that began no reconciliation for this long is stuck: it waits for nothing, plans least of all.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Has a refusal forgotten, by a query that is its key.
pub const FORGET: &str = "/refusals/forget";
/// A header field that goes with it.
pub const ASKED_BY: &str = "sluice-asked-by";
const NOT_LEADING: &str = "this operator does not lead: ask the one that does (its pod holds the Lease)\n";

/// The content of the admin port.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The outcome of the last reconciliation.
    pub view: view::Shared,
    /// The meaning of readiness, on one machine or in a cluster.
    pub readiness: Readiness,
    /// Whether the fleet that comes with the installation is as it is defined.
    pub default_fleet: watch::Receiver<default_fleet::State>,
}

/// When the operator is ready.
#[derive(Clone, Debug)]
pub enum Readiness {
    /// Its fleets are: on one machine they are its own.
    Fleets,
    /// An operator is ready once it knows everything and can serve proxies, leading or not: fleets have a readiness of
    /// their own.
    Cluster {
        /// How far the watches are.
        progress: watch::Receiver<Progress>,
        /// The authorities that proxies trust this operator by; empty: it can't serve them yet.
        authorities: watch::Receiver<Arc<str>>,
    },
}

impl Readiness {
    /// The reasons why this operator is not ready; none: it is.
    fn lacks(&self, view: &view::Shared) -> Vec<String> {
        match (self, view.view()) {
            (Self::Fleets, Some(view)) => view.not_ready(),
            (Self::Fleets, None) => vec!["the manifests were not read yet".into()],
            (Self::Cluster { progress, .. }, _) if !progress.borrow().synced => vec![progress.borrow().to_string()],
            (Self::Cluster { .. }, None) => {
                vec!["nothing is planned yet: what there is of fleets is being listed".into()]
            }
            (Self::Cluster { authorities, .. }, _) if authorities.borrow().is_empty() => {
                vec!["there is no certificate authority yet: the leader makes one".into()]
            }
            (Self::Cluster { .. }, Some(_)) => vec![],
        }
    }
}

/// Why there is no admin port.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is reachable from elsewhere, and the port shows all there is.
    #[error("--admin {0} is not on loopback: it shows the whole configuration, so use 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// The port can't be opened.
    #[error("--admin {0}: {1}")]
    Bind(SocketAddr, io::Error),
}

/// Opens the port on loopback.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, AdminError> {
    if !address.ip().is_loopback() {
        return Err(AdminError::NotLoopback(address));
    }
    bind_anywhere(address).await
}

/// Opens the port where others reach it too: what `/debug` shows stays for clients on loopback, as `kubectl port-forward`
/// is one.
pub async fn bind_anywhere(address: SocketAddr) -> Result<TcpListener, AdminError> {
    match TcpListener::bind(address).await {
        // A machine without IPv6.
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            TcpListener::bind(address).await.map_err(|error| AdminError::Bind(address, error))
        }
        done => done.map_err(|error| AdminError::Bind(address, error)),
    }
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let slots = ConnectionSlots::new(MAX_CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (admin, mut slot) = (admin.clone(), slots.take(peer.ip()));
                tokio::spawn(async move {
                    tokio::select! {
                        () = connection(stream, peer, admin) => {}
                        () = slot.evicted() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin port");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, admin: Admin) {
    let near = peer.ip().to_canonical().is_loopback();
    let service = service_fn(|request| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(answer(&request, &admin, near).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
    // The client's own affair.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer<B>(request: &Request<B>, admin: &Admin, near: bool) -> Response<Full<Bytes>> {
    let view = &admin.view;
    if near && request.method() == Method::POST && request.uri().path() == FORGET {
        return forget(request, view);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    match request.uri().path() {
        "/healthz" => match view.since_turn().filter(|since| *since > STUCK_AFTER) {
            None => text(StatusCode::OK, "ok\n".into()),
            Some(since) => {
                let message = format!("the loop is stuck: its last turn began {} s ago\n", since.as_secs());
                text(StatusCode::SERVICE_UNAVAILABLE, message.into())
            }
        },
        "/readyz" => {
            let asked = Instant::now();
            let mut lacks = admin.readiness.lacks(view);
            // A probe that would rather wait (`?wait`) makes no warning of what is true of every operator that starts.
            while !lacks.is_empty() && asks(request.uri(), "wait") && asked.elapsed() < MAX_PROBE_WAIT {
                tokio::time::sleep(Duration::from_millis(50)).await;
                lacks = admin.readiness.lacks(view);
            }
            match lacks.is_empty() {
                true => text(StatusCode::OK, "ready\n".into()),
                false => text(StatusCode::SERVICE_UNAVAILABLE, (lacks.join("\n") + "\n").into()),
            }
        }
        "/default-fleet" => match &*admin.default_fleet.borrow() {
            default_fleet::State::AsDefined => text(StatusCode::OK, "as it is defined\n".into()),
            default_fleet::State::Unknown => {
                text(StatusCode::SERVICE_UNAVAILABLE, "there is none, or nothing is known of it yet\n".into())
            }
            default_fleet::State::NotAsDefined { why, .. } => {
                text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n").into())
            }
        },
        "/metrics" => text(StatusCode::OK, metrics::get().text().into()),
        path if (path.starts_with("/debug/") || path.starts_with("/refusals")) && !near => {
            let message = "shows the whole configuration, so only to clients on loopback: use kubectl port-forward\n";
            text(StatusCode::FORBIDDEN, message.into())
        }
        "/debug/world" => debug(view, View::world).await,
        "/debug/snapshot" => debug(view, View::snapshot).await,
        "/debug/decision" => debug(view, View::decision).await,
        "/refusals" if !view.is_leading() => text(StatusCode::CONFLICT, NOT_LEADING.into()),
        "/refusals" => debug(view, View::refusals).await,
        _ => {
            let paths = "/metrics /healthz /readyz /default-fleet /refusals /debug/{world,snapshot,decision}\n";
            text(StatusCode::NOT_FOUND, paths.into())
        }
    }
}

/// Whether a query has this parameter, as the proxy's admin port reads it.
fn asks(uri: &Uri, what: &str) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|parameter| parameter == what))
}

/// Has the loop forget what is refused of a resource.
fn forget<B>(request: &Request<B>, view: &view::Shared) -> Response<Full<Bytes>> {
    // No page of a browser on this machine can send it unasked.
    if !request.headers().contains_key(ASKED_BY) {
        return text(StatusCode::FORBIDDEN, "use `sluice-operator refusals forget KEY`\n".into());
    }
    if !view.is_leading() {
        return text(StatusCode::CONFLICT, NOT_LEADING.into());
    }
    let Ok(key) = request.uri().query().unwrap_or_default().parse::<Key>() else {
        return text(StatusCode::BAD_REQUEST, "the query is no key, such as Route/shop/orders\n".into());
    };
    if !view.view().is_some_and(|view| view.is_refused(&key)) {
        return text(StatusCode::NOT_FOUND, format!("no proxy refuses {key}\n").into());
    }
    match view.forget(key) {
        true => text(StatusCode::OK, "forgotten: it is tried again\n".into()),
        false => {
            text(StatusCode::TOO_MANY_REQUESTS, "too much is to be forgotten at once: try again in a second\n".into())
        }
    }
}

async fn debug(view: &view::Shared, render: fn(&View) -> serde_json::Value) -> Response<Full<Bytes>> {
    let Some(view) = view.view() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "nothing was planned yet\n".into());
    };
    // Thousands of routes take a while.
    let rendered = tokio::task::spawn_blocking(move || format!("{:#}\n", render(&view))).await;
    match rendered {
        Ok(json) => respond(StatusCode::OK, "application/json", json.into()),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "can't be shown\n".into()),
    }
}

fn text(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Instant};

    use http_body_util::BodyExt as _;
    use planner::Millis;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Bench {
        admin: Admin,
        progress: watch::Sender<Progress>,
        authorities: watch::Sender<Arc<str>>,
    }

    impl Bench {
        fn new() -> Self {
            let (progress, followed) = watch::channel(Progress::default());
            let (authorities, trusted) = watch::channel(Arc::from(""));
            let readiness = Readiness::Cluster { progress: followed, authorities: trusted };
            let default_fleet = watch::channel(default_fleet::State::default()).1;
            Self { admin: Admin { view: view::Shared::default(), readiness, default_fleet }, progress, authorities }
        }

        #[track_caller]
        fn get(&self, path: &str, near: bool) -> impl Future<Output = (u16, String)> {
            let request = Request::get(path).body(()).unwrap();
            async move {
                let answer = answer(&request, &self.admin, near).await;
                let status = answer.status().as_u16();
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                (status, String::from_utf8(body.to_vec()).unwrap())
            }
        }
    }

    #[tokio::test]
    async fn ready_once_it_knows_everything_and_can_serve_proxies() {
        let bench = Bench::new();
        let (status, body) = bench.get("/readyz", false).await;
        assert_eq!((status, body.starts_with("not synced")), (503, true), "{body}");
        bench.progress.send_modify(|progress| progress.synced = true);
        assert!(bench.get("/readyz", false).await.1.contains("nothing is planned yet"));
        bench.admin.view.set(View::new(&Arc::default(), &Arc::default(), &BTreeMap::new(), Millis(0)));
        assert!(bench.get("/readyz", false).await.1.contains("no certificate authority"));
        bench.authorities.send_replace(Arc::from("PEM"));
        assert_eq!(bench.get("/readyz", false).await, (200, "ready\n".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_may_wait() {
        let bench = Bench::new();
        for path in ["/readyz?wait", "/readyz?verbose&wait"] {
            let asked = tokio::time::Instant::now();
            let answer = tokio::time::timeout(MAX_PROBE_WAIT / 2, bench.get(path, false)).await;
            assert!(answer.is_err(), "{path} was answered after {:?}", asked.elapsed());
        }
        let answer = tokio::time::timeout(MAX_PROBE_WAIT / 2, bench.get("/readyz?waiting", false)).await;
        assert_eq!(answer.expect("an answer at once").0, 503);
    }

    #[tokio::test]
    async fn the_configuration_is_shown_to_this_machine_alone() {
        let bench = Bench::new();
        bench.admin.view.set(View::new(&Arc::default(), &Arc::default(), &BTreeMap::new(), Millis(0)));
        assert_eq!(bench.get("/debug/world", true).await.0, 200);
        for path in ["/debug/world", "/debug/snapshot", "/debug/decision", "/debug/", "/refusals"] {
            assert_eq!(bench.get(path, false).await.0, 403, "{path}");
        }
        assert_eq!(bench.get("/metrics", false).await.0, 200);
        assert_eq!(bench.get("/", false).await.0, 404);
    }

    #[tokio::test]
    async fn refusals_are_forgotten_by_who_leads_for_who_is_near() {
        let bench = Bench::new();
        bench.admin.view.set(View::new(&Arc::default(), &Arc::default(), &BTreeMap::new(), Millis(0)));
        let post = async |query: &str, by: &str, near: bool| {
            let request = Request::post(format!("{FORGET}?{query}")).header(by, "cli").body(()).unwrap();
            answer(&request, &bench.admin, near).await.status().as_u16()
        };
        assert_eq!(bench.get("/refusals", true).await.0, 409, "it does not lead");
        assert_eq!(post("Route/a/b", ASKED_BY, true).await, 409);
        bench.admin.view.leads(true);
        assert_eq!(bench.get("/refusals", true).await.0, 200);
        assert_eq!(post("Route/a/b", ASKED_BY, false).await, 405, "from elsewhere");
        assert_eq!(post("Route/a/b", "x-other", true).await, 403, "a page in a browser");
        assert_eq!(post("nonsense", ASKED_BY, true).await, 400);
        assert_eq!(post("Route/a/b", ASKED_BY, true).await, 404, "nobody refuses it");
        for _ in 0..100 {
            assert!(bench.admin.view.forget("Route/a/b".parse().unwrap()));
        }
        assert!(!bench.admin.view.forget("Route/a/b".parse().unwrap()), "bounded");
        assert_eq!(bench.admin.view.take_forgotten().len(), 100);
    }

    #[tokio::test]
    async fn answers_however_many_there_are() {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Bench::new().admin));
        let mut silent = vec![];
        for _ in 0..2 * MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut said = String::new();
        probe.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        // The first had to go.
        assert_eq!(silent[0].read(&mut [0]).await.unwrap_or_default(), 0);
    }

    #[tokio::test]
    async fn healthy_until_the_loop_is_stuck() {
        let bench = Bench::new();
        assert_eq!(bench.get("/healthz", false).await.0, 200, "it has not begun");
        bench.admin.view.turned(Instant::now().checked_sub(STUCK_AFTER + Duration::from_secs(1)).unwrap());
        assert_eq!(bench.get("/healthz", false).await.0, 503);
        bench.admin.view.turned(Instant::now());
        assert_eq!(bench.get("/healthz", false).await.0, 200);
    }
}
