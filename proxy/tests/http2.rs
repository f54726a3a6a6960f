//! Requests by HTTP/2: what the upstream gets of them, and streams that take their time.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::{Read as _, Write},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use snapshot::proto::Limits;
use support::{HOST, OK, Proxy, Upstream, answer, http2, http2_request, pause, request};
use tokio::time::timeout;

/// Beyond what a client's windows hold before it reads.
const LARGE: usize = 300 << 10;

#[test]
fn cookies_and_lengths_reach_the_upstream_as_http1_has_them() {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let heads = Arc::clone(&seen);
    let upstream = Upstream::start(move |mut stream| {
        let mut read = vec![];
        while let Some(asked) = request(&mut stream, &mut read, &Mutex::default()) {
            heads.lock().unwrap().push(asked.head + str::from_utf8(&asked.body).unwrap());
            stream.write_all(OK).unwrap();
        }
    });
    let proxy = Proxy::start(upstream.address);
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let asked = http2_request("POST", "/").header("cookie", "a=1").header("x", "1").header("cookie", "b=2");
        let (response, mut body) = sender.send_request(asked.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(b"hello"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
    let seen = seen.lock().unwrap()[0].to_lowercase();
    assert!(seen.contains("\r\ncookie: a=1; b=2\r\n") && seen.matches("cookie").count() == 1, "{seen}");
    assert!(seen.contains(&format!("\r\nhost: {HOST}\r\n")) && seen.contains("chunked\r\n"), "{seen}");
    assert!(seen.ends_with("\r\n\r\nhello"), "{seen}");
}

#[test]
fn what_has_no_body_ends_with_its_head() {
    let upstream = Upstream::start(|mut stream| {
        let mut read = vec![];
        while let Some(asked) = request(&mut stream, &mut read, &Mutex::default()) {
            let answer: &[u8] = match asked.head.split(' ').nth(1).unwrap() {
                "/204" => b"HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
            };
            stream.write_all(answer).unwrap();
        }
    });
    let proxy = Proxy::start(upstream.address);
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        for (method, path, status, length) in
            [("HEAD", "/", 200, Some("7")), ("GET", "/204", 204, None), ("GET", "/304", 304, Some("7"))]
        {
            let (response, _) = sender.send_request(http2_request(method, path).body(()).unwrap(), true).unwrap();
            let (head, body) = response.await.unwrap().into_parts();
            let told = head.headers.get("content-length").map(|length| length.to_str().unwrap());
            assert_eq!((head.status.as_u16(), told, body.is_end_stream()), (status, length, true), "{method} {path}");
        }
    });
}

#[test]
fn an_upload_goes_on_while_the_client_reads_nothing() {
    let (told, received) = mpsc::channel();
    let upstream = Upstream::start(move |mut stream| {
        // An echo that answers at once, and more than the client's windows hold.
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b'x'; LARGE]).unwrap();
        let (mut read, mut buffer) = (vec![], vec![0; 64 << 10]);
        while !read.ends_with(b"0\r\n\r\n") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the upload broke off");
            read.extend(&buffer[..count]);
        }
        told.send(read.iter().filter(|b| **b == b'#').count()).unwrap();
        pause(1000);
    });
    let proxy = Proxy::start(upstream.address);
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let (response, mut body) = sender.send_request(http2_request("POST", "/").body(()).unwrap(), false).unwrap();
        let mut response = timeout(Duration::from_secs(5), response).await.unwrap().unwrap().into_body();
        // Until the windows are full.
        tokio::time::sleep(Duration::from_millis(300)).await;
        body.send_data(vec![b'#'; 200 << 10].into(), true).unwrap();
        let uploaded = tokio::task::spawn_blocking(move || received.recv_timeout(Duration::from_secs(5)));
        assert_eq!(uploaded.await.unwrap(), Ok(200 << 10), "before anything of the response was read");
        let mut got = 0;
        while let Some(data) = response.data().await {
            let data = data.unwrap();
            got += data.len();
            response.flow_control().release_capacity(data.len()).unwrap();
        }
        assert_eq!(got, LARGE);
    });
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let upstream = Upstream::start(|mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default()).unwrap();
        // What was waited for before has a later end.
        pause(1500);
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes()).unwrap();
        stream.write_all(&vec![b'x'; LARGE]).unwrap();
        pause(8000);
    });
    let limits = Limits { client_stall_timeout_ms: 1000, ..Limits::default() };
    let proxy = Proxy::with(upstream.address, limits, |_| {});
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let start = Instant::now();
        let (response, _) = sender.send_request(http2_request("GET", "/").body(()).unwrap(), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let reset = timeout(Duration::from_secs(6), async {
            loop {
                if let Err(e) = body.data().await.unwrap() {
                    return e.reason();
                }
            }
        });
        assert_eq!(reset.await.unwrap(), Some(h2::Reason::CANCEL));
        assert!(start.elapsed() > Duration::from_millis(2400), "{:?}", start.elapsed());
    });
    assert_eq!(proxy.metric("sluice_failed_requests_total", &["client_stalled", "downstream"]), 1.0);
    assert_eq!(proxy.metric("sluice_requests_in_flight", &[]), 0.0);
}

#[test]
fn a_stream_that_the_client_resets_ends() {
    let upstream = Upstream::slow();
    let proxy = Proxy::start(upstream.address);
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        for path in ["/silent", "/stalls"] {
            let (response, mut stream) =
                sender.send_request(http2_request("GET", path).body(()).unwrap(), true).unwrap();
            let answers = path == "/stalls";
            let wait = Duration::from_millis(if answers { 5000 } else { 300 });
            assert_eq!(timeout(wait, response).await.is_ok(), answers);
            stream.send_reset(h2::Reason::CANCEL);
        }
        let ended = || proxy.metric("sluice_failed_requests_total", &["client_went", "downstream"]) == 2.0;
        let end = timeout(Duration::from_secs(5), async {
            while !ended() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        end.await.unwrap();
    });
    assert_eq!(proxy.metric("sluice_requests_in_flight", &[]), 0.0);
}

/// The busiest honest client there is: a cookie that fills HPACK's table, by its index with each of thousands of requests.
#[test]
fn a_large_cookie_by_index_is_never_too_much() {
    const REQUESTS: usize = 5000;
    let proxy = Proxy::start(Upstream::answering(OK).address);
    // As large as the client's encoder puts into the table.
    let cookie = format!("session={}", "x".repeat(3000));
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        for _ in 0..REQUESTS / 50 {
            let mut responses = vec![];
            for _ in 0..50 {
                sender = sender.ready().await.unwrap();
                let asked = http2_request("GET", "/").header("cookie", &cookie).body(()).unwrap();
                responses.push(sender.send_request(asked, true).unwrap().0);
            }
            for response in responses {
                assert_eq!(answer(response.await.unwrap()).await, (200, "ok".into()));
            }
        }
    });
    assert_eq!(proxy.metric("sluice_http2_floods_total", &[]), 0.0);
    assert_eq!(proxy.metric("sluice_requests_total", &["2xx"]), REQUESTS as f64);
}

/// A request whose trailers are too large is refused, and never one with fewer trailers: beyond a size `h2` cuts them off.
#[test]
fn trailers_over_the_limit_are_an_error_and_no_shorter_trailers() {
    let wholes = Arc::<Mutex<usize>>::default();
    let counted = Arc::clone(&wholes);
    let upstream = Upstream::start(move |mut stream| {
        let mut read = vec![];
        while let Some(asked) = request(&mut stream, &mut read, &Mutex::default()) {
            assert_eq!(asked.body, b"hello");
            *counted.lock().unwrap() += 1;
            stream.write_all(OK).unwrap();
        }
    });
    let proxy = Proxy::start(upstream.address);
    for (bytes, whole) in [(100, true), (30_000, false), (80_000, false), (200_000, false)] {
        let status = proxy.runtime.block_on(async {
            let mut sender = http2(&proxy).await;
            let (response, mut body) =
                sender.send_request(http2_request("POST", "/").body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from_static(b"hello"), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-large", vec![b'v'; bytes].try_into().unwrap());
            body.send_trailers(trailers).unwrap();
            response.await.map(|response| response.status().as_u16())
        });
        let refused = matches!(status, Ok(431) | Err(_));
        assert!(if whole { matches!(status, Ok(200)) } else { refused }, "{bytes}: {status:?}");
        assert_eq!(*wholes.lock().unwrap(), 1, "{bytes}");
    }
}

/// `h2` takes both; by HTTP/1.1 they are refused.
#[test]
fn what_would_be_no_field_by_http1_is_refused() {
    let proxy = Proxy::start(Upstream::answering(OK).address);
    let quoted = http::HeaderName::from_lowercase(b"\"x\"").unwrap();
    for (name, value, times) in [(quoted, "v", 1), (http::header::CONTENT_LENGTH, "0", 2)] {
        let status = proxy.runtime.block_on(async {
            let mut request = http2_request("GET", "/").body(()).unwrap();
            for _ in 0..times {
                request.headers_mut().append(name.clone(), value.parse().unwrap());
            }
            let (response, _) = http2(&proxy).await.send_request(request, true).unwrap();
            response.await.unwrap().status()
        });
        assert_eq!(status, 400, "{name}");
    }
}

/// A reset takes back what waits to be sent: a client is told how a response began that broke off.
#[test]
fn what_came_of_a_response_before_it_broke_off_is_sent() {
    let upstream = Upstream::start(|mut stream| {
        request(&mut stream, &mut vec![], &Mutex::default()).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello").unwrap();
    });
    let proxy = Proxy::start(upstream.address);
    for _ in 0..20 {
        proxy.runtime.block_on(async {
            let mut sender = http2(&proxy).await;
            let (response, _) = sender.send_request(http2_request("GET", "/").body(()).unwrap(), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "hello");
            assert_eq!(body.data().await.unwrap().unwrap_err().reason(), Some(h2::Reason::INTERNAL_ERROR));
        });
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// How a connection ended: GOAWAY's last code, and how many requests were answered or reset before.
fn ended(stream: &mut std::net::TcpStream) -> (Option<u32>, usize) {
    let mut inbound = vec![];
    // It may be reset while bytes are on their way to it.
    let _ = stream.read_to_end(&mut inbound);
    let (mut rest, mut code, mut answered) = (&inbound[..], None, 0);
    while let [a, b, c, kind, flags, _, _, _, _, ..] = *rest {
        let end = (9 + u32::from_be_bytes([0, a, b, c]) as usize).min(rest.len());
        match kind {
            0 | 1 if flags & 1 == 1 => answered += 1,
            3 => answered += 1,
            7 => code = rest.get(13..17).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes),
            _ => {}
        }
        rest = &rest[end..];
    }
    (code, answered)
}

/// Bytes that stand for thousands of times as many are what none but an attacker sends: heads, and trailers too.
#[test]
fn references_upon_references_end_the_connection() {
    let proxy = Proxy::start(Upstream::answering(OK).address);
    let get = |method: u8| [&[method, 0x86, 0x84, 0x41, HOST.len() as u8], HOST.as_bytes()].concat();
    // A field of 4000 bytes, put into the table by the first request, is entry 62 from then on.
    let first = [get(0x82), vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e], vec![b'v'; 4000]].concat();
    let again = |method: u8| [&[method, 0x86, 0x84, 0x01, HOST.len() as u8][..], HOST.as_bytes(), &[0xbe; 14]].concat();
    let connect = || {
        let mut stream = std::net::TcpStream::connect(proxy.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let preface =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), frame(1, 5, 1, &first)].concat();
        stream.write_all(&preface).unwrap();
        stream
    };
    let mut stream = connect();
    for n in 1..60 {
        let _ = stream.write_all(&frame(1, 5, 2 * n + 1, &again(0x82)));
        pause(5);
    }
    let (code, answered) = ended(&mut stream);
    println!("heads: {answered} requests, then {code:?}");
    assert_eq!(code, Some(11), "ENHANCE_YOUR_CALM");
    assert!((3..20).contains(&answered), "{answered}");
    assert_eq!(proxy.metric("sluice_http2_floods_total", &["heads"]), 1.0);
    // Trailers of 56 KB: more than by HTTP/1.1, so each of these requests ends without a 200.
    let mut stream = connect();
    for n in 1..60 {
        let stream_id = 2 * n + 1;
        let post = [&[0x83, 0x86, 0x84, 0x01, HOST.len() as u8][..], HOST.as_bytes()].concat();
        let _ = stream.write_all(&[frame(1, 4, stream_id, &post), frame(1, 5, stream_id, &[0xbe; 14])].concat());
    }
    let end = Instant::now() + Duration::from_secs(5);
    while proxy.metric("sluice_failed_requests_total", &["head_too_large"]) < 59.0 {
        assert!(Instant::now() < end, "{}", proxy.metric("sluice_failed_requests_total", &[]));
        pause(20);
    }
}
