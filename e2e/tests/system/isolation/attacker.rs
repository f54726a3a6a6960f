//! One attacker who sends at most so many bytes in a second, on as many connections as he likes, whatever costs the most
//! for each; from an address of his own, so that the others are told apart from him.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use e2e::harness::manifests::HOST;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::{Instant, sleep_until},
};

/// Requests of one connection that are under way at once by HTTP/2, and that are sent together by HTTP/1.1.
const AT_ONCE: u32 = 50;
/// A second.
const SECOND: Duration = Duration::from_secs(1);

/// What he sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sends {
    /// The same head by HTTP/1.1, over and over.
    Http1(&'static [u8]),
    /// By HTTP/2: a path that fills HPACK's table once, then 13 bytes for each request, which refer to it.
    Http2(&'static str),
}

/// An attack under way.
pub(super) struct Attacker {
    counts: Arc<Counts>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    began: Instant,
}

#[derive(Default)]
struct Counts {
    bytes: AtomicU64,
    requests: AtomicU64,
    /// Connections that were ended for him.
    ended: AtomicU64,
}

/// So many bytes may be sent in a second, by all of his connections together.
struct Pace {
    began: Instant,
    per_second: u64,
    sent: AtomicU64,
}

impl Pace {
    async fn take(&self, bytes: usize) {
        let before = self.sent.fetch_add(bytes as u64, Relaxed);
        sleep_until(self.began + SECOND.mul_f64(before as f64 / self.per_second as f64)).await;
    }
}

impl Attacker {
    pub(super) fn start(from: [u8; 4], to: SocketAddr, connections: usize, per_second: u64, sends: Sends) -> Self {
        let (counts, stop) = (Arc::<Counts>::default(), watch::Sender::new(false));
        let (counted, mut stopped) = (Arc::clone(&counts), stop.subscribe());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let run = async move {
            let pace = Arc::new(Pace { began: Instant::now(), per_second, sent: AtomicU64::new(0) });
            for _ in 0..connections {
                let (counts, pace) = (Arc::clone(&counted), Arc::clone(&pace));
                tokio::spawn(async move {
                    // Whoever is thrown out comes back.
                    loop {
                        let _ = attack(from, to, sends, &counts, &pace).await;
                        counts.ended.fetch_add(1, Relaxed);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                });
            }
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let thread = std::thread::spawn(move || runtime.block_on(run));
        Self { counts, stop, thread: Some(thread), began: Instant::now() }
    }

    /// Ends it; says what it came to.
    pub(super) fn stop(mut self) -> String {
        self.stop.send_replace(true);
        self.thread.take().unwrap().join().unwrap();
        let seconds = self.began.elapsed().as_secs_f64();
        let [bytes, requests, ended] =
            [&self.counts.bytes, &self.counts.requests, &self.counts.ended].map(|count| count.load(Relaxed));
        let [bytes_each, requests_each] = [bytes, requests].map(|count| count as f64 / seconds);
        format!("{bytes_each:.0} bytes/s, {requests_each:.0} requests/s answered, {ended} connections ended")
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

async fn attack(from: [u8; 4], to: SocketAddr, sends: Sends, counts: &Counts, pace: &Pace) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((from, 0).into())?;
    let mut stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    match sends {
        Sends::Http1(head) => http1(&mut stream, head, counts, pace).await,
        Sends::Http2(path) => http2(&mut stream, path, counts, pace).await,
    }
}

async fn send(stream: &mut TcpStream, bytes: &[u8], counts: &Counts, pace: &Pace) -> io::Result<()> {
    pace.take(bytes.len()).await;
    stream.write_all(bytes).await?;
    counts.bytes.fetch_add(bytes.len() as u64, Relaxed);
    Ok(())
}

/// As many requests as fit into some KiB, then whatever comes back for them.
async fn http1(stream: &mut TcpStream, head: &[u8], counts: &Counts, pace: &Pace) -> io::Result<()> {
    let together = (4096 / head.len()).clamp(1, AT_ONCE as usize);
    let batch = head.repeat(together);
    let mut buffer = vec![0; 64 << 10];
    loop {
        send(stream, &batch, counts, pace).await?;
        let mut answered = 0;
        while answered < together {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Near enough: an answer whose first bytes are in two reads is not seen, and its connection given up.
            answered += buffer[..read].windows(9).filter(|bytes| *bytes == b"HTTP/1.1 ").count();
        }
        counts.requests.fetch_add(together as u64, Relaxed);
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// A literal that is put into the table, its name by index.
fn literal(name: u8, value: &str) -> Vec<u8> {
    let mut bytes = vec![0x40 | name];
    match value.len() {
        short @ ..127 => bytes.push(short as u8),
        long => bytes.extend([0x7f, 0x80 | ((long - 127) % 128) as u8, ((long - 127) / 128) as u8]),
    }
    bytes.extend(value.as_bytes());
    bytes
}

async fn http2(stream: &mut TcpStream, path: &str, counts: &Counts, pace: &Pace) -> io::Result<()> {
    const END: u8 = 5; // END_STREAM, END_HEADERS
    let mut batch = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // Windows that never close.
    batch.extend(frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    batch.extend(frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
    batch.extend(frame(1, END, 1, &[&[0x82, 0x86][..], &literal(1, HOST), &literal(4, path)].concat()));
    let (mut next, mut open) = (3, 1);
    let (mut inbound, mut buffer) = (vec![], vec![0; 64 << 10]);
    loop {
        while open < AT_ONCE {
            batch.extend(frame(1, END, next, &[0x82, 0x86, 0xbf, 0xbe]));
            (next, open) = (next + 2, open + 1);
        }
        send(stream, &std::mem::take(&mut batch), counts, pace).await?;
        while open > AT_ONCE / 2 {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            inbound.extend_from_slice(&buffer[..read]);
            let mut at = 0;
            while let Some(&[a, b, c, kind, flags]) = inbound.get(at..at + 5) {
                let end = at + 9 + u32::from_be_bytes([0, a, b, c]) as usize;
                if inbound.len() < end {
                    break;
                }
                match kind {
                    // An answer's end, or a reset.
                    0 | 1 if flags & 1 == 1 => open = open.saturating_sub(1),
                    3 => open = open.saturating_sub(1),
                    // Acknowledged, and nothing is answered to PING: he has better things to do.
                    4 if flags & 1 == 0 => batch.extend(frame(4, 1, 0, &[])),
                    _ => {}
                }
                if matches!(kind, 0 | 1) && flags & 1 == 1 {
                    counts.requests.fetch_add(1, Relaxed);
                }
                at = end;
            }
            inbound.drain(..at);
        }
    }
}
