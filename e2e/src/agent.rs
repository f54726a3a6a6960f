//! Runs loads and single requests for others, where it is: in a pod, which reaches Services by name.
//!
//! | asked with             | does                                                                          |
//! |------------------------|-------------------------------------------------------------------------------|
//! | `POST /loads`          | starts a load with these arguments of `sluice-load` (a JSON list); gives its number |
//! | `GET /loads/N`         | what was counted so far ([`crate::load::Live`])                               |
//! | `POST /loads/N/rate`   | sets the rate                                                                 |
//! | `POST /loads/N/stop`   | ends it; gives the [`crate::load::Report`]                                    |
//! | `POST /request`        | sends a [`Probe`]; gives the [`crate::harness::http::Answer`]                 |
//! | `POST /until`          | sends an [`Until`] again and again until the answer is as wanted; gives the last |

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};

use crate::{
    harness::{
        eventually,
        http::{self as client, Answer},
    },
    load::{self, Load},
};

/// The flags of `sluice-load agent`.
#[derive(Debug, Parser)]
#[command(name = "sluice-load agent", version, about = "Runs loads and single requests for others")]
pub struct Args {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:9099")]
    listen: SocketAddr,
}

/// A single request, on a connection of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// Where to connect: an address or a name, with the port.
    pub target: String,
    /// The method.
    pub method: String,
    /// The Host header.
    pub host: String,
    /// The path.
    pub path: String,
    /// Further header fields.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

/// A request that is to be answered in a certain way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Until {
    /// The request.
    pub probe: Probe,
    /// The status wanted.
    pub status: u16,
    /// What the body must contain.
    #[serde(default)]
    pub contains: String,
    /// How long it may take.
    pub within_ms: u64,
}

impl Probe {
    fn send(&self) -> anyhow::Result<Answer> {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        client::send(load::resolve(&self.target)?, &self.method, &self.host, &self.path, &headers)
    }
}

impl Until {
    fn wait(&self) -> anyhow::Result<Answer> {
        let mut last = String::new();
        let found = eventually("the wanted answer", Duration::from_millis(self.within_ms), || {
            let answer = self.probe.send();
            last = format!("{answer:?}");
            answer.ok().filter(|answer| answer.status == self.status && answer.body.contains(&self.contains))
        });
        found.with_context(|| format!("the last answer is {last}"))
    }
}

/// Runs `sluice-load agent` until the process is ended.
pub fn main(args: &Args) -> anyhow::Result<()> {
    let loads = Arc::new(Loads::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen).await.with_context(|| args.listen.to_string())?;
        println!("sluice-load agent listening on {}", listener.local_addr()?);
        loop {
            let (stream, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    eprintln!("sluice-load: accept: {error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            let loads = Arc::clone(&loads);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let loads = Arc::clone(&loads);
                    async move { Ok::<_, Infallible>(respond(loads, request).await) }
                });
                let server = hyper::server::conn::http1::Builder::new().timer(TokioTimer::new()).to_owned();
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

/// The loads that run, by their numbers.
#[derive(Default)]
struct Loads {
    next: AtomicUsize,
    running: Mutex<HashMap<usize, Load>>,
}

async fn respond(loads: Arc<Loads>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let done = match body.collect().await {
        Ok(body) => {
            // What is asked for may take seconds, and blocks.
            let work =
                tokio::task::spawn_blocking(move || loads.answer(&head.method, head.uri.path(), &body.to_bytes()));
            work.await.map_err(anyhow::Error::from).flatten()
        }
        Err(error) => Err(error.into()),
    };
    let (status, text) = match done {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error:#}\n")),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

impl Loads {
    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> anyhow::Result<String> {
        let words: Vec<_> = path.split('/').skip(1).collect();
        match (method.as_str(), words.as_slice()) {
            ("POST", ["loads"]) => {
                let args: Vec<String> = serde_json::from_slice(body)?;
                let args = std::iter::once("sluice-load".to_owned()).chain(args);
                let load = Load::start(load::Args::try_parse_from(args)?.plan()?)?;
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                self.running().insert(number, load);
                json(&number)
            }
            ("GET", ["loads", number]) => json(&self.running().get(&number.parse()?).context("no such load")?.live()),
            ("POST", ["loads", number, "rate"]) => {
                let rate = serde_json::from_slice(body)?;
                self.running().get(&number.parse()?).context("no such load")?.set_rate(rate);
                Ok(String::new())
            }
            ("POST", ["loads", number, "stop"]) => {
                let load = self.running().remove(&number.parse()?).context("no such load")?;
                json(&load.stop()?)
            }
            ("POST", ["request"]) => json(&serde_json::from_slice::<Probe>(body)?.send()?),
            ("POST", ["until"]) => json(&serde_json::from_slice::<Until>(body)?.wait()?),
            _ => anyhow::bail!("{method} {path}: not asked with this"),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<usize, Load>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string(value)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{echo::Echo, load::Report};

    #[test]
    fn loads_and_requests() {
        let echo = Echo::start("a").unwrap();
        let loads = Loads::default();
        let post =
            |path: &str, body: &serde_json::Value| loads.answer(&Method::POST, path, body.to_string().as_bytes());
        let target = echo.addr.to_string();
        let probe = json!({"target": target, "method": "GET", "host": "x.example", "path": "/x"});
        let answer: Answer = serde_json::from_str(&post("/request", &probe).unwrap()).unwrap();
        assert_eq!((answer.status, answer.json()["path"].as_str()), (200, Some("/x")));
        let until = |contains: &str| json!({"probe": probe, "status": 200, "contains": contains, "within_ms": 50});
        post("/until", &until("x.example")).unwrap();
        assert!(post("/until", &until("other")).unwrap_err().to_string().contains("last answer"));

        let number = post("/loads", &json!(["--target", target, "--h1", "2", "--rate", "100"])).unwrap();
        post(&format!("/loads/{number}/rate"), &json!(200.0)).unwrap();
        let live = || loads.answer(&Method::GET, &format!("/loads/{number}"), b"").unwrap();
        eventually("some requests", Duration::from_secs(5), || (!live().contains("\"requests\":0")).then_some(()))
            .unwrap();
        let report: Report =
            serde_json::from_str(&post(&format!("/loads/{number}/stop"), &json!(null)).unwrap()).unwrap();
        assert!(report.ok > 0 && report.failures() == 0, "{report}");
        assert!(post(&format!("/loads/{number}/stop"), &json!(null)).is_err(), "it is gone");
        assert!(post("/loads", &json!(["--targte", "x"])).is_err());
    }
}
