//! What comes before the final response (RFC 9110 section 15.2): hints on their way to clients that know them, and
//! bodies that wait to be asked for, from either protocol to either.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    future::poll_fn,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::ResponseFuture;
use http::{Response, StatusCode};
use support::{HOST, OK, Proxy, Upstream, http2, http2_request, pause};
use tokio::time::timeout;

const PROTOCOLS: [&str; 2] = ["HTTP/1.1", "HTTP/2"];

/// What an upstream does with a request, whichever protocol it speaks.
#[derive(Clone, Copy)]
enum Way {
    /// Hints, and the answer only some time later.
    Hints,
    /// Hints without end.
    Endless,
    /// Asks for the body, then answers.
    Asks,
    /// Answers so before the body.
    Refuses(u16),
    /// Never asks, and answers when it has the body.
    Waits,
}

/// Whether each request said that its client waits, and its body.
type Log = Arc<Mutex<Vec<(bool, String)>>>;

fn upstream(protocol: &str, way: Way) -> (Proxy, Log) {
    let log = Log::default();
    let seen = Arc::clone(&log);
    let http2 = protocol == "HTTP/2";
    let upstream =
        Upstream::start(move |stream| if http2 { by_http2(stream, way, &seen) } else { by_http1(stream, way, &seen) });
    (if http2 { Proxy::to_http2(upstream.address) } else { Proxy::start(upstream.address) }, log)
}

fn by_http1(mut stream: TcpStream, way: Way, log: &Log) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let expects = String::from_utf8_lossy(&head).contains("\r\nexpect: 100-continue\r\n");
    let body = |stream: &mut TcpStream| {
        let mut body = [0; 4];
        stream.read_exact(&mut body).unwrap();
        log.lock().unwrap().push((expects, String::from_utf8_lossy(&body).into_owned()));
    };
    match way {
        Way::Hints => {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nx: 1\r\n\r\n").unwrap();
            pause(50);
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n").unwrap();
            pause(500);
        }
        Way::Endless => {
            let _ = stream.write_all("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000).as_bytes());
            return;
        }
        Way::Asks => {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            body(&mut stream);
        }
        Way::Waits => body(&mut stream),
        Way::Refuses(status) => {
            log.lock().unwrap().push((expects, String::new()));
            write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno").unwrap();
            // Nothing of a body may come.
            stream.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
            let got = stream.read(&mut [0; 10]);
            assert!(!matches!(got, Ok(1..)), "{got:?}");
            return;
        }
    }
    stream.write_all(OK).unwrap();
}

fn by_http2(stream: TcpStream, way: Way, log: &Log) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let log = Arc::clone(log);
            tokio::spawn(async move {
                let expects = request.headers().get("expect").is_some_and(|value| value == "100-continue");
                let mut upload = request.into_body();
                let mut body = async |log: &Log| {
                    let mut body = String::new();
                    while let Some(data) = upload.data().await {
                        body += str::from_utf8(&data.unwrap()).unwrap();
                    }
                    log.lock().unwrap().push((expects, body));
                };
                let mut status = 200;
                match way {
                    Way::Hints => {
                        let hints = |link| Response::builder().status(103).header("link", link).body(()).unwrap();
                        respond.send_informational(hints("</a>")).unwrap();
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        respond.send_informational(hints("</b>")).unwrap();
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                    Way::Endless => {
                        for _ in 0..1000 {
                            let hints = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
                            let _ = respond.send_informational(hints);
                        }
                        return;
                    }
                    Way::Asks => {
                        let go = Response::builder().status(100).body(()).unwrap();
                        respond.send_informational(go).unwrap();
                        body(&log).await;
                    }
                    Way::Waits => body(&log).await,
                    Way::Refuses(refused) => {
                        log.lock().unwrap().push((expects, String::new()));
                        status = refused;
                    }
                }
                let response = Response::builder().status(status).body(()).unwrap();
                respond.send_response(response, false).unwrap().send_data("ok".into(), true).unwrap();
            });
        }
    });
}

/// The next interim response; `None`: the final one is next.
async fn interim(response: &mut ResponseFuture) -> Option<Response<()>> {
    let next = poll_fn(|cx| response.poll_informational(cx));
    timeout(Duration::from_secs(3), next).await.unwrap().map(Result::unwrap)
}

#[test]
fn hints_pass_in_order_and_at_once() {
    for protocol in PROTOCOLS {
        let (proxy, _) = upstream(protocol, Way::Hints);
        let start = Instant::now();
        let mut client = proxy.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
        for link in ["</a>", "</b>"] {
            let (status, head, _) = client.response(true).unwrap();
            assert!(status == 103 && head.contains(&format!("link: {link}\r\n")), "{protocol}: {head}");
            assert!(!head.contains("connection") && !head.contains("x: 1"), "{protocol}: {head}");
        }
        assert!(start.elapsed() < Duration::from_millis(450), "{protocol}: not at once");
        assert_eq!(client.response(true).unwrap().0, 200, "{protocol}");
        // HTTP/1.0 has none.
        let got = proxy.exchange(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n").as_bytes());
        assert!(got.starts_with("HTTP/1.1 200 "), "{protocol}: {got}");
        proxy.runtime.block_on(async {
            let mut sender = http2(&proxy).await;
            let (mut response, _) = sender.send_request(http2_request("GET", "/").body(()).unwrap(), true).unwrap();
            for link in ["</a>", "</b>"] {
                let hints = interim(&mut response).await.unwrap();
                assert_eq!((hints.status().as_u16(), &hints.headers()["link"]), (103, &link.parse().unwrap()));
            }
            assert_eq!(response.await.unwrap().status(), 200, "{protocol}");
        });
    }
}

#[test]
fn there_are_only_so_many() {
    for protocol in PROTOCOLS {
        let (proxy, _) = upstream(protocol, Way::Endless);
        let mut client = proxy.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
        for _ in 0..16 {
            assert_eq!(client.response(true).unwrap().0, 103, "{protocol}");
        }
        let (status, _, body) = client.response(false).unwrap();
        let told = String::from_utf8(body).unwrap();
        assert!(status == 502 && told.contains("not valid HTTP"), "{protocol}: {told}");
    }
}

/// Sends a body once it was asked for: the statuses that came, and how long it took until the first.
fn expecting(proxy: &Proxy, by: &str) -> (Vec<u16>, Duration) {
    let start = Instant::now();
    if by == "HTTP/1.1" {
        let mut client = proxy.connect();
        let head = format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
        client.send(head.as_bytes());
        let first = client.response(false).unwrap().0;
        let took = start.elapsed();
        if first != 100 {
            return (vec![first], took);
        }
        client.send(b"body");
        return (vec![first, client.response(false).unwrap().0], took);
    }
    proxy.runtime.block_on(async {
        let mut sender = http2(proxy).await;
        let request = http2_request("PUT", "/").header("expect", "100-continue").header("content-length", "4");
        let request = request.body(()).unwrap();
        let (mut response, mut body) = sender.send_request(request, false).unwrap();
        let first = interim(&mut response).await.map(|response| response.status());
        let took = start.elapsed();
        if first.is_some() {
            body.send_data(Bytes::from_static(b"body"), true).unwrap();
        }
        let last = response.await.unwrap().status();
        (first.into_iter().chain([last]).map(|status: StatusCode| status.as_u16()).collect(), took)
    })
}

#[test]
fn a_body_waits_until_the_upstream_asks_for_it() {
    for to in PROTOCOLS {
        for by in PROTOCOLS {
            let check = |way, statuses: &[u16], body: &str, took: std::ops::Range<u64>| {
                let (proxy, log) = upstream(to, way);
                let (got, time) = expecting(&proxy, by);
                let seen = log.lock().unwrap().clone();
                assert_eq!((&got[..], &seen[..]), (statuses, &[(true, body.to_owned())][..]), "{by} to {to}");
                let time = u64::try_from(time.as_millis()).unwrap();
                assert!(took.contains(&time), "{by} to {to}, {statuses:?}: {time} ms");
            };
            check(Way::Asks, &[100, 200], "body", 0..900);
            check(Way::Refuses(401), &[401], "", 0..900);
            check(Way::Refuses(417), &[417], "", 0..900);
            // One that knows nothing of it.
            check(Way::Waits, &[100, 200], "body", 900..2500);
        }
    }
}

#[test]
fn who_sends_the_body_unasked_does_not_wait() {
    let (proxy, log) = upstream("HTTP/1.1", Way::Waits);
    let start = Instant::now();
    let mut client = proxy.connect();
    let head = format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody");
    client.send(head.as_bytes());
    assert_eq!(client.response(false).unwrap().0, 200);
    assert!(start.elapsed() < Duration::from_millis(900));
    assert_eq!(log.lock().unwrap().len(), 1);
    // Nor does one whose body comes a moment later, by either protocol, to either.
    for protocol in PROTOCOLS {
        let (proxy, log) = upstream(protocol, Way::Waits);
        let start = Instant::now();
        let mut client = proxy.connect();
        let (head, body) = head.split_at(head.len() - 4);
        client.send(head.as_bytes());
        pause(50);
        client.send(body.as_bytes());
        assert_eq!(client.response(false).unwrap().0, 200, "to {protocol}: never asked, since it came");
        let status = proxy.runtime.block_on(async {
            let mut sender = http2(&proxy).await;
            let request = http2_request("PUT", "/").header("expect", "100-continue").header("content-length", 4);
            let (mut response, mut upload) = sender.send_request(request.body(()).unwrap(), false).unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            upload.send_data(Bytes::from_static(b"body"), true).unwrap();
            assert!(interim(&mut response).await.is_none(), "to {protocol}");
            response.await.unwrap().status()
        });
        assert_eq!(status, 200);
        assert!(start.elapsed() < Duration::from_millis(900), "to {protocol}: {:?}", start.elapsed());
        assert_eq!(log.lock().unwrap()[..], [(true, "body".to_owned()), (true, "body".to_owned())], "to {protocol}");
    }
    // Another expectation is known to nobody.
    let unknown = proxy.exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nExpect: x\r\n\r\n").as_bytes());
    assert!(unknown.starts_with("HTTP/1.1 417 "), "{unknown}");
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let request = http2_request("GET", "/").header("expect", "x").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 417);
    });
}
