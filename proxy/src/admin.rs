//! The admin port, for people on this machine: to anybody else it says whether this proxy is ready, which the kubelet
//! asks, and nothing more. And the metrics port, for collectors, where there are any: metrics, and whether this process
//! is alive.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{net::TcpListener, task::AbortHandle};

use crate::{Shared, telemetry};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// A client that sends no request for this long is let go.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait of a probe that would rather wait.
const MAX_PROBE_WAIT: Duration = Duration::from_secs(2);
/// Connections at a time, whose descriptors are kept for them. One more ends the oldest, so that probes are answered
/// however many there are.
const MAX_CONNECTIONS: usize = 16;

/// The purpose of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// Everything, for clients on loopback; readiness for anybody.
    Admin,
    /// Metrics and liveness, for whoever reaches it.
    Metrics,
}

/// Serves in the background; answers where.
pub(crate) async fn serve(shared: Arc<Shared>, address: SocketAddr, port: Port) -> io::Result<SocketAddr> {
    let listener = match TcpListener::bind(address).await {
        // A machine without IPv6, where a pod's `[::]` is meant as "everywhere".
        Err(e) if address.ip() == Ipv6Addr::UNSPECIFIED && e.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await?
        }
        done => done?,
    };
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let mut open = VecDeque::<AbortHandle>::with_capacity(MAX_CONNECTIONS);
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    // No descriptor left, most likely: those of others end.
                    tracing::warn!(?port, "{e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            open.retain(|connection| !connection.is_finished());
            if open.len() >= MAX_CONNECTIONS
                && let Some(oldest) = open.pop_front()
            {
                oldest.abort();
            }
            let shared = Arc::clone(&shared);
            let connection = tokio::spawn(async move {
                let is_near = peer.ip().to_canonical().is_loopback();
                let service = service_fn(move |request: Request<Incoming>| {
                    let shared = Arc::clone(&shared);
                    async move {
                        Ok::<_, Infallible>(match port {
                            Port::Admin => {
                                wait(&shared, &request).await;
                                admin(&shared, &request, is_near)
                            }
                            Port::Metrics => metrics(&shared, &request),
                        })
                    }
                });
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
                if let Err(e) = builder.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!("admin connection: {e}");
                }
            });
            open.push_back(connection.abort_handle());
        }
    });
    Ok(address)
}

fn admin<B>(shared: &Shared, request: &Request<B>, is_near: bool) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !is_near && path != "/readyz" {
        // Also of a path that there is not: nothing is to be found out.
        return response(
            StatusCode::FORBIDDEN,
            TEXT,
            "only /readyz; the rest is for clients on loopback: use kubectl port-forward\n",
        );
    }
    if let Some(refusal) = refuse(request) {
        return refusal;
    }
    match path {
        "/healthz" => response(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => ready(shared, request.uri()),
        "/metrics" => exposition(shared),
        "/config" => response(StatusCode::OK, JSON, config(shared)),
        "/connections" => match shared.connections_report.get() {
            Some(report) => response(StatusCode::OK, JSON, report().to_string()),
            None => response(StatusCode::NOT_FOUND, TEXT, "this server does not report its connections\n"),
        },
        _ => response(StatusCode::NOT_FOUND, TEXT, "/metrics /readyz /healthz /config /connections\n"),
    }
}

fn metrics<B>(shared: &Shared, request: &Request<B>) -> Response<Full<Bytes>> {
    if let Some(refusal) = refuse(request) {
        return refusal;
    }
    match request.uri().path() {
        "/healthz" => response(StatusCode::OK, TEXT, "ok\n"),
        "/metrics" => exposition(shared),
        _ => response(StatusCode::NOT_FOUND, TEXT, "/metrics /healthz\n"),
    }
}

/// Nothing is to be changed here.
fn refuse<B>(request: &Request<B>) -> Option<Response<Full<Bytes>>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    (!is_read).then(|| response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n"))
}

fn exposition(shared: &Shared) -> Response<Full<Bytes>> {
    response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", telemetry::metrics(shared))
}

/// Waits for a while until there is a configuration, where a probe says so (`?wait`): it would be told otherwise what
/// is true of every proxy that starts, and make a warning of it.
async fn wait<B>(shared: &Shared, request: &Request<B>) {
    if request.uri().path() == "/readyz" && asks(request.uri(), "wait") && !shared.is_draining() {
        let mut status = shared.status.subscribe();
        let _ = tokio::time::timeout(MAX_PROBE_WAIT, status.wait_for(|status| status.ready)).await;
    }
}

/// Whether a query has this.
fn asks(uri: &Uri, what: &str) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|part| part == what))
}

/// The answer to a readiness probe. A proxy that drains serves still, and Kubernetes knows that its pod is to go: so it
/// leaves that check out, as it is left out of the API server's own health (`?exclude=drain`).
fn ready(shared: &Shared, uri: &Uri) -> Response<Full<Bytes>> {
    if shared.is_draining() && !asks(uri, "exclude=drain") {
        return response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n");
    }
    match shared.status.borrow().ready {
        true => response(StatusCode::OK, TEXT, "ready\n"),
        false => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "no configuration yet\n"),
    }
}

fn config(shared: &Shared) -> String {
    let status = shared.status.borrow().clone();
    let config = shared.config.load();
    let ports: Vec<_> = config.ports.keys().copied().collect();
    json!({
        "revision": status.pushed,
        "running": status.running,
        "epoch": status.epoch,
        "ready": status.ready && !shared.is_draining(),
        "draining": shared.is_draining(),
        "ports": ports,
        "consumers": config.consumers.len(),
        "credentials": config.consumers.credentials(),
        "nacks": status.nacks.iter().map(|n| json!({
            "key": n.key, "field": n.field, "reason": n.reason, "message": n.message,
        })).collect::<Vec<_>>(),
    })
    .to_string()
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{
        shared::{Drain, Status},
        telemetry::Telemetry,
    };

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn probes_and_reports() {
        let shared = Shared::new(Telemetry::default());
        let address = serve(Arc::clone(&shared), ([127, 0, 0, 1], 0).into(), Port::Admin).await.unwrap();
        let check = async |path: &str, status: u16, part: &str| {
            let (got, body) = get(address, path).await;
            assert!(got == status && body.contains(part), "{path}: {got} {body}");
        };
        check("/healthz", 200, "ok").await;
        check("/readyz", 503, "no configuration").await;
        check("/connections", 404, "").await;
        check("/x", 404, "/metrics").await;
        check("/metrics", 200, "sluice_ready 0").await;
        let nack = snapshot::proto::Nack { key: "Route/a/b".into(), field: "f".into(), ..Default::default() };
        let pushed = snapshot::Hash::of(b"x");
        // A probe that waits is answered as soon as there is something to say.
        let waits = tokio::spawn(get(address, "/readyz?wait"));
        tokio::task::yield_now().await;
        shared.status.send_replace(Status { ready: true, epoch: 3, pushed, nacks: vec![nack], ..Status::default() });
        assert_eq!(waits.await.unwrap().0, 200);
        shared.connections_report.set(Box::new(|| json!({"open": 7}))).ok().unwrap();
        check("/readyz", 200, "ready").await;
        check("/connections", 200, "{\"open\":7}").await;
        let (_, config) = get(address, "/config").await;
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!((&config["revision"], &config["epoch"]), (&json!(pushed.to_string()), &json!(3)));
        assert_eq!(config["nacks"][0]["key"], "Route/a/b");
        shared.drain.send_replace(Drain::Draining);
        check("/readyz", 503, "draining").await;
        check("/readyz?wait", 503, "draining").await;
        check("/readyz?wait&exclude=drain", 200, "ready").await;
        check("/config", 200, "\"ready\":false").await;
    }

    /// What others than clients on loopback get, by path: only whether this proxy is ready, whatever they send.
    #[test]
    fn strangers_learn_whether_it_is_ready_and_nothing_else() {
        let shared = Shared::new(Telemetry::default());
        shared.connections_report.set(Box::new(|| json!({"open": 7}))).ok().unwrap();
        let ask = |method: &str, path: &str, is_near: bool| {
            let request = Request::builder().method(method).uri(path).body(()).unwrap();
            admin(&shared, &request, is_near).status().as_u16()
        };
        let others =
            ["/", "/healthz", "/metrics", "/config", "/connections", "/readyz/", "//readyz", "/readyz/../config", "/x"];
        for path in others {
            for method in ["GET", "HEAD", "POST", "OPTIONS"] {
                assert_eq!(ask(method, path, false), 403, "{method} {path}");
            }
        }
        assert_eq!(
            (ask("GET", "/readyz", false), ask("GET", "/readyz?config", false), ask("POST", "/readyz", false)),
            (503, 503, 405)
        );
        for path in ["/healthz", "/metrics", "/config", "/connections"] {
            assert_eq!(ask("GET", path, true), 200, "{path}");
        }
        // Collectors get what they are for.
        let collect = |path: &str| {
            let request = Request::get(path).body(()).unwrap();
            metrics(&shared, &request).status().as_u16()
        };
        assert_eq!(
            ["/metrics", "/healthz", "/readyz", "/config", "/connections"].map(collect),
            [200, 200, 404, 404, 404]
        );
    }

    #[tokio::test]
    async fn answers_however_many_there_are() {
        let shared = Shared::new(Telemetry::default());
        let address = serve(shared, ([127, 0, 0, 1], 0).into(), Port::Admin).await.unwrap();
        let mut silent = vec![];
        for _ in 0..2 * MAX_CONNECTIONS {
            silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
        }
        assert_eq!(get(address, "/healthz").await.0, 200);
        // The first had to go.
        assert_eq!(silent[0].read(&mut [0]).await.unwrap_or_default(), 0);
    }
}
