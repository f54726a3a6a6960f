//! Memory that clients hold: whatever they make the proxy keep for them, it stays within its limit, those that hold most
//! are ended, and others notice nothing.
//!
//! The kind: what a client sends little for and the proxy holds much of (heads made of references, heads that do not end),
//! what it makes the proxy hold by not reading (answers) or by sending what nobody takes (uploads), and what is small and
//! many (WebSockets).

use std::{
    collections::VecDeque,
    io::{ErrorKind, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use e2e::{
    echo::Echo,
    harness::{
        Gateway, free_port,
        manifests::{Fleet, HOST, route},
        metric, pause,
    },
    load::{Load, Plan, Report},
};

use crate::{at, long, serves};

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Streams of one connection; the proxy allows 100.
const STREAMS: u32 = 100;

/// What is asked of the machine: (memory of the proxy, hostile connections, time of each attack).
fn scale() -> (u64, usize, Duration) {
    if long() { (512 << 20, 2000, Duration::from_secs(30)) } else { (96 << 20, 300, Duration::from_secs(4)) }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// A head in HPACK: static entries, path and authority as literals.
fn head(method: u8, path: &str) -> Vec<u8> {
    [&[method, 0x86, 4, path.len() as u8], path.as_bytes(), &[1, HOST.len() as u8], HOST.as_bytes()].concat()
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// The preface, and windows as large as there are.
fn preface() -> Vec<u8> {
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let settings = frame(4, 0, 0, &[&[0, 4], &most[..]].concat());
    let window = frame(8, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes());
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), settings, window].concat()
}

/// Requests on as many streams as there may be.
fn streams(flags: u8, of: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let each = (0..STREAMS).map(|n| frame(1, END_HEADERS | flags, 2 * n + 1, &of(n))).collect::<Vec<_>>().concat();
    [preface(), each].concat()
}

/// A cookie of 4,000 bytes that is put into the table; 0xbe refers to it.
fn entry() -> Vec<u8> {
    [&[0x60, 0x7f, 0xa1, 0x1e][..], &[b'v'; 4000]].concat()
}

/// What each connection of an attack sends, and whether so many of them hold more than there is.
fn attacks() -> Vec<(&'static str, Vec<u8>, bool)> {
    let refers =
        |n: u32| [head(GET, "/delay/60000"), if n == 0 { entry() } else { vec![0xbe] }, vec![0xbe; 14]].concat();
    let endless = [head(GET, "/"), entry(), vec![0xbe; 12]].concat();
    let tiny = [head(GET, "/"), vec![0x8f; 1700]].concat();
    let upload = |n: u32| frame(0, 0, 2 * n + 1, &[b'x'; 10_000]);
    let uploads = (0..STREAMS).map(upload).collect::<Vec<_>>().concat();
    vec![
        (
            "heads of HTTP/1.1 that do not end",
            [format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nx: ").into_bytes(), vec![b'x'; 55_000]].concat(),
            false,
        ),
        ("streams with heads of references", streams(END_STREAM, refers), true),
        ("heads of HTTP/2 that do not end", [preface(), frame(1, 0, 1, &endless)].concat(), true),
        ("heads of many small fields that do not end", [preface(), frame(1, 0, 1, &tiny)].concat(), true),
        (
            "answers by HTTP/1.1 that are not read",
            format!("GET /bytes/100000000 HTTP/1.1\r\nhost: {HOST}\r\n\r\n").into_bytes(),
            false,
        ),
        ("streams whose answers are not read", streams(END_STREAM, |_| head(GET, "/bytes/100000000")), true),
        ("streams with uploads that nobody takes", [streams(0, |_| head(POST, "/stuck")), uploads].concat(), false),
        (
            "uploads by HTTP/1.1 that nobody takes",
            [
                format!("POST /stuck HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 100000000\r\n\r\n").into_bytes(),
                vec![b'x'; 200_000],
            ]
            .concat(),
            false,
        ),
        (
            "WebSockets with half a frame",
            [
                format!("GET /ws HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: websocket\r\n")
                    .into_bytes(),
                b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".to_vec(),
                vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4, 5],
            ]
            .concat(),
            false,
        ),
    ]
}

/// Keeps connections open that each have sent the same and read nothing, and opens one anew for each that was ended; all
/// of them together send so many bytes at first, and so many each second.
struct Hostile {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    sent: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
}

impl Hostile {
    fn start(to: SocketAddr, bytes: Vec<u8>, connections: usize, (burst, per_second): (f64, f64)) -> Self {
        let [sent, ended] = [0, 0].map(|_| Arc::<AtomicU64>::default());
        let stop = Arc::<AtomicBool>::default();
        let (stopped, counted, gone) = (stop.clone(), sent.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            let mut open: VecDeque<(TcpStream, usize)> = VecDeque::new();
            while !stopped.load(Ordering::Relaxed) {
                let allowed = burst + began.elapsed().as_secs_f64() * per_second;
                if counted.load(Ordering::Relaxed) as f64 > allowed {
                    pause(Duration::from_millis(5));
                    continue;
                }
                let (mut stream, mut at) = match open.len() < connections {
                    true => {
                        let Ok(stream) = TcpStream::connect(to) else { continue };
                        stream.set_nonblocking(true).unwrap();
                        (stream, 0)
                    }
                    false => open.pop_front().unwrap(),
                };
                let over = match stream.write(&bytes[at..]) {
                    Ok(n) => {
                        at += n;
                        counted.fetch_add(n as u64, Ordering::Relaxed);
                        // One byte of what there may be to read: that it was ended shows behind it.
                        at == bytes.len()
                            && matches!(stream.peek(&mut [0]), Err(e) if e.kind() != ErrorKind::WouldBlock)
                    }
                    Err(e) => e.kind() != ErrorKind::WouldBlock,
                };
                if over {
                    gone.fetch_add(1, Ordering::Relaxed);
                } else {
                    open.push_back((stream, at));
                }
                if open.len() == connections {
                    pause(Duration::from_micros(200));
                }
            }
        });
        Self { stop, thread, sent, ended }
    }

    /// Bytes sent, and connections that were ended.
    fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        (self.sent.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
    }
}

/// A backend that accepts, and reads nothing.
fn stuck() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept = vec![];
        for stream in listener.incoming().flatten() {
            kept.push(stream);
            // What the proxy has closed is closed here too.
            if kept.len() % 1000 == 0 {
                kept.retain(|stream: &TcpStream| {
                    stream.set_nonblocking(true).unwrap();
                    !matches!(stream.peek(&mut [0]), Ok(0))
                });
            }
        }
    });
    address
}

/// The most that a process ever had of memory since the last call.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak = line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10;
    // 5: the peak begins anew.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    peak
}

/// Honest clients: kept connections of both protocols, and new ones.
fn honest(port: u16, time: Duration) -> Load {
    let mut plan = Plan::new(at(port), HOST).step(200.0, time);
    (plan.h1, plan.h2, plan.h2_streams, plan.new_per_second) = (16, 4, 4, 10.0);
    Load::start(plan).unwrap()
}

#[test]
#[ignore = "fails on a busy machine: nobody else fails, and their p99 is beyond what is allowed (8 and 224 ms seen)"]
fn what_clients_hold_stays_within_the_limit_and_others_are_served() {
    let (limit, connections, time) = scale();
    let [echo, other] = ["a", "b"].map(|name| Echo::start(name).unwrap());
    let port = free_port().unwrap();
    let template = format!("{{workers: 1, resources: {{limits: {{memory: \"{limit}\"}}}}}}");
    let fleet = Fleet::single(port).yaml().replace("{workers: 1}", &template);
    let manifests = [
        ("fleet.yaml", fleet),
        ("all.yaml", route("all", "/", echo.addr)),
        ("bytes.yaml", route("bytes", "/bytes", other.addr)),
        ("delay.yaml", route("delay", "/delay", other.addr)),
        ("ws.yaml", route("ws", "/ws", other.addr)),
        ("stuck.yaml", route("stuck", "/stuck", stuck())),
    ];
    let gateway = Gateway::start(&manifests).unwrap();
    serves(port, "/");
    serves(port, "/bytes/1");
    let proxy = gateway.ready_proxies().remove(0);
    let value = |name: &str| metric(proxy.admin, name, &[]).unwrap();
    assert_eq!(value("sluice_memory_limit_bytes"), limit as f64);
    let calm = honest(port, time.min(Duration::from_secs(5))).join().unwrap().latency.p99;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut wrong = vec![];
    for (name, bytes, exceeds) in attacks() {
        peak(proxy.pid);
        let before = value("sluice_memory_connections_ended_total");
        // What takes as much as it gives is sent at once. Of requests there are 3,000, and then 200 a second: they cost the
        // proxy its time too, which is for others to bound.
        let one = bytes.len() as f64;
        let pace = match (name.contains("streams"), exceeds) {
            (true, _) => (30.0 * one, 2.0 * one),
            (_, true) => (2e6, 1e6),
            (_, false) => (20e6, 1e6),
        };
        let hostile = Hostile::start(at(port), bytes, connections, pace);
        pause(Duration::from_secs(1));
        let report: Report = honest(port, time).join().unwrap();
        let held = value("sluice_memory_held_bytes");
        let (sent, gone) = hostile.stop();
        let ended = value("sluice_memory_connections_ended_total") - before;
        let most = peak(proxy.pid);
        println!(
            "{name}: {:.1} MB sent, {gone} of theirs ended ({ended} for memory), {:.1} MiB held at the end, peak {:.1} of {:.0} \
             MiB; others: {} requests, {} failed, p99 {:.1} ms (goal {:.1})",
            sent as f64 / 1e6,
            held / f64::from(1 << 20),
            mib(most),
            mib(limit),
            report.requests,
            report.failures(),
            report.latency.p99,
            2.0 * calm.max(1.0),
        );
        let allowed = if long() { 2.0 * calm.max(1.0) } else { 20.0 * calm.max(1.0) };
        if report.failures() > 0 || report.latency.p99 > allowed || most > limit || exceeds && ended == 0.0 {
            wrong.push(format!("{name}: {report}"));
        }
        // What they held is given back.
        let given = || (value("sluice_memory_held_bytes") < 8e6).then_some(());
        e2e::harness::eventually("what they held is given back", Duration::from_secs(20), given).unwrap();
    }
    assert_eq!(gateway.ready_proxies().remove(0).pid, proxy.pid, "the proxy was started anew");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop((echo, other));
}
