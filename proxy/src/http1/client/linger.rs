//! The end of a connection whose client was answered before it has sent all it has.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Client, Stream};

/// When so many clients go on sending what nobody reads, further ones have less time for it, and are read more slowly.
const MANY_CLIENTS: usize = 256;
const MANY_LINGER: Duration = Duration::from_secs(2);
const MANY_RATE: u64 = 1 << 20;

impl<S: Stream> Client<S> {
    /// Reads and drops what a client still sends. Many look for an answer only when they have sent all they have.
    pub(super) async fn linger(&mut self) {
        let lingering = Lingering::enter();
        let (time, rate) = match lingering.is_one_of_many() {
            false => (self.limits.linger, self.limits.linger_rate),
            true => (MANY_LINGER, MANY_RATE),
        };
        let began = Instant::now();
        let mut dropped = 0;
        loop {
            self.buffer.bytes.clear();
            let until = (began + time).min(Instant::now() + self.limits.linger_stall);
            let fill = poll_fn(|cx| {
                let read = self.poll_fill(cx);
                if read.is_pending() {
                    self.buffer.release();
                }
                read
            });
            match timeout_at(until, fill).await {
                Ok(Ok(read @ 1..)) => dropped += read as u64,
                // It has ended, or had its time.
                _ => return,
            }
            let due = began + Duration::from_secs(dropped / rate);
            if due > Instant::now() {
                sleep_until(due.min(began + time)).await;
            }
        }
    }
}

/// A connection that waits for its client to end, of which the process has only so many for long.
struct Lingering(usize);

static LINGERING: AtomicUsize = AtomicUsize::new(0);

impl Lingering {
    fn enter() -> Self {
        Self(LINGERING.fetch_add(1, Relaxed))
    }

    fn is_one_of_many(&self) -> bool {
        self.0 >= MANY_CLIENTS
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        LINGERING.fetch_sub(1, Relaxed);
    }
}
