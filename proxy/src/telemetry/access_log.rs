//! The access log: one JSON object a line on stdout, written by a thread of its own. Workers never wait for it: what
//! does not fit in their buffers is dropped and counted.
//!
//! Each worker writes its lines into a buffer of its own; the writer wakes at the first line and takes what has
//! gathered some milliseconds later, or when there is much. So a line costs no allocation, and a burst of them one
//! wake-up and one write.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, Thread},
    time::Duration,
};

use snapshot::proto::AccessLogLevel;
use tokio::sync::oneshot;

use super::{line, record::RequestRecord, sharded::Sharded};

/// Bytes that may wait in each worker: some 5,000 lines.
const MAX_BUFFERED_BYTES: usize = 2 << 20;
/// Capacity beyond which a buffer is not kept.
const MAX_KEPT_BYTES: usize = 256 << 10;
/// Longest time for which lines gather before they are written.
const GATHER_TIME: Duration = Duration::from_millis(20);
/// Bytes at which lines are written at once: more would leave the caches before it is written.
const WRITE_AT_BYTES: usize = 128 << 10;
/// Longest wait for the buffers to be written when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The access log of this process: which answers are logged, and where they go.
#[derive(Default)]
pub(super) struct AccessLog {
    /// Level in the upper half, percent in the lower.
    settings: AtomicU32,
    buffers: Arc<Buffers>,
    writer: OnceLock<Option<Thread>>,
    pub(super) dropped: AtomicU64,
}

/// The lines that wait to be written.
#[derive(Default)]
struct Buffers {
    lines: Sharded<Mutex<Vec<u8>>>,
    /// The writer was woken, and has not yet begun to take. Read under the lock of the buffer that was written to:
    /// either the writer finds the line, or the line's worker finds this unset.
    awake: AtomicBool,
    /// Told once everything before them is written.
    flushes: Mutex<Vec<oneshot::Sender<()>>>,
    /// Whether there will be no more lines.
    closed: AtomicBool,
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
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, receiver).await;
    }

    fn write(&self, record: &RequestRecord<'_>) {
        let mut lines = lock(self.buffers.lines.own());
        if lines.len() >= MAX_BUFFERED_BYTES {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        let before = lines.len();
        line::write(&mut lines, record);
        let first = !self.buffers.awake.load(Relaxed) && !self.buffers.awake.swap(true, Relaxed);
        let wake = first || before < WRITE_AT_BYTES && lines.len() >= WRITE_AT_BYTES;
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
    let error = record.status >= 400 || record.status == 0 || record.error_source.is_some();
    match AccessLogLevel::try_from((settings >> 16) as i32) {
        Ok(AccessLogLevel::All) => error || random() < settings & 0xffff,
        Ok(AccessLogLevel::Errors) => error,
        Ok(AccessLogLevel::Off) | Err(_) => false,
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
                thread::park_timeout(GATHER_TIME);
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
            spare.shrink_to(MAX_KEPT_BYTES);
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
pub(super) mod tests {
    use http::{Method, Version};

    use super::*;
    use crate::telemetry::ErrorSource;

    pub(in crate::telemetry) fn record(status: u16, error_source: Option<ErrorSource>) -> RequestRecord<'static> {
        RequestRecord {
            ended: std::time::Instant::now(),
            rule: None,
            consumer: None,
            client: b"192.0.2.1",
            client_port: Some(7),
            method: &Method::GET,
            target: "/a?b=\"c\"",
            host: b"shop",
            version: Version::HTTP_2,
            status,
            request_id: b"id",
            duration: Duration::from_micros(12_345),
            upstream: Some(Duration::from_micros(12_000)),
            external: None,
            added: Duration::from_micros(45),
            upstream_address: Some(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9000).into()),
            bytes_in: 1,
            bytes_out: 2,
            reason: error_source.map(|_| "upstream_broke"),
            error_source,
        }
    }

    #[test]
    fn level_and_sampling() {
        let check = |level: AccessLogLevel, percent, status, error_source, random, expect| {
            let log = AccessLog::default();
            log.configure(level, percent);
            let got = wanted(log.settings.load(Relaxed), &record(status, error_source), || random);
            assert_eq!(got, expect, "{level:?} {percent} {status} {random}");
        };
        use AccessLogLevel::{All, Errors, Off};
        check(Off, 100, 500, None, 0, false);
        check(Errors, 100, 200, None, 0, false);
        check(Errors, 0, 400, None, 99, true);
        check(Errors, 0, 200, Some(ErrorSource::Upstream), 99, true);
        check(Errors, 0, 0, None, 99, true);
        check(All, 10, 200, None, 9, true);
        check(All, 10, 200, None, 10, false);
        check(All, 0, 500, None, 99, true);
        check(All, 100, 304, None, 99, true);
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
        (0..MAX_BUFFERED_BYTES / length + 10).for_each(|_| log.closed(&record(200, None)));
        let dropped = log.dropped.load(Relaxed);
        assert!((5..=10).contains(&dropped), "{dropped}");
        log.buffers.write(&mut written, &mut spare);
        let lines = written.iter().filter(|b| **b == b'\n').count() as u64;
        assert_eq!(lines + dropped, (MAX_BUFFERED_BYTES / length) as u64 + 11);
        assert!(spare.capacity() <= MAX_KEPT_BYTES);
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
        assert!(began.elapsed() < FLUSH_TIMEOUT, "{:?}", began.elapsed());
    }
}
