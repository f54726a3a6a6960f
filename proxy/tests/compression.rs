//! Coding of responses on every way through the proxy: whoever decodes one gets what the upstream sent, as soon as it
//! would have, and sees where it broke off; nobody else is held up by it, and nothing is held for long.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    convert::Infallible,
    io::{self, Read as _},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{read::GzDecoder, write::GzDecoder as GzWriter};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use proxy::memory::Limit;
use snapshot::proto::{self, ClusterProtocol, filter};
use support::{HOST, Proxy, http2_upstream, pause};
use tokio::{net::TcpStream, sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;

const PAUSE: Duration = Duration::from_millis(300);
/// What an upstream's answer is made of.
type Sent = Result<Frame<Bytes>, io::Error>;

/// Text that can be coded well, but not too well.
fn text(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let words: Vec<String> =
        (0..2000).map(|_| random.lowercase().to_string().repeat(random.usize(1..4)) + "e").collect();
    let mut text = Vec::with_capacity(bytes + 16);
    while text.len() < bytes {
        text.extend_from_slice(words[random.usize(..words.len())].as_bytes());
        text.extend_from_slice(random.u16(..).to_string().as_bytes());
        text.push(b' ');
    }
    text.truncate(bytes);
    text
}

/// Sends the body of an answer.
async fn send(path: &str, to: mpsc::Sender<Sent>) {
    let data = |bytes: Vec<u8>| Ok(Frame::data(Bytes::from(bytes)));
    match path {
        "/pieces" => {
            let mut random = fastrand::Rng::with_seed(1);
            let text = text(200_000);
            let mut rest = &text[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(random.usize(1..20_000).min(rest.len()));
                rest = behind;
                if to.send(data(piece.to_vec())).await.is_err() {
                    return;
                }
                if random.bool() {
                    tokio::task::yield_now().await;
                }
            }
            let trailers = [("x-sum", "1"), ("content-digest", "sha-256=:x:")];
            let trailers = trailers.map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
            let _ = to.send(Ok(Frame::trailers(trailers.into_iter().collect()))).await;
        }
        "/events" => {
            for i in 0..5 {
                if to.send(data(format!("data: {i}\n\n").into_bytes())).await.is_err() {
                    return;
                }
                sleep(PAUSE).await;
            }
        }
        "/cut" => {
            let _ = to.send(data(text(50_000))).await;
            sleep(Duration::from_millis(50)).await;
            let _ = to.send(Err(io::ErrorKind::BrokenPipe.into())).await;
        }
        "/endless" => while to.send(data(text(50_000))).await.is_ok() {},
        _ => {
            let text = text(length(path));
            for piece in text.chunks(60_000) {
                if to.send(data(piece.to_vec())).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Bytes of a body that says how long it is.
fn length(path: &str) -> usize {
    match path {
        "/small" => 100,
        "/large" => 10_000_000,
        _ => 100_000,
    }
}

fn answer(path: &str, method: &Method) -> Response<BoxBody<Bytes, io::Error>> {
    let mut response = Response::builder().header("etag", "\"a\"").header("accept-ranges", "bytes");
    response = match path {
        "/none" => response.status(204),
        "/unmodified" => response.status(304),
        "/range" => response.status(206).header("content-range", "bytes 0-99999/200000"),
        "/coded" => response.header("content-encoding", "br"),
        "/untouched" => response.header("cache-control", "no-transform"),
        _ => response,
    };
    if matches!(path, "/none" | "/unmodified") {
        return response.body(Empty::new().map_err(|never: Infallible| match never {}).boxed()).unwrap();
    }
    let media_type = match path {
        "/events" => "text/event-stream",
        "/image" => "image/png",
        _ => "text/plain; charset=utf-8",
    };
    response = response.header("content-type", media_type);
    if !matches!(path, "/pieces" | "/events" | "/cut" | "/endless") {
        response = response.header("content-length", length(path));
    } else {
        response = response.header("trailer", "x-sum, content-digest");
    }
    let (to, from) = mpsc::channel(1);
    if method != Method::HEAD {
        let path = path.to_owned();
        tokio::spawn(async move { send(&path, to).await });
    }
    response.body(BodyExt::boxed(StreamBody::new(ReceiverStream::new(from)))).unwrap()
}

/// An upstream that speaks either protocol.
fn upstream() -> SocketAddr {
    http2_upstream(|stream| async move {
        stream.set_nodelay(true).unwrap();
        let serve = |request: Request<hyper::body::Incoming>| async move {
            Ok::<_, Infallible>(answer(request.uri().path(), request.method()))
        };
        let service = hyper::service::service_fn(serve);
        let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    })
}

fn proxy(protocol: ClusterProtocol) -> Proxy {
    Proxy::to(protocol, upstream(), proto::Limits::default(), coding)
}

/// Has responses of a rule coded.
fn coding(rule: &mut proto::Rule) {
    let compression = proto::Compression { algorithms: vec![0], types: vec![], min_bytes: 1024 };
    rule.filters.push(proto::Filter { filter: Some(filter::Filter::Compression(compression)) });
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Speaks {
    Http1,
    Http2,
}

/// An answer as a client got it.
#[derive(Debug)]
struct Got {
    status: u16,
    head: HeaderMap,
    body: Vec<u8>,
    /// When how many bytes of it were there.
    came: Vec<(Instant, usize)>,
    trailers: Option<HeaderMap>,
    whole: bool,
}

impl Got {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.get(name).map(|value| value.to_str().unwrap())
    }

    fn decoded(&self) -> Vec<u8> {
        assert_eq!(self.field("content-encoding"), Some("gzip"), "{:?}", self.head);
        let mut text = vec![];
        GzDecoder::new(&self.body[..]).read_to_end(&mut text).unwrap();
        text
    }
}

async fn ask(proxy: SocketAddr, speaks: Speaks, method: Method, path: &str, accepts: &str) -> Got {
    let stream = TcpStream::connect(proxy).await.unwrap();
    let request = Request::builder().method(method).header("accept-encoding", accepts).header("te", "trailers");
    let response = match speaks {
        Speaks::Http1 => {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let request = request.uri(path).header("host", HOST).header("connection", "te");
            sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
        }
        Speaks::Http2 => {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (mut sender, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            let request = request.uri(format!("http://{HOST}{path}"));
            sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
        }
    };
    let (head, mut body) = response.into_parts();
    let (status, head) = (head.status.as_u16(), head.headers);
    let mut got = Got { status, head, body: vec![], came: vec![], trailers: None, whole: true };
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                got.body.extend_from_slice(&data);
                got.came.push((Instant::now(), got.body.len()));
            }
            Ok(Err(frame)) => got.trailers = frame.into_trailers().ok(),
            Err(_) => {
                got.whole = false;
                break;
            }
        }
    }
    got
}

/// Does something on each way through the proxy.
fn on_every_way(test: impl AsyncFn(SocketAddr, Speaks)) {
    for protocol in [ClusterProtocol::Http1, ClusterProtocol::H2c] {
        let proxy = proxy(protocol);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for speaks in [Speaks::Http1, Speaks::Http2] {
            println!("{speaks:?} to {protocol:?}");
            runtime.block_on(test(proxy.address, speaks));
        }
        drop(runtime);
        nothing_is_held(&proxy);
    }
}

#[track_caller]
fn nothing_is_held(proxy: &Proxy) {
    let begun = Instant::now();
    while proxy.metric("sluice_memory_held_bytes", &["kind=\"bodies\""]) > 0.0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "bodies are held");
        pause(10);
    }
}

#[test]
fn what_is_decoded_is_what_was_sent() {
    on_every_way(async |proxy, speaks| {
        let got = ask(proxy, speaks, Method::GET, "/", "br, gzip").await;
        assert_eq!((got.status, got.field("etag"), got.field("vary")), (200, Some("W/\"a\""), Some("accept-encoding")));
        assert!(got.field("content-length").is_none() && got.field("accept-ranges").is_none(), "{:?}", got.head);
        assert!(got.decoded() == text(100_000) && got.body.len() < 60_000 && got.trailers.is_none());
        let got = ask(proxy, speaks, Method::GET, "/pieces", "gzip").await;
        assert!(got.decoded() == text(200_000) && got.whole);
        let trailers = got.trailers.unwrap();
        assert_eq!(trailers["x-sum"], "1");
        assert!(!trailers.contains_key("content-digest"), "of what was not coded: {trailers:?}");
        // As a part of what is coded by name alone.
        let head = ask(proxy, speaks, Method::HEAD, "/", "br, gzip").await;
        assert_eq!((head.status, head.field("content-encoding"), head.body.len()), (200, Some("gzip"), 0));
        assert_eq!((head.field("etag"), head.field("vary")), (Some("W/\"a\""), Some("accept-encoding")));
        assert!(head.field("content-length").is_none() && head.field("accept-ranges").is_none(), "{:?}", head.head);
    });
}

#[test]
fn what_is_not_coded_passes_as_it_is() {
    on_every_way(async |proxy, speaks| {
        for path in ["/small", "/range", "/coded", "/untouched", "/image"] {
            let got = ask(proxy, speaks, Method::GET, path, "gzip").await;
            assert_eq!(got.field("content-length"), Some(&*length(path).to_string()), "{path}: {:?}", got.head);
            assert_eq!((got.field("etag"), got.field("vary")), (Some("\"a\""), None), "{path}");
            assert!(got.body == text(length(path)), "{path}");
        }
        for accepts in ["identity", "gzip;q=0", "gzip;q=0.5, identity", "br"] {
            let got = ask(proxy, speaks, Method::GET, "/", accepts).await;
            assert_eq!((got.field("etag"), got.field("vary")), (Some("\"a\""), Some("accept-encoding")), "{accepts}");
            assert!(got.field("content-encoding").is_none() && got.body == text(100_000), "{accepts}");
        }
        let got = ask(proxy, speaks, Method::GET, "/none", "gzip").await;
        assert_eq!((got.status, got.field("vary"), got.field("content-encoding")), (204, None, None));
        let got = ask(proxy, speaks, Method::GET, "/unmodified", "gzip").await;
        assert_eq!((got.status, got.field("vary")), (304, Some("accept-encoding")));
        assert_eq!((got.field("etag"), got.field("content-encoding")), (Some("W/\"a\""), None));
    });
}

#[test]
fn events_arrive_when_they_are_sent() {
    on_every_way(async |proxy, speaks| {
        let got = ask(proxy, speaks, Method::GET, "/events", "gzip").await;
        let (mut decoder, mut taken, mut events) = (GzWriter::new(vec![]), 0, vec![]);
        for (at, bytes) in &got.came {
            io::Write::write_all(&mut decoder, &got.body[taken..*bytes]).unwrap();
            io::Write::flush(&mut decoder).unwrap();
            taken = *bytes;
            let count = decoder.get_ref().iter().filter(|byte| **byte == b'\n').count() / 2;
            events.resize(count.max(events.len()), *at);
        }
        assert_eq!(events.len(), 5);
        let late = |pair: &[Instant]| (pair[1] - pair[0]).abs_diff(PAUSE);
        let most = events.windows(2).map(late).max().unwrap();
        println!("events are late by at most {most:?}");
        assert!(most < PAUSE / 2, "{events:?}");
    });
}

#[test]
fn one_that_breaks_off_does_not_look_whole() {
    on_every_way(async |proxy, speaks| {
        let got = ask(proxy, speaks, Method::GET, "/cut", "gzip").await;
        assert!(!got.whole);
        let mut came = vec![];
        assert!(GzDecoder::new(&got.body[..]).read_to_end(&mut came).is_err(), "there is an end of it");
        assert!(came == text(50_000), "{} of what came before", came.len());
    });
}

/// What is coded has no length, and so no end but the connection's.
#[test]
fn for_http10_nothing_is_coded_and_the_connection_stays() {
    let proxy = proxy(ClusterProtocol::Http1);
    let mut client = proxy.connect();
    for _ in 0..2 {
        let fields = "Connection: keep-alive\r\nAccept-Encoding: gzip";
        client.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n{fields}\r\n\r\n").as_bytes());
        let (_, head, body) = client.response(false).unwrap();
        assert!(!head.contains("content-encoding") && head.contains("\r\nvary: accept-encoding\r\n"), "{head}");
        assert!(body == text(100_000));
    }
}

/// A client that does not read, and one that leaves: no more is held than the compressor and a few pieces.
#[test]
fn what_is_not_read_is_not_coded() {
    for protocol in [ClusterProtocol::Http1, ClusterProtocol::H2c] {
        let proxy = proxy(protocol);
        let mut client = proxy.connect();
        client.send(format!("GET /endless HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: gzip\r\n\r\n").as_bytes());
        let mut most: f64 = 0.0;
        for _ in 0..100 {
            pause(20);
            most = most.max(proxy.metric("sluice_memory_held_bytes", &["kind=\"bodies\""]));
        }
        println!("{protocol:?}: at most {most} bytes are held");
        assert!(most > 330e3 && most < 1.1e6, "{most}");
        drop(client);
        nothing_is_held(&proxy);
    }
}

#[test]
fn without_memory_it_passes_as_it_is() {
    let limit = Limit::of_process(8 << 20);
    let proxy = Proxy::within(limit, upstream(), proto::Limits::default(), coding);
    let got = |clients: usize| -> Vec<support::Client> {
        let client = |_| {
            let mut client = proxy.connect();
            client.send(format!("GET /endless HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: gzip\r\n\r\n").as_bytes());
            let mut head = [0; 512];
            client.stream.peek(&mut head).unwrap();
            client
        };
        (0..clients).map(client).collect()
    };
    let clients = got(12);
    pause(300);
    let coded = |client: &support::Client| {
        let mut head = [0; 512];
        let bytes = client.stream.peek(&mut head).unwrap();
        String::from_utf8_lossy(&head[..bytes]).contains("content-encoding: gzip")
    };
    let count = clients.iter().filter(|client| coded(client)).count();
    println!("{count} of 12 are coded");
    assert!((1..12).contains(&count), "{count}");
}

/// While much is coded, others on the same worker have their turns.
#[test]
fn others_are_not_held_up() {
    let proxy = Arc::new(proxy(ClusterProtocol::Http1));
    let address = proxy.address;
    let large = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask(address, Speaks::Http1, Method::GET, "/large", "gzip"))
    });
    let (mut waits, mut client) = (vec![], proxy.connect());
    while !large.is_finished() {
        let begun = Instant::now();
        client.send(format!("GET /none HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
        assert_eq!(client.response(false).unwrap().0, 204);
        waits.push(begun.elapsed());
        pause(1);
    }
    let got = large.join().unwrap();
    assert!(got.decoded() == text(10_000_000));
    waits.sort();
    println!("{} others waited {:?} at the median, {:?} at most", waits.len(), waits[waits.len() / 2], waits.last());
    assert!(waits[waits.len() / 2] < Duration::from_millis(50), "{waits:?}");
    drop(client);
    nothing_is_held(&proxy);
}
