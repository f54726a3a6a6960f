//! The access log: one JSON object a line on stdout, written by a thread of its own. Workers never wait for it: what does
//! not fit in their buffers is dropped and counted.
//!
//! Each worker writes its lines into a buffer of its own; the writer wakes at the first line and takes what has gathered
//! some milliseconds later. So a line costs no allocation, and a burst of them one wake-up and one write.

use std::{
    cell::RefCell,
    fmt::Write as _,
    io::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, Thread},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::Version;
use serde::Serialize;
use snapshot::proto::AccessLogLevel;
use tokio::sync::oneshot;

use super::{Blame, RequestRecord, Sharded};

/// Bytes that may wait in each worker: some 5,000 lines.
const MOST: usize = 2 << 20;
/// A buffer that grew beyond this is not kept.
const KEPT: usize = 256 << 10;
/// How long lines gather before they are written.
const GATHER: Duration = Duration::from_millis(20);
/// Longest wait for the buffers to be written when the process ends.
const FLUSH: Duration = Duration::from_secs(1);

/// Which answers are logged, and where they go.
#[derive(Default)]
pub(super) struct AccessLog {
    /// Level in the upper half, percent in the lower.
    settings: AtomicU32,
    buffers: Arc<Buffers>,
    writer: OnceLock<Option<Thread>>,
    pub(super) dropped: AtomicU64,
}

/// What waits to be written.
#[derive(Default)]
struct Buffers {
    lines: Sharded<Mutex<Vec<u8>>>,
    /// The writer was woken, and has not yet begun to take. Read under the lock of the buffer that was written to: either
    /// the writer finds the line, or the line's worker finds this unset.
    awake: AtomicBool,
    /// Told once everything before them is written.
    flushes: Mutex<Vec<oneshot::Sender<()>>>,
    /// There will be no more.
    closed: AtomicBool,
}

/// A line; its names are the log's interface.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
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
            self.write(record);
        }
    }

    /// Waits until everything that was logged is written, or a second is over.
    pub(super) async fn flush(&self) {
        let Some(Some(writer)) = self.writer.get() else { return };
        let (sender, receiver) = oneshot::channel();
        lock(&self.buffers.flushes).push(sender);
        writer.unpark();
        let _ = tokio::time::timeout(FLUSH, receiver).await;
    }

    fn write(&self, record: &RequestRecord<'_>) {
        let mut lines = lock(self.buffers.lines.own());
        if lines.len() >= MOST {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        line(&mut lines, record);
        let wake = !self.buffers.awake.load(Relaxed) && !self.buffers.awake.swap(true, Relaxed);
        drop(lines);
        if wake && let Some(writer) = self.writer.get_or_init(|| start(&self.buffers)) {
            writer.unpark();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.buffers.closed.store(true, Relaxed);
        if let Some(Some(writer)) = self.writer.get() {
            writer.unpark();
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

fn line(out: &mut Vec<u8>, record: &RequestRecord<'_>) {
    // Both are ASCII.
    let text = |bytes| str::from_utf8(bytes).unwrap_or_default();
    let ms = |time: Duration| time.as_micros() as f64 / 1000.0;
    with_time(SystemTime::now(), |time| {
        let line = Line {
            time,
            request_id: text(record.request_id),
            client: record.client,
            method: record.method.as_str(),
            host: text(record.host),
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
        // Neither writing to memory nor these types fail.
        let _ = serde_json::to_writer(&mut *out, &line);
    });
    out.push(b'\n');
}

/// A time as RFC 3339 has it, in UTC, with milliseconds. All but these is written anew once a second.
fn with_time<R>(now: SystemTime, use_it: impl FnOnce(&str) -> R) -> R {
    const WHOLE: usize = "2026-01-31T23:59:59".len();
    thread_local! {
        static WRITTEN: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    WRITTEN.with_borrow_mut(|(written, text)| {
        if *written != now.as_secs() {
            *written = now.as_secs();
            let at = i64::try_from(now.as_secs()).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
            text.clear();
            // Writing to a string does not fail.
            let _ = write!(text, "{:.0}", at.unwrap_or_default());
        }
        text.truncate(WHOLE);
        let _ = write!(text, ".{:03}Z", now.subsec_millis());
        use_it(text)
    })
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "other",
    }
}

/// Starts the writer; without one the buffers fill up, and further lines count as dropped.
fn start(buffers: &Arc<Buffers>) -> Option<Thread> {
    let buffers = Arc::clone(buffers);
    let writer = thread::Builder::new().name("access-log".to_owned()).spawn(move || {
        let (mut out, mut spare) = (io::stdout(), Vec::new());
        while !buffers.closed.load(Relaxed) {
            thread::park();
            if lock(&buffers.flushes).is_empty() {
                thread::park_timeout(GATHER);
            }
            buffers.write(&mut out, &mut spare);
        }
    });
    match writer {
        Ok(writer) => Some(writer.thread().clone()),
        Err(e) => {
            tracing::error!("no access log: {e}");
            None
        }
    }
}

impl Buffers {
    /// Writes what waits; `spare` is a buffer to put in the place of one that is being written.
    fn write(&self, out: &mut impl Write, spare: &mut Vec<u8>) {
        let flushes = std::mem::take(&mut *lock(&self.flushes));
        self.awake.store(false, Relaxed);
        for lines in self.lines.iter() {
            std::mem::swap(&mut *lock(lines), spare);
            // A reader that is gone is not this process' concern.
            let _ = out.write_all(spare);
            spare.clear();
            spare.shrink_to(KEPT);
        }
        let _ = out.flush();
        for flush in flushes {
            // Who waited may have given up.
            let _ = flush.send(());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            host: b"shop",
            version: Version::HTTP_2,
            status,
            request_id: b"id",
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
        let mut line = vec![];
        super::line(&mut line, &record(502, Some(Blame::Upstream)));
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
    fn times_are_rfc_3339() {
        for (ms, expect) in [
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (1_767_225_600_000, "2026-01-01T00:00:00.000Z"),
            (1_767_225_600_070, "2026-01-01T00:00:00.070Z"),
        ] {
            with_time(UNIX_EPOCH + Duration::from_millis(ms), |time| assert_eq!(time, expect));
        }
    }

    #[test]
    fn a_full_buffer_drops_and_counts() {
        let log = AccessLog::default();
        // No thread: this test writes.
        log.writer.set(None).ok().unwrap();
        log.configure(AccessLogLevel::All, 100);
        let (mut written, mut spare) = (vec![], vec![]);
        log.closed(&record(200, None));
        let length = log.buffers.lines.own().lock().unwrap().len();
        (0..MOST / length + 10).for_each(|_| log.closed(&record(200, None)));
        let dropped = log.dropped.load(Relaxed);
        assert!((5..=10).contains(&dropped), "{dropped}");
        log.buffers.write(&mut written, &mut spare);
        let lines = written.iter().filter(|b| **b == b'\n').count() as u64;
        assert_eq!(lines + dropped, (MOST / length) as u64 + 11);
        assert!(spare.capacity() <= KEPT);
        // There is room again, and the writer is to be woken again.
        log.closed(&record(200, None));
        assert!(log.buffers.awake.load(Relaxed) && log.dropped.load(Relaxed) == dropped);
    }

    #[tokio::test]
    async fn a_flush_is_told_when_all_is_written() {
        let log = AccessLog::default();
        log.configure(AccessLogLevel::Off, 0);
        log.flush().await;
        let writer = log.writer.get_or_init(|| start(&log.buffers)).clone().unwrap();
        let began = std::time::Instant::now();
        writer.unpark();
        log.flush().await;
        assert!(began.elapsed() < FLUSH, "{:?}", began.elapsed());
    }
}
