//! A proxy in the hands of a keeper, as in a container: what its crash does to connections, and what it must not hide.
//!
//! The kind: sockets that nobody accepts from. While a proxy is started again they are what saves its clients; behind a port
//! that was closed, or of a proxy that leaves, they would keep them waiting for nothing.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::process::ExitStatusExt,
    path::Path,
    pin::Pin,
    process::ExitStatus,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use proxy::config::last_good;
use rustix::process::{Pid, Signal, kill_process};
use snapshot::{
    Snapshot,
    proto::{EnrollRequest, EnrollResponse, Limits, OperatorMessage, ProxyMessage, control_server},
    wire,
};
use support::{Client, HOST, OK, Upstream, content_on, free_port, pause, process::Process, request};
use tokio::sync::{mpsc, watch};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tonic::{Request, Response, Status, Streaming};

/// A proxy with a keeper.
struct Kept {
    process: Process,
    ports: Vec<u16>,
}

impl Kept {
    /// With so many ports.
    fn start(upstream: &Upstream, count: usize) -> Self {
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let content = content_on(&ports, upstream.address, Limits::default(), |_| {});
        Self { process: Process::with(4096, ports.first().copied().unwrap_or(1), &content, &["--keep"]), ports }
    }

    fn keeper(&self) -> Pid {
        Pid::from_child(&self.process.child)
    }

    /// The proxy itself, as soon as there is one.
    fn proxy(&self) -> Pid {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let [child] = children(self.keeper())[..] {
                return child;
            }
            assert!(Instant::now() < end, "the keeper has no child");
            pause(1);
        }
    }

    fn address(&self, index: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[index]).into()
    }

    /// How the keeper ended.
    fn status(&mut self, within: Duration) -> ExitStatus {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.process.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the keeper still runs");
            pause(5);
        }
    }
}

/// The living children of a process.
fn children(of: Pid) -> Vec<Pid> {
    let names = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        fields.next().is_some_and(|state| state != "Z") && fields.next() == Some(&of.as_raw_nonzero().to_string())
    };
    pids.filter(is_child).filter_map(Pid::from_raw).collect()
}

/// The states of a process' threads.
fn states(pid: Pid) -> Vec<char> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).into_iter().flatten().flatten();
    let state = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    tasks.filter_map(state).collect()
}

/// Whether any of its threads is: its descriptors are open until then.
fn is_alive(pid: Pid) -> bool {
    states(pid).iter().any(|state| !matches!(state, 'Z' | 'X'))
}

/// Stops it, and waits until it stands still.
fn stop(pid: Pid) {
    kill_process(pid, Signal::STOP).unwrap();
    while states(pid).iter().any(|state| *state != 'T') {
        pause(1);
    }
}

/// Kills it, and waits until it is dead.
fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
    while is_alive(pid) {
        pause(1);
    }
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
}

/// A request on a connection of its own: when it began, and how long its answer took, or what failed.
fn ask(address: SocketAddr) -> (Instant, Result<Duration, String>) {
    let began = Instant::now();
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let answer = match asked() {
        Ok(text) if text.starts_with("HTTP/1.1 200") => Ok(began.elapsed()),
        Ok(text) => Err(format!("answered {:?}", text.lines().next())),
        Err(e) => Err(format!("{:?}", e.kind())),
    };
    (began, answer)
}

/// New connections, one each 2 ms, alternately on each port, until `stop`.
fn load(addresses: &[SocketAddr], stop: &AtomicBool) -> Vec<(Instant, Result<Duration, String>)> {
    let results = Arc::new(Mutex::new(vec![]));
    let mut threads = vec![];
    for at in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let (address, results) = (addresses[at % addresses.len()], Arc::clone(&results));
        threads.push(std::thread::spawn(move || {
            let result = ask(address);
            results.lock().unwrap().push(result);
        }));
        pause(2);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    std::mem::take(&mut results.lock().unwrap())
}

#[test]
fn a_crash_refuses_nobody_and_three_are_mended() {
    let upstream = Upstream::answering(OK);
    let mut kept = Kept::start(&upstream, 2);
    let stop = Arc::new(AtomicBool::new(false));
    let addresses = vec![kept.address(0), kept.address(1)];
    let load = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || load(&addresses, &stop)
    });
    let mut kills = vec![];
    for restart in 1..=3 {
        pause(1000);
        let proxy = kept.proxy();
        let before = Instant::now();
        kill(proxy);
        kills.push((before, Instant::now()));
        kept.process.until("it is there again", || kept.proxy() != proxy);
        kept.process.until_ready();
        println!("restart {restart}: ready after {:.0?}", before.elapsed());
        assert_eq!(kept.process.metric("sluice_restarts_total"), f64::from(restart));
    }
    pause(500);
    stop.store(true, Ordering::SeqCst);
    let results = load.join().unwrap();
    let longest = results.iter().filter_map(|(_, result)| result.as_ref().ok()).max().unwrap();
    let failed: Vec<_> = results.iter().filter_map(|(at, result)| Some((*at, result.as_ref().err()?))).collect();
    println!("{} connections, {} failed, the longest took {longest:.0?}", results.len(), failed.len());
    assert!(results.len() > 500);
    let first = kills[0].0;
    let since = |at: &Instant| at.saturating_duration_since(first).as_millis();
    for (began, how) in &failed {
        // What the process had accepted dies with it: it began before that, or the connection was refused.
        let had_begun = kills.iter().any(|(before, after)| {
            began <= after && before.saturating_duration_since(*began) < Duration::from_millis(500)
        });
        let kills: Vec<_> = kills.iter().map(|(before, after)| (since(before), since(after))).collect();
        assert!(had_begun && how.as_str() != "ConnectionRefused", "{how} at {} ms, kills at {kills:?}", since(began));
    }
    assert!(failed.len() <= results.len() / 10, "{failed:?}");
    assert!(*longest < Duration::from_secs(5), "{longest:?}");

    // The fourth within a minute is not hidden.
    kill(kept.proxy());
    assert_eq!(kept.status(Duration::from_secs(5)).code(), Some(128 + 9));
    assert!(is_refused(kept.address(0)) && is_refused(kept.address(1)));
}

#[test]
fn what_was_not_accepted_yet_is_answered_by_the_next() {
    let upstream = Upstream::answering(OK);
    let kept = Kept::start(&upstream, 1);
    let proxy = kept.proxy();
    // It can't accept: all of these are in the queue when it dies.
    stop(proxy);
    let mut clients: Vec<Client> = (0..200).map(|_| Client::to(kept.address(0))).collect();
    for client in &mut clients {
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
    }
    kill(proxy);
    let answers = clients.iter_mut().map(|client| client.response(false).map(|(status, ..)| status));
    let others: Vec<_> = answers.enumerate().filter(|(_, status)| *status != Some(200)).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn a_port_that_the_next_does_not_serve_refuses() {
    let upstream = Upstream::answering(OK);
    let kept = Kept::start(&upstream, 2);
    let one = content_on(&kept.ports[..1], upstream.address, Limits::default(), |_| {});
    let proxy = kept.proxy();
    // It may be about to write the file itself.
    stop(proxy);
    last_good::save(kept.process.state.path(), 1, &one).unwrap();
    kill(proxy);
    assert!(ask(kept.address(0)).1.is_ok());
    kept.process.until("the port is closed", || is_refused(kept.address(1)));
}

#[test]
fn a_port_that_is_closed_refuses_at_once() {
    let upstream = Upstream::answering(OK);
    let kept = Kept::start(&upstream, 2);
    let of = |ports: &[u16]| content_on(ports, upstream.address, Limits::default(), |_| {});
    let operator = Operator::start(&kept.process.state.path().join("control.sock"));
    for round in 0..20 {
        operator.push(of(&kept.ports));
        kept.process.until("both are open", || ask(kept.address(1)).1.is_ok());
        operator.push(of(&kept.ports[..1]));
        // Either the proxy still serves it, or nobody takes the connection.
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let (began, answer) = ask(kept.address(1));
            assert!(began.elapsed() < Duration::from_secs(2), "round {round}: a client waited");
            if answer.as_ref().is_err_and(|how| how == "ConnectionRefused") {
                break;
            }
            assert!(began < end, "round {round}: {answer:?}");
        }
        assert!(ask(kept.address(0)).1.is_ok());
    }
    // With an operator it takes up what that pushes.
    kill(kept.proxy());
    assert!(ask(kept.address(0)).1.is_ok() && is_refused(kept.address(1)));
}

#[test]
fn one_that_drains_closes_its_ports_and_ends_well() {
    let under_way = Arc::new(AtomicBool::new(false));
    let begun = Arc::clone(&under_way);
    let upstream = Upstream::start(move |mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default());
        begun.store(true, Ordering::SeqCst);
        pause(2500);
        let _ = stream.write_all(OK);
    });
    let mut kept = Kept::start(&upstream, 1);
    let address = kept.address(0);
    let slow = std::thread::spawn(move || ask(address));
    kept.process.until("a request is under way", || under_way.load(Ordering::SeqCst));
    let asked = Instant::now();
    kill_process(kept.keeper(), Signal::TERM).unwrap();
    kept.process.until("new connections are refused", || is_refused(address));
    println!("draining: refused after {:.0?}, minDrain is 100 ms", asked.elapsed());
    assert!(is_alive(kept.proxy()) && asked.elapsed() < Duration::from_secs(2));
    let (began, answer) = slow.join().unwrap();
    assert!(answer.is_ok_and(|took| took >= Duration::from_secs(2)), "{:?}", began.elapsed());
    assert!(kept.status(Duration::from_secs(5)).success());
    assert_eq!(children(kept.keeper()), []);
}

#[test]
fn a_second_signal_ends_it_and_one_that_dies_leaving_is_not_started_again() {
    let upstream = Upstream::start(|_| pause(60_000));
    // With a request under way, so that it has something to wait for.
    let leaving = || {
        let kept = Kept::start(&upstream, 1);
        let mut open = Client::to(kept.address(0));
        open.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
        pause(100);
        kill_process(kept.keeper(), Signal::TERM).unwrap();
        pause(200);
        (kept, open)
    };
    let (mut kept, _open) = leaving();
    kill_process(kept.keeper(), Signal::TERM).unwrap();
    assert!(kept.status(Duration::from_secs(3)).success());

    let (mut kept, _open) = leaving();
    kill(kept.proxy());
    assert_eq!(kept.status(Duration::from_secs(3)).code(), Some(128 + 9));
}

#[test]
fn one_that_listens_nowhere_is_not_hidden() {
    let upstream = Upstream::answering(OK);
    let mut kept = Kept::start(&upstream, 0);
    kill(kept.proxy());
    let status = kept.status(Duration::from_secs(3));
    assert_eq!((status.code(), status.signal()), (Some(128 + 9), None));
}

#[test]
fn a_proxy_dies_with_its_keeper_which_is_small() {
    let upstream = Upstream::answering(OK);
    let mut kept = Kept::start(&upstream, 1);
    let proxy = kept.proxy();
    let of = |pid: Pid| std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let kib = |status: &str, field: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap()
    };
    let status = of(kept.keeper());
    let [rss, own] = ["VmRSS", "RssAnon"].map(|field| kib(&status, field));
    println!(
        "the keeper: {rss} KiB resident, {own} KiB its own; the proxy: {} KiB its own",
        kib(&of(proxy), "RssAnon")
    );
    assert!(own < 4 << 10, "{own} KiB");
    assert_eq!(kib(&status, "Threads"), 1);
    kept.process.child.kill().unwrap();
    kept.process.child.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while is_alive(proxy) {
        assert!(Instant::now() < end, "the proxy lives on");
        pause(5);
    }
    assert!(is_refused(kept.address(0)));
}

/// An operator that pushes what a test says.
struct Operator {
    wanted: watch::Sender<Snapshot>,
    _runtime: tokio::runtime::Runtime,
}

impl Operator {
    fn start(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let wanted = watch::Sender::new(Snapshot::default());
        let service = control_server::ControlServer::new(Control(wanted.subscribe()));
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(socket) }).unwrap();
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { wanted, _runtime: runtime }
    }

    fn push(&self, wanted: Snapshot) {
        self.wanted.send_replace(wanted);
    }
}

struct Control(watch::Receiver<Snapshot>);

#[tonic::async_trait]
impl control_server::Control for Control {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<OperatorMessage, Status>> + Send>>;

    async fn enroll(&self, _: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        Err(Status::unimplemented("not over a Unix socket"))
    }

    async fn attach(&self, request: Request<Streaming<ProxyMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let (out, messages) = mpsc::channel(64);
        let mut wanted = self.0.clone();
        wanted.mark_changed();
        tokio::spawn(async move {
            // Held, so that the proxy's messages are taken.
            let _inbound = request.into_inner();
            while wanted.changed().await.is_ok() {
                let target = wanted.borrow_and_update().clone();
                if target.is_empty() {
                    continue;
                }
                for message in wire::push(9, None, target.revision(), &target.diff(&Default::default())) {
                    if out.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages).map(|m| m))))
    }
}
