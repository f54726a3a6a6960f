//! Rate limits that change while requests come: by a push to a running proxy, on connections that stay.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use snapshot::proto::{self, ClientIp, KeyPart, key_part::Part};
use support::{Client, HOST, OK, Proxy, Upstream, field, pause};

/// A rate, its period in ms, and a burst.
type Limit = (u64, u64, u64);

const HOURLY: Limit = (1, 3_600_000, 1);
const FAST: Limit = (100, 1000, 100);

fn push(proxy: &Proxy, key: Option<Part>, (rate, per_ms, burst): Limit) -> Instant {
    let token_bucket = Some(proto::TokenBucket { rate, per_ms, burst });
    let key = key.into_iter().map(|part| KeyPart { part: Some(part) }).collect();
    // From before the push: what a limit brings since then is the most that it can have brought.
    let before = Instant::now();
    proxy.limit(proto::Limit { name: "a".into(), key, token_bucket, ..proto::Limit::default() });
    before
}

/// Status, `Retry-After`, and the fields of the limit.
fn ask(client: &mut Client, name: &str) -> (u16, Option<u64>, String, String) {
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Key: {name}\r\n\r\n").as_bytes());
    let (status, head, _) = client.response(false).unwrap();
    let of = |name: &str| field(&head, name).unwrap_or_default().to_owned();
    (status, field(&head, "retry-after").map(|s| s.parse().unwrap()), of("ratelimit"), of("ratelimit-policy"))
}

fn passes(client: &mut Client, name: &str, requests: usize) -> usize {
    (0..requests).filter(|_| ask(client, name).0 == 200).count()
}

fn used_up(client: &mut Client, wait: std::ops::RangeInclusive<u64>, policy: &str) {
    let (status, retry, told, of) = ask(client, "k");
    assert!(status == 429 && retry.is_some_and(|s| wait.contains(&s)), "{status} {retry:?} {told}");
    assert_eq!((told, of.as_str()), (format!("\"a\";r=0;t={}", retry.unwrap()), policy));
}

fn header() -> Part {
    Part::Header("x-key".into())
}

#[test]
fn a_limit_that_was_raised_lets_used_up_clients_pass_by_the_new_rate() {
    for key in [Some(header()), None] {
        let proxy = Proxy::start(Upstream::answering(OK).address);
        push(&proxy, key.clone(), HOURLY);
        let mut client = proxy.connect();
        assert_eq!(ask(&mut client, "k").0, 200);
        used_up(&mut client, 3590..=3600, "\"a\";q=1;w=3600");
        let raised = push(&proxy, key.clone(), FAST);
        // A token each 10 ms.
        let first = loop {
            let (status, retry, told, policy) = ask(&mut client, "k");
            assert_eq!(policy, "\"a\";q=100;w=1");
            if status == 200 {
                break raised.elapsed();
            }
            assert_eq!((status, retry, told.as_str()), (429, Some(1), "\"a\";r=0;t=1"), "{:?}", raised.elapsed());
            assert!(raised.elapsed() < Duration::from_secs(2), "still waits: {told}");
            pause(2);
        };
        pause(300);
        let passed = 1 + passes(&mut client, "k", 200);
        let brought = 1.0 + raised.elapsed().as_secs_f64() * 100.0;
        assert!((30.0..=brought).contains(&(passed as f64)), "{passed} of {brought}, the first after {first:?}");
        if key.is_some() {
            assert!(passes(&mut client, "fresh", 100) == 100);
        }
        // Cut again, there is the one token that fits, and the next in an hour.
        pause(50);
        push(&proxy, key.clone(), HOURLY);
        assert_eq!(passes(&mut client, "k", 10), 1);
        used_up(&mut client, 3590..=3600, "\"a\";q=1;w=3600");
        // Back and forth, nothing comes but what the rate brings.
        for _ in 0..3 {
            push(&proxy, key.clone(), FAST);
            push(&proxy, key.clone(), HOURLY);
        }
        let raised = push(&proxy, key, FAST);
        let passed = passes(&mut client, "k", 50) as f64;
        let brought = 1.0 + raised.elapsed().as_secs_f64() * 100.0;
        assert!(passed <= brought, "{passed} of {brought}");
    }
}

#[test]
fn burst_period_and_key_change_by_themselves() {
    let proxy = Proxy::start(Upstream::answering(OK).address);
    let mut client = proxy.connect();
    push(&proxy, Some(header()), (1, 3_600_000, 5));
    assert_eq!(passes(&mut client, "k", 10), 5);
    // A larger burst is more to save up, for those that begin more to begin with.
    push(&proxy, Some(header()), (1, 3_600_000, 20));
    used_up(&mut client, 3590..=3600, "\"a\";q=1;w=3600");
    assert_eq!(passes(&mut client, "fresh", 30), 20);
    // A smaller one holds less of what was saved.
    assert_eq!(passes(&mut client, "saves", 5), 5);
    push(&proxy, Some(header()), (1, 3_600_000, 10));
    assert_eq!(passes(&mut client, "saves", 30), 10);
    push(&proxy, Some(header()), (1, 60_000, 10));
    used_up(&mut client, 59..=60, "\"a\";q=1;w=60");
    // What it counts by is other buckets, and the former ones begin anew when it counts by that again.
    let by_address = Part::ClientIp(ClientIp { ipv4_prefix: 32, ipv6_prefix: 64 });
    push(&proxy, Some(by_address), (1, 60_000, 10));
    assert_eq!(passes(&mut client, "k", 5) + passes(&mut client, "other", 10), 10);
    push(&proxy, Some(header()), (1, 60_000, 10));
    assert_eq!(passes(&mut client, "k", 20), 10);
}
