//! The admin port, on loopback: `/metrics`, `/healthz`, `/readyz`, `/debug/{world,snapshot,decision}`.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    metrics,
    view::{self, View},
};

/// A client that sends no request for this long is let go.
const IDLE: Duration = Duration::from_secs(30);

/// Why there is no admin port.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It would be reachable from elsewhere, and shows all there is.
    #[error("--admin {0} is not on loopback: it shows the whole configuration, so use 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// It can't be opened.
    #[error("--admin {0}: {1}")]
    Bind(SocketAddr, io::Error),
}

/// Opens the port.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, AdminError> {
    if !address.ip().is_loopback() {
        return Err(AdminError::NotLoopback(address));
    }
    TcpListener::bind(address).await.map_err(|error| AdminError::Bind(address, error))
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, view: view::Shared) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, view.clone()))),
            Err(error) => {
                tracing::warn!(%error, "admin port");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, view: view::Shared) {
    let service = service_fn(|request| {
        let view = view.clone();
        async move { Ok::<_, Infallible>(answer(&request, &view).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE);
    // The client's own affair.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: &Request<Incoming>, view: &view::Shared) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => ready(view),
        "/metrics" => text(StatusCode::OK, metrics::get().text().into()),
        "/debug/world" => debug(view, View::world).await,
        "/debug/snapshot" => debug(view, View::snapshot).await,
        "/debug/decision" => debug(view, View::decision).await,
        _ => text(StatusCode::NOT_FOUND, "/metrics /healthz /readyz /debug/{world,snapshot,decision}\n".into()),
    }
}

fn ready(view: &view::Shared) -> Response<Full<Bytes>> {
    let lacks = match view.view() {
        Some(view) => view.not_ready(),
        None => vec!["the manifests were not read yet".into()],
    };
    match lacks.is_empty() {
        true => text(StatusCode::OK, "ready\n".into()),
        false => text(StatusCode::SERVICE_UNAVAILABLE, (lacks.join("\n") + "\n").into()),
    }
}

async fn debug(view: &view::Shared, render: fn(&View) -> serde_json::Value) -> Response<Full<Bytes>> {
    let Some(view) = view.view() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the manifests were not read yet\n".into());
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
