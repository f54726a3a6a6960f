//! The access log: one JSON object a line on stdout, written by a thread of its own. Workers never wait for it: what does
//! not fit in the queue is dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError},
    },
    thread,
    time::Duration,
};

use http::Version;
use serde::Serialize;
use snapshot::proto::AccessLogLevel;
use tokio::sync::oneshot;

use super::{Blame, RequestRecord};

/// Lines that may wait.
const QUEUE: usize = 8192;
/// Longest wait for the queue to be written when the process ends.
const FLUSH: Duration = Duration::from_secs(1);

/// Which answers are logged, and where they go.
#[derive(Default)]
pub(super) struct AccessLog {
    /// Level in the upper half, percent in the lower.
    settings: AtomicU32,
    queue: OnceLock<SyncSender<Message>>,
    pub(super) dropped: AtomicU64,
}

enum Message {
    Line(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

/// A line; its names are the log's interface.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    client: std::net::SocketAddr,
    method: &'a str,
    host: &'a str,
    target: &'a str,
    protocol: &'static str,
    status: u16,
    route: Option<&'a str>,
    rule: Option<&'a str>,
    duration_ms: f64,
    upstream_ms: Option<f64>,
    added_ms: f64,
    upstream: Option<std::net::SocketAddr>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blame: Option<&'static str>,
}

impl AccessLog {
    pub(super) fn configure(&self, level: AccessLogLevel, percent: u32) {
        self.settings.store((level as u32) << 16 | percent.min(100), Relaxed);
    }

    /// Logs a request if it is to be logged.
    pub(super) fn closed(&self, record: &RequestRecord<'_>) {
        let settings = self.settings.load(Relaxed);
        if wanted(settings, record, || fastrand::u32(0..100)) {
            self.send(Message::Line(line(record)));
        }
    }

    /// Waits until everything that was logged is written, or a second is over.
    pub(super) async fn flush(&self) {
        let Some(queue) = self.queue.get() else { return };
        let (sender, receiver) = oneshot::channel();
        if queue.try_send(Message::Flush(sender)).is_ok() {
            let _ = tokio::time::timeout(FLUSH, receiver).await;
        }
    }

    fn send(&self, message: Message) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.get_or_init(start).try_send(message)
        {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

fn wanted(settings: u32, record: &RequestRecord<'_>, random: impl FnOnce() -> u32) -> bool {
    // Answers of 400 and more, and broken ones.
    let error = record.status >= 400 || record.status == 0 || record.blame.is_some();
    match AccessLogLevel::try_from((settings >> 16) as i32) {
        Ok(AccessLogLevel::All) => error || random() < settings & 0xffff,
        Ok(AccessLogLevel::Errors) => error,
        Ok(AccessLogLevel::Off) | Err(_) => false,
    }
}

fn line(record: &RequestRecord<'_>) -> Vec<u8> {
    let ms = |time: Duration| time.as_micros() as f64 / 1000.0;
    let line = Line {
        time: format!("{:.3}", jiff::Timestamp::now()),
        request_id: record.request_id,
        client: record.client,
        method: record.method.as_str(),
        host: record.host,
        target: record.target,
        protocol: protocol(record.version),
        status: record.status,
        route: record.rule.map(|r| r.route.as_ref()),
        rule: record.rule.map(|r| r.name.as_ref()),
        duration_ms: ms(record.duration),
        upstream_ms: record.upstream.map(ms),
        added_ms: ms(record.added),
        upstream: record.upstream_address,
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        reason: record.reason,
        blame: record.blame.map(Blame::as_str),
    };
    let mut bytes = Vec::with_capacity(512);
    // Neither writing to memory nor these types fail.
    let _ = serde_json::to_writer(&mut bytes, &line);
    bytes.push(b'\n');
    bytes
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "other",
    }
}

fn start() -> SyncSender<Message> {
    let (sender, receiver) = mpsc::sync_channel(QUEUE);
    let writer = thread::Builder::new().name("access-log".to_owned()).spawn(move || write(&receiver, io::stdout()));
    if let Err(e) = writer {
        // The receiver is gone with the thread: every line counts as dropped.
        tracing::error!("no access log: {e}");
    }
    sender
}

fn write(receiver: &Receiver<Message>, out: impl Write) {
    let mut out = io::BufWriter::with_capacity(64 << 10, out);
    let mut next = receiver.recv().ok();
    while let Some(message) = next {
        match message {
            // A reader that is gone is not this process' concern.
            Message::Line(line) => drop(out.write_all(&line)),
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
        next = match receiver.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Empty) => {
                let _ = out.flush();
                receiver.recv().ok()
            }
            Err(TryRecvError::Disconnected) => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn record(status: u16, blame: Option<Blame>) -> RequestRecord<'static> {
        RequestRecord {
            rule: None,
            client: ([192, 0, 2, 1], 7).into(),
            method: &Method::GET,
            target: "/a?b=\"c\"",
            host: "shop",
            version: Version::HTTP_2,
            status,
            request_id: "id",
            duration: Duration::from_micros(12_345),
            upstream: Some(Duration::from_micros(12_000)),
            added: Duration::from_micros(345),
            upstream_address: Some(([127, 0, 0, 1], 9000).into()),
            bytes_in: 1,
            bytes_out: 2,
            reason: blame.map(|_| "upstream_broke"),
            blame,
        }
    }

    #[test]
    fn level_and_sampling() {
        let check = |level: AccessLogLevel, percent, status, blame, random, expect| {
            let log = AccessLog::default();
            log.configure(level, percent);
            let got = wanted(log.settings.load(Relaxed), &record(status, blame), || random);
            assert_eq!(got, expect, "{level:?} {percent} {status} {random}");
        };
        use AccessLogLevel::{All, Errors, Off};
        check(Off, 100, 500, None, 0, false);
        check(Errors, 100, 200, None, 0, false);
        check(Errors, 0, 400, None, 99, true);
        check(Errors, 0, 200, Some(Blame::Upstream), 99, true);
        check(Errors, 0, 0, None, 99, true);
        check(All, 10, 200, None, 9, true);
        check(All, 10, 200, None, 10, false);
        check(All, 0, 500, None, 99, true);
        check(All, 100, 304, None, 99, true);
    }

    #[test]
    fn lines_are_json_in_plain_words() {
        let line = line(&record(502, Some(Blame::Upstream)));
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let mut got: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let time = got["time"].take();
        assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{time}");
        let expect = serde_json::json!({
            "time": null, "request_id": "id", "client": "192.0.2.1:7", "method": "GET", "host": "shop",
            "target": "/a?b=\"c\"", "protocol": "HTTP/2", "status": 502, "route": null, "rule": null,
            "duration_ms": 12.345, "upstream_ms": 12.0, "added_ms": 0.345, "upstream": "127.0.0.1:9000",
            "bytes_in": 1, "bytes_out": 2, "reason": "upstream_broke", "blame": "upstream",
        });
        assert_eq!(got, expect);
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let log = AccessLog::default();
        let (sender, receiver) = mpsc::sync_channel(2);
        log.queue.set(sender).ok().unwrap();
        log.configure(AccessLogLevel::All, 100);
        (0..5).for_each(|_| log.closed(&record(200, None)));
        assert_eq!(log.dropped.load(Relaxed), 3);
        drop(log);
        let mut written = vec![];
        write(&receiver, &mut written);
        assert_eq!(written.iter().filter(|b| **b == b'\n').count(), 2);
    }
}
