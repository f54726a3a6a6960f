//! A proxy's messages cost the operator what they are worth: nothing that is small on the wire is large here, who says too
//! much is read slower, and what is taken up is no more than a process can have done.

use std::time::Instant;

use snapshot::proto::{LatencyCount, LoadWindow, PolicyCount};

use super::*;

impl Proxy {
    async fn load(&self, window: LoadWindow) {
        let message = ProxyMessage { message: Some(proxy_message::Message::Load(window)) };
        // A stream that ended is seen by what it says.
        let _ = self.out.send(message).await;
    }
}

/// A window of a bit less than 4 MiB, as a fleet with 80,000 policies would make it.
fn large(second: u64) -> LoadWindow {
    let policy = |i: u32| PolicyCount { policy: format!("RatePolicy/ns/{i:030}"), checked: 1, limited: 1 };
    let policies = (0..80_000).map(policy).collect();
    LoadWindow { start_unix_ms: second * 1000, duration_ms: 1000, policies, ..LoadWindow::default() }
}

#[tokio::test]
async fn what_is_little_on_the_wire_and_much_in_memory_ends_the_stream() {
    let mut server = Server::start().await;
    for window in [
        LoadWindow { policies: vec![PolicyCount::default(); 2_000_000], duration_ms: 1, ..LoadWindow::default() },
        LoadWindow { added_latency: vec![LatencyCount::default(); 2_000_000], duration_ms: 1, ..LoadWindow::default() },
    ] {
        let mut proxy = server.attach(hello(&Snapshot::default())).await;
        let _attached = server.event().await;
        proxy.load(window).await;
        assert!(proxy.refused().await.contains("too many parts for its size"));
        assert!(matches!(server.event().await, ProxyWhat::Detached));
    }
    let nacks = vec![Nack::default(); 2_000_000];
    let mut proxy = server.attach(Hello { nacks, ..hello(&Snapshot::default()) }).await;
    assert!(proxy.refused().await.contains("too many parts for its size"));
}

#[tokio::test]
async fn who_says_too_much_is_read_slower_and_nobody_else() {
    let mut server = Server::start().await;
    let proxy = server.attach(hello(&Snapshot::default())).await;
    let _attached = server.event().await;
    let flood = tokio::spawn(async move {
        for second in 1..=40 {
            proxy.load(large(second)).await;
        }
        proxy
    });
    // Made and sent, which may take its time on a busy machine.
    let ProxyWhat::Load(_) = server.event().await else { panic!() };
    let (start, mut taken) = (Instant::now(), 1);
    while start.elapsed() < Duration::from_secs(2) {
        let next = tokio::time::timeout(Duration::from_millis(100), server.events.recv()).await;
        taken += usize::from(next.is_ok());
    }
    // 16 MB at once, and 1 MB a second.
    assert!((1..=5).contains(&taken), "{taken} of 40 windows of 4 MB within 2 s");
    flood.abort();
    // Another one is heard at once meanwhile.
    let other = server.attach(hello(&Snapshot::default())).await;
    let _attached = server.event().await;
    other.load(LoadWindow { duration_ms: 1000, admitted: 7, ..LoadWindow::default() }).await;
    let ProxyWhat::Load(window) = server.event().await else { panic!() };
    assert_eq!(window.admitted, 7);
}

/// What waits for the loop is weighed: not in messages, of which each may have 4 MiB.
#[tokio::test]
async fn what_waits_for_the_loop_is_bounded_in_bytes() {
    let mut server = Server::start().await;
    let mut proxies = vec![];
    for _ in 0..30 {
        let proxy = server.attach(hello(&Snapshot::default())).await;
        for second in 1..=3 {
            proxy.load(large(second)).await;
        }
        proxies.push(proxy);
    }
    // Nobody takes anything up. Of each window 10,000 policies are, which weigh a mebibyte; 64 may wait.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut windows = 0;
    while let Ok(Event::Proxy(event)) = server.events.try_recv() {
        windows += usize::from(matches!(event.what, ProxyWhat::Load(_)));
        std::mem::forget(event.room);
    }
    assert!((32..=72).contains(&windows), "{windows} of 90 windows wait");
}

#[tokio::test]
async fn what_is_taken_up_is_plausible() {
    let mut server = Server::start().await;
    let mut said = hello(&Snapshot::default());
    said.admin_address = "x".repeat(1 << 20);
    said.features = vec!["f".into(); 10_000];
    said.nacks = vec![Nack { message: "m".repeat(10_000), hash: Bytes::from(vec![7; 32]), ..Nack::default() }; 200];
    said.windows = vec![LoadWindow { start_unix_ms: u64::MAX, duration_ms: u32::MAX, ..LoadWindow::default() }; 5_000];
    let proxy = server.attach(said).await;
    let ProxyWhat::Attached { hello, outbox: _outbox } = server.event().await else { panic!() };
    assert_eq!((hello.admin_address.as_str(), hello.features.len(), hello.windows.len()), ("", 0, 600));
    assert!(hello.nacks.len() == 200 && hello.nacks.iter().all(|nack| nack.message.len() == 512));
    proxy.load(LoadWindow { admitted: 5, ..LoadWindow::default() }).await;
    proxy.load(LoadWindow { duration_ms: 1000, admitted: u64::MAX, cpu_us: u64::MAX, ..LoadWindow::default() }).await;
    let ProxyWhat::Load(window) = server.event().await else { panic!() };
    assert_eq!((window.admitted, window.cpu_us), (1_000_000, 1_000_000), "the one of no time is none");
}
