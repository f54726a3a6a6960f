//! Whether a quiet client is still there: it is asked by PING (RFC 9113 section 6.7). And whether it still wants
//! anything.

use std::{future::poll_fn, num::NonZeroU32, time::Duration};

use h2::{Ping, PingPong};
use tokio::time::{self, Interval, MissedTickBehavior};

/// A client is asked this often; one that did not answer the last time, and read less than the least rate since, is
/// gone. So one that left without a FIN is noticed within 40 s, or 60 when it left within a response: to one that reads
/// slowly the question comes behind all that was sent before it.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// An event of a connection's keep-alive.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeepAliveEvent {
    /// The client was asked.
    Asked,
    /// The connection has been without streams for long.
    Idle,
    /// The client did not answer.
    Gone,
}

/// The keep-alive of one connection: how long its client has been silent.
pub(super) struct KeepAlive {
    ask: Interval,
    ping: Option<PingPong>,
    awaited: bool,
    asked: u32,
    /// Bytes that had left for the client when it was asked last.
    left: u64,
    /// Bytes that leave between two questions where it reads.
    least: u64,
    /// A connection without streams is retired after so many questions.
    idle: u32,
}

impl KeepAlive {
    /// `idle`: how long a connection may be without streams. `least`: bytes that a client reads in a second.
    pub(super) fn new(ping: Option<PingPong>, idle: Duration, least: Option<NonZeroU32>) -> Self {
        let every = PING_INTERVAL.min(idle.max(Duration::from_secs(1)));
        let idle = u32::try_from(idle.as_millis().div_ceil(every.as_millis())).unwrap_or(u32::MAX);
        let mut ask = time::interval_at(time::Instant::now() + every, every);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let least = least.map_or(1, |least| u64::from(least.get()) * every.as_secs());
        Self { ask, ping, awaited: false, asked: 0, left: 0, least, idle }
    }

    /// Notes that the connection has streams: its silence begins anew.
    pub(super) fn broken(&mut self) {
        self.asked = 0;
    }

    /// Waits for the next thing that silence comes to. `left`: bytes of bodies that have left for the client.
    pub(super) async fn next(&mut self, left: impl Fn() -> u64) -> KeepAliveEvent {
        loop {
            tokio::select! {
                pong = pong(&mut self.ping), if self.awaited => {
                    self.awaited = false;
                    if pong.is_err() {
                        self.ping = None; // the connection ends, and says so itself
                    }
                }
                _ = self.ask.tick() => {
                    let left = left();
                    let is_reading = left >= std::mem::replace(&mut self.left, left).saturating_add(self.least);
                    if self.awaited {
                        return if is_reading { KeepAliveEvent::Asked } else { KeepAliveEvent::Gone };
                    }
                    self.awaited = self.ping.as_mut().is_some_and(|ping| ping.send_ping(Ping::opaque()).is_ok());
                    self.asked += 1;
                    return if self.asked == self.idle { KeepAliveEvent::Idle } else { KeepAliveEvent::Asked };
                }
            }
        }
    }
}

async fn pong(ping: &mut Option<PingPong>) -> Result<(), h2::Error> {
    match ping {
        Some(ping) => poll_fn(|cx| ping.poll_pong(cx)).await.map(drop),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_reads_slowly_is_not_gone() {
        let (mut client, server) = tokio::io::duplex(1 << 10);
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut connection = h2::server::handshake(server).await.unwrap();
        let mut silence = KeepAlive::new(connection.ping_pong(), Duration::from_secs(75), NonZeroU32::new(240));
        let left = Cell::new(0);
        // It answers nothing.
        for _ in 0..5 {
            left.set(left.get() + 20 * 240);
            assert_eq!(silence.next(|| left.get()).await, KeepAliveEvent::Asked);
        }
        // A trickle is no reading.
        left.set(left.get() + 20 * 240 - 1);
        assert_eq!(silence.next(|| left.get()).await, KeepAliveEvent::Gone);
    }
}
