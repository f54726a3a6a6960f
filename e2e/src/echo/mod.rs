//! A real upstream to put behind the gateway: HTTP/1.1, HTTP/2 (prior knowledge) and WebSocket on one port.
//!
//! | path           | answer |
//! |----------------|--------|
//! | `/bytes/N`     | N bytes |
//! | `/delay/MS`    | `ok` after MS milliseconds |
//! | `/status/N`    | the status N |
//! | `/trailers`    | a body followed by the trailer `x-checksum` |
//! | `/upload`      | `{"bodyBytes": N}`, counted while the body streams in |
//! | `/stream/N/MS` | N chunks, MS milliseconds apart |
//! | any other      | JSON: name, method, path, version, headers, bodyBytes |
//!
//! A request with `Upgrade: websocket` gets a WebSocket that echoes, whatever its path. Every answer carries
//! `x-upstream: NAME`, so that a client can tell what the upstream said from what the gateway said.

mod answer;
mod websocket;

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use clap::Parser;
use http::HeaderValue;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::sync::oneshot;

/// The flags of `sluice-echo`.
#[derive(Debug, Parser)]
#[command(name = "sluice-echo", about = "A small upstream: HTTP/1.1, h2c and WebSocket echo", version)]
pub struct Args {
    /// Address to listen on; port 0 takes a free one. Repeatable, each with its own --name.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: Vec<SocketAddr>,
    /// The name sent in `x-upstream`; one for each --listen, in the same order.
    #[arg(long, default_value = "echo")]
    pub name: Vec<String>,
    /// Threads that serve requests.
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
}

/// Runs `sluice-echo` until the process is ended.
pub fn main(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.listen.len() == args.name.len(),
        "{} --listen but {} --name: give each --listen one --name",
        args.listen.len(),
        args.name.len()
    );
    let mut servers = Vec::new();
    for (addr, name) in args.listen.iter().zip(&args.name) {
        let server = Server::bind(*addr, name)?;
        // Tests and the quickstart wait for this line. Rust flushes stdout at each newline.
        println!("sluice-echo {name} listening on {}", server.addr);
        servers.push(server);
    }
    runtime(args.workers)?.block_on(async {
        let tasks: Vec<_> = servers.into_iter().map(|server| tokio::spawn(server.serve())).collect();
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

/// An upstream inside this process, on a thread of its own; dropping it closes its port and its connections.
#[derive(Debug)]
pub struct Echo {
    /// The address that it listens on.
    pub addr: SocketAddr,
    name: String,
    requests: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts an upstream on a free loopback port.
    pub fn start(name: &str) -> anyhow::Result<Echo> {
        Echo::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), name)
    }

    /// Starts an upstream on the given address.
    pub fn start_at(addr: SocketAddr, name: &str) -> anyhow::Result<Echo> {
        let server = Server::bind(addr, name)?;
        let (addr, requests) = (server.addr, Arc::clone(&server.requests));
        let (stop, stopped) = oneshot::channel();
        let runtime = runtime(1)?;
        let thread = std::thread::Builder::new().name(format!("echo-{name}")).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = server.serve() => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Echo { addr, name: name.to_owned(), requests, stop: Some(stop), thread: Some(thread) })
    }

    /// The name it sends in `x-upstream`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of requests that it has received.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn runtime(workers: usize) -> io::Result<tokio::runtime::Runtime> {
    if workers <= 1 {
        return tokio::runtime::Builder::new_current_thread().enable_all().build();
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()
}

struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    name: Arc<str>,
    header: HeaderValue,
    requests: Arc<AtomicU64>,
}

impl Server {
    fn bind(addr: SocketAddr, name: &str) -> anyhow::Result<Server> {
        let header = HeaderValue::from_str(name)
            .map_err(|_| anyhow::anyhow!("--name {name:?}: not a header value; use letters, digits and dashes"))?;
        let listener = TcpListener::bind(addr).map_err(|error| anyhow::anyhow!("--listen {addr}: {error}"))?;
        listener.set_nonblocking(true)?;
        Ok(Server { addr: listener.local_addr()?, listener, name: name.into(), header, requests: Arc::default() })
    }

    async fn serve(self) -> anyhow::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new());
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1000);
        let builder = Arc::new(builder);
        loop {
            let (stream, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                // Out of descriptors, or a client that left before it was accepted: neither ends the server.
                Err(error) => {
                    eprintln!("sluice-echo: accept: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let (builder, name, header) = (Arc::clone(&builder), Arc::clone(&self.name), self.header.clone());
            let requests = Arc::clone(&self.requests);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    requests.fetch_add(1, Ordering::Relaxed);
                    let (name, header) = (Arc::clone(&name), header.clone());
                    async move {
                        let mut response = answer::answer(&name, request).await;
                        response.headers_mut().insert("x-upstream", header);
                        Ok::<_, Infallible>(response)
                    }
                });
                // A client that breaks off is its own business.
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    }
}
