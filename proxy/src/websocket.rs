//! WebSockets (RFC 6455) once upgraded: bytes are relayed both ways while frame headers are followed, so that a proxy
//! which leaves can put a Close frame with code 1001 (Going Away) exactly between two frames.
//!
//! A WebSocket holds its rule, not the whole configuration: pushes never cut it.

use std::{
    io,
    pin::pin,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    connection::Conn,
    http1::{serve::WebSocket, stream::Stream},
    message_limits::Limits,
    worker::{Phase, Worker},
};

/// Close frame with code 1001, as a server sends it.
const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];
/// Close frame with code 1001, as a client sends it: masked, with the mask 0.
const GOING_AWAY_MASKED: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];
/// Time that a peer has to answer a Close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for which one direction may go on after the other has ended.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes read at once, for each direction.
const BUFFER_BYTES: usize = 16 << 10;
/// Memory that both directions hold.
pub(crate) const HELD_BYTES: usize = 2 * BUFFER_BYTES;

/// Relays between client and upstream until one of them ends, the proxy leaves, or its time is over. The request counts
/// as under way to its endpoint, and keeps its rule.
pub(crate) async fn relay<S: Stream>(worker: &Worker, conn: &Conn, ends: WebSocket<S>) {
    let phase = worker.phase.subscribe();
    let WebSocket { mut client, mut upstream, rule: _rule, checkout: _checkout } = ends;
    let life = Life::new(&conn.limits, Instant::now());
    match both_ways(&mut client, &mut upstream, phase, &life).await {
        Ok(()) => {}
        Err(e) => tracing::debug!(peer = %conn.peer, error = %e, "websocket ended"),
    }
    if let Some(over) = life.was_over.get().copied() {
        tracing::debug!(peer = %conn.peer, over, "websocket ended");
        worker.shared.telemetry.websocket_over(over);
    }
}

/// The life of a WebSocket: its limits, and when it last moved.
struct Life {
    began: Instant,
    /// Without a byte in either direction.
    idle: Duration,
    /// Altogether.
    age: Duration,
    /// Milliseconds from the beginning to the last bytes.
    last: AtomicU64,
    /// Why it was over, once it was.
    was_over: OnceLock<&'static str>,
}

impl Life {
    fn new(limits: &Limits, now: Instant) -> Self {
        // ± 10 % so that those made together do not end together.
        let age = limits.websocket_age.mul_f64(0.9 + 0.2 * fastrand::f64());
        Self { began: now, idle: limits.websocket_idle, age, last: AtomicU64::new(0), was_over: OnceLock::new() }
    }

    /// Bytes came.
    fn note(&self) {
        self.last.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// When it is over, unless bytes come.
    fn ends(&self) -> Instant {
        let idle = Duration::from_millis(self.last.load(Relaxed)).saturating_add(self.idle);
        // A time that no clock reaches is as good as none.
        self.began.checked_add(self.age.min(idle)).unwrap_or(self.began + Duration::from_secs(u32::MAX.into()))
    }

    /// Why it is over, if it is: a fixed word.
    fn is_over(&self, now: Instant) -> Option<&'static str> {
        let age = now.saturating_duration_since(self.began);
        match now < self.ends() {
            true => None,
            false if age >= self.age => Some("age"),
            false => Some("idle"),
        }
    }

    /// Waits until it is over.
    async fn over(&self) {
        while self.was_over.get().is_none() {
            sleep_until(self.ends()).await;
            if let Some(over) = self.is_over(Instant::now()) {
                // It is over once.
                let _ = self.was_over.set(over);
            }
        }
    }
}

async fn both_ways<C, U>(client: &mut C, upstream: &mut U, phase: watch::Receiver<Phase>, life: &Life) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut upstream_read, mut upstream_write) = tokio::io::split(upstream);
    let (leave, mut leaving) = watch::channel(false);
    let mut leaving_too = leaving.clone();
    // Both end at a frame boundary once it is to end; either may end before because its peer does. The other then gets
    // some time to follow.
    let (down, up) = {
        let mut down = pin!(pump(&mut upstream_read, &mut client_write, &mut leaving, life));
        let mut up = pin!(pump(&mut client_read, &mut upstream_write, &mut leaving_too, life));
        tokio::select! {
            end = down.as_mut() => (Some(end?), timeout(HALF_CLOSED_TIMEOUT, up).await.ok().transpose()?),
            end = up.as_mut() => (timeout(HALF_CLOSED_TIMEOUT, down).await.ok().transpose()?, Some(end?)),
            () = cut(leave, phase, life) => (None, None),
        }
    };
    if up == Some(End::Leaving) {
        farewell(&mut upstream_write, &GOING_AWAY_MASKED).await?;
    }
    if down != Some(End::Leaving) {
        return Ok(());
    }
    farewell(&mut client_write, &GOING_AWAY).await?;
    // The client answers with a Close of its own and hangs up; what it still sends goes nowhere.
    let mut rest = [0; 1024];
    let closed = async {
        while client_read.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(CLOSE_TIMEOUT, closed).await;
    client_write.shutdown().await?;
    upstream_write.shutdown().await
}

/// Says when both directions are to end: when the proxy leaves, which waits for them as long as it may, or when the
/// time is over. Ends when they did not in time.
async fn cut(leave: watch::Sender<bool>, mut phase: watch::Receiver<Phase>, life: &Life) {
    let is_over = tokio::select! {
        _ = phase.wait_for(|phase| *phase >= Phase::Closing) => false,
        () = life.over() => true,
    };
    leave.send_replace(true);
    match is_over {
        true => tokio::time::sleep(HALF_CLOSED_TIMEOUT).await,
        false => std::future::pending().await,
    }
}

/// Sends a Close, to whoever still reads.
async fn farewell(write: &mut (impl AsyncWrite + Unpin), close: &[u8]) -> io::Result<()> {
    timeout(CLOSE_TIMEOUT, write.write_all(close)).await?
}

#[derive(Debug, PartialEq)]
enum End {
    /// The reader's peer closed; the writer's was told.
    Closed,
    /// The WebSocket is to end, and the last byte written ends a frame.
    Leaving,
}

/// Copies one direction.
async fn pump<R, W>(read: &mut R, write: &mut W, leaving: &mut watch::Receiver<bool>, life: &Life) -> io::Result<End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut frames = Frames::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let is_leaving = *leaving.borrow_and_update();
        if is_leaving && frames.at_boundary() {
            return Ok(End::Leaving);
        }
        let read = tokio::select! {
            read = read.read(&mut buffer) => read?,
            _ = leaving.changed(), if !is_leaving => continue,
        };
        if read == 0 {
            write.shutdown().await?;
            return Ok(End::Closed);
        }
        life.note();
        let end = if is_leaving { frames.up_to_boundary(&buffer[..read]) } else { frames.follow(&buffer[..read]) };
        write.write_all(&buffer[..end]).await?;
    }
}

/// Follows frame headers through a stream of bytes (RFC 6455 section 5.2).
#[derive(Debug, Default)]
struct Frames {
    header: [u8; 14],
    /// Bytes of the header so far.
    filled: usize,
    /// Bytes of the payload still to come; set when the header is complete.
    payload: u64,
}

impl Frames {
    /// Whether the last byte ended a frame.
    fn at_boundary(&self) -> bool {
        self.filled == 0 && self.payload == 0
    }

    /// Follows all bytes.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(&bytes[at..]);
        }
        at
    }

    /// Follows bytes up to the end of the frame that is under way, and answers where that is.
    fn up_to_boundary(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !(at > 0 && self.at_boundary()) {
            at += self.step(&bytes[at..]);
        }
        at
    }

    /// Takes some bytes, at least one, never beyond a header or a payload.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload > 0 {
            let taken = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= taken as u64;
            return taken;
        }
        self.header[self.filled] = bytes[0];
        self.filled += 1;
        if self.filled >= 2 && self.filled == self.header_len() {
            self.payload = self.payload_len();
            self.filled = 0;
        }
        1
    }

    fn header_len(&self) -> usize {
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 != 0 { 4 } else { 0 };
        2 + length + mask
    }

    fn payload_len(&self) -> u64 {
        let h = &self.header;
        match h[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([h[2], h[3]])),
            127 => u64::from_be_bytes([h[2], h[3], h[4], h[5], h[6], h[7], h[8], h[9]]),
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message_limits::DEFAULT;

    fn frame(payload: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        match payload {
            0..126 => frame.push(mask | payload as u8),
            126..65536 => {
                frame.push(mask | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(std::iter::repeat_n(0xff, payload + if masked { 4 } else { 0 }));
        frame
    }

    proptest! {
        #[test]
        fn boundaries_are_found_however_the_bytes_are_cut(
            sizes in proptest::collection::vec((prop_oneof![0..200usize, 65_500..65_600usize], any::<bool>()), 1..6),
            cut in 1..70_000usize,
        ) {
            let frames: Vec<_> = sizes.iter().map(|(size, masked)| frame(*size, *masked)).collect();
            let bytes = frames.concat();
            let mut ends = vec![0];
            for frame in &frames {
                ends.push(ends.last().unwrap() + frame.len());
            }
            let mut follower = Frames::default();
            let mut at = 0;
            for chunk in bytes.chunks(cut) {
                at += follower.follow(chunk);
                prop_assert_eq!(follower.at_boundary(), ends.contains(&at));
            }
            // From any point, the next boundary is the end of the frame under way.
            let cut = cut.min(bytes.len());
            let mut follower = Frames::default();
            follower.follow(&bytes[..cut]);
            if !follower.at_boundary() {
                let end = cut + follower.up_to_boundary(&bytes[cut..]);
                prop_assert_eq!(Some(&end), ends.iter().find(|e| **e > cut));
            }
        }
    }

    fn life(idle: u64, age: u64) -> Life {
        let [websocket_idle, websocket_age] = [idle, age].map(Duration::from_secs);
        Life::new(&Limits { websocket_idle, websocket_age, ..DEFAULT }, Instant::now())
    }

    #[tokio::test]
    async fn a_close_is_put_between_frames() {
        let (phase, receiver) = watch::channel(Phase::Serving);
        let (mut client, mut proxy_client) = tokio::io::duplex(1 << 16);
        let (mut upstream, mut proxy_upstream) = tokio::io::duplex(1 << 16);
        let relay = tokio::spawn(async move {
            both_ways(&mut proxy_client, &mut proxy_upstream, receiver, &life(3600, 3600)).await
        });
        let frame = frame(300, false);
        upstream.write_all(&frame[..100]).await.unwrap();
        let mut got = vec![0; 100];
        client.read_exact(&mut got).await.unwrap();
        phase.send(Phase::Closing).unwrap();
        tokio::task::yield_now().await;
        upstream.write_all(&frame[100..]).await.unwrap();
        upstream.write_all(&frame).await.unwrap();
        let mut rest = vec![0; frame.len() - 100 + GOING_AWAY.len()];
        client.read_exact(&mut rest).await.unwrap();
        assert_eq!(rest[..frame.len() - 100], frame[100..]);
        assert_eq!(rest[frame.len() - 100..], GOING_AWAY);
        let mut masked = [0; 8];
        upstream.read_exact(&mut masked).await.unwrap();
        assert_eq!(masked, GOING_AWAY_MASKED);
        drop(client);
        drop(upstream);
        let _ = relay.await.unwrap();
    }

    /// Whether the relay ends by itself: after which second, and what client and upstream read last. `says`: the
    /// client's frame of each second.
    async fn ends(life: Life, says: Option<&[u8]>) -> (u64, Vec<u8>, Vec<u8>) {
        let (_phase, receiver) = watch::channel(Phase::Serving);
        let (client, mut proxy_client) = tokio::io::duplex(1 << 10);
        let (mut upstream, mut proxy_upstream) = tokio::io::duplex(1 << 20);
        let relay = tokio::spawn(async move {
            let began = Instant::now();
            let _ = both_ways(&mut proxy_client, &mut proxy_upstream, receiver, &life).await;
            began.elapsed().as_secs()
        });
        let (mut client_read, mut client_write) = tokio::io::split(client);
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        let (mut to_client, mut to_upstream) = (vec![], vec![]);
        let chatter = async {
            while let Some(frame) = says {
                seconds.tick().await;
                if client_write.write_all(frame).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let reads =
            async { tokio::join!(client_read.read_to_end(&mut to_client), upstream.read_to_end(&mut to_upstream)) };
        tokio::select! {
            _ = reads => {}
            () = chatter => {}
        }
        (relay.await.unwrap(), to_client, to_upstream)
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_silent_ends() {
        let (after, to_client, to_upstream) = ends(life(60, 3600), None).await;
        assert!((60..=63).contains(&after), "{after}");
        assert_eq!((&to_client[..], &to_upstream[..]), (&GOING_AWAY[..], &GOING_AWAY_MASKED[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_keeps_one_up_to_its_age() {
        let ping = [0x89, 0x80, 0, 0, 0, 0];
        let (after, to_client, to_upstream) = ends(life(60, 3600), Some(&ping)).await;
        assert!((3240..=3964).contains(&after), "{after}");
        assert_eq!(to_client, GOING_AWAY);
        assert!(to_upstream.ends_with(&GOING_AWAY_MASKED) && to_upstream.len() % 6 == 2, "{}", to_upstream.len());
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_frame_never_ends_is_cut() {
        // The first bytes of a frame of 1 MiB, then one byte of it each second.
        let begun = [0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0];
        let (after, to_client, to_upstream) = ends(life(60, 600), Some(&begun)).await;
        assert!((540..=668).contains(&after), "{after}");
        // Its other direction ended between two frames.
        assert_eq!((&to_client[..], to_upstream.ends_with(&GOING_AWAY_MASKED)), (&GOING_AWAY[..], false));
    }
}
