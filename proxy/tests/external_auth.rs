//! External authorization with real sockets: what a service is asked, what its answer does, and what comes of one that
//! is slow, gone or talks nonsense; and of clients that leave, or come in numbers, while it is waited for.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use proxy::memory::Limit;
use snapshot::{
    Key,
    proto::{self, ClusterProtocol, filter, resource},
};
use support::{
    Client, HOST, OK, Proxy, Request, Upstream, answer, content, entry, field, http2, http2_request, pause, request,
};
use tokio::time::timeout;

/// What somebody was asked, in small letters.
type Log = Arc<Mutex<Vec<String>>>;

/// A service that does what the end of the path says.
struct Service {
    upstream: Upstream,
    asked: Log,
    /// Questions that are open, and the most that ever were.
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Service {
    fn start() -> Self {
        let (asked, open, most) = (Log::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (log, counted, peak) = (Arc::clone(&asked), Arc::clone(&open), Arc::clone(&most));
        let upstream = Upstream::start(move |mut stream| {
            let mut read = vec![];
            while let Some(Request { head, body }) = request(&mut stream, &mut read, &Mutex::default()) {
                peak.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                assert!(body.is_empty());
                log.lock().unwrap().push(head.to_lowercase());
                let goes_on = answered(&mut stream, head.split(' ').nth(1).unwrap());
                counted.fetch_sub(1, Ordering::SeqCst);
                if !goes_on {
                    return;
                }
            }
        });
        Self { upstream, asked, open, most }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Answers one question; whether the connection goes on.
fn answered(stream: &mut TcpStream, path: &str) -> bool {
    let path = path.split('?').next().unwrap();
    let words: &[u8] = match path.rsplit('/').next().unwrap() {
        "allow" => b"HTTP/1.1 200 OK\r\nX-User: alice\r\nX-User: al\r\nX-Other: 1\r\nContent-Length: 2\r\n\r\nok",
        "deny" => {
            b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nX-User: nobody\r\nX-Other: 1\r\nContent-Length: 3\r\n\r\nwhy"
        }
        "head" => b"HTTP/1.1 401 No\r\nContent-Length: 3\r\n\r\n",
        "silent" => b"HTTP/1.1 401 No\r\n\r\n",
        "login" => b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
        "error" => b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        "away" => b"HTTP/1.1 503 Oh\r\nContent-Length: 0\r\n\r\n",
        "while" => {
            pause(50);
            OK
        }
        "slow" => {
            // As long as somebody waits.
            let left = stream.read(&mut [0]);
            assert!(matches!(left, Ok(0) | Err(_)), "{left:?}");
            return false;
        }
        "gone" => return false,
        "garbage" => {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\r\n");
            return false;
        }
        "huge" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Large: ");
            while stream.write_all(&[b'a'; 8192]).is_ok() {}
            return false;
        }
        "endless" => {
            let _ = stream.write_all(b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n");
            while stream.write_all(b"4\r\nmore\r\n").is_ok() {}
            return false;
        }
        "stalls" => {
            let _ = stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nwhy");
            let _ = stream.read(&mut [0]);
            return false;
        }
        "cut" => {
            let _ = stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nwhy");
            return false;
        }
        _ => OK,
    };
    stream.write_all(words).is_ok()
}

/// A backend that keeps what it is asked, with the body.
fn backend() -> (Upstream, Log) {
    let asked = Log::default();
    let log = Arc::clone(&asked);
    let upstream = Upstream::start(move |mut stream| {
        let mut read = vec![];
        while let Some(Request { head, body }) = request(&mut stream, &mut read, &Mutex::default()) {
            log.lock().unwrap().push(head.to_lowercase() + str::from_utf8(&body).unwrap());
            stream.write_all(OK).unwrap();
        }
    });
    (upstream, asked)
}

fn auth() -> proto::ExternalAuth {
    proto::ExternalAuth {
        cluster: "Cluster/ns/auth/80".into(),
        path: "/check".into(),
        request_headers: vec!["cookie".into()],
        response_headers: vec!["x-user".into(), "x-role".into()],
        timeout_ms: 500,
        fail_open: false,
    }
}

/// A proxy whose route asks that service first; `change` has its way with the rule.
fn guarded_by(
    (protocol, services): (ClusterProtocol, &[SocketAddr]),
    backend: SocketAddr,
    auth: &proto::ExternalAuth,
    change: impl Fn(&mut proto::Rule),
) -> Proxy {
    Proxy::serving(Limit::find(None), backend, |port| {
        let mut content = content(port, backend, proto::Limits::default(), |rule| {
            rule.filters = vec![proto::Filter { filter: Some(filter::Filter::ExternalAuth(auth.clone())) }];
            change(rule);
        });
        let endpoint = |service: &SocketAddr| proto::Endpoint { address: service.to_string(), ..Default::default() };
        let endpoints = services.iter().map(endpoint).collect();
        let cluster = proto::Cluster { protocol: protocol.into(), endpoints };
        content.insert(Key::cluster("ns", "auth", "80"), entry(resource::Kind::Cluster(cluster)));
        content
    })
}

fn guarded(service: &Service, backend: SocketAddr, auth: &proto::ExternalAuth) -> Proxy {
    guarded_by((ClusterProtocol::Http1, &[service.upstream.address]), backend, auth, |_| {})
}

fn get(proxy: &Proxy, path: &str) -> (u16, String, Vec<u8>) {
    let mut client = proxy.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nX-User: root\r\nX-Role: admin\r\n\r\n").as_bytes());
    client.response(false).unwrap()
}

/// Waits for something that happens soon.
fn until(what: &str, happened: impl Fn() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < Duration::from_secs(5), "{what} does not happen");
        pause(10);
    }
}

#[test]
fn what_the_service_says_of_a_request_goes_upstream_in_place_of_what_its_client_says() {
    let (service, (backend, got)) = (Service::start(), backend());
    let proxy = guarded(&service, backend.address, &auth());
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send(
            format!(
                "PUT /a/allow?b=c HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer t\r\nCookie: d=e\r\nX-User: root\r\n\
                 X-Role: admin\r\nX_User: root\r\nX-Forwarded-For: 192.0.2.7\r\nContent-Length: 5\r\n\r\nhello"
            )
            .as_bytes(),
        );
        assert_eq!(client.response(false).unwrap().0, 200);
    }
    let asked = service.asked();
    assert_eq!((asked.len(), service.upstream.connections()), (3, 1), "its connection is kept");
    assert!(asked[0].starts_with("put /check/a/allow?b=c http/1.1\r\n"), "{}", asked[0]);
    for line in ["authorization: bearer t", "cookie: d=e", &format!("host: {HOST}"), "x-forwarded-for: 127.0.0.1"] {
        assert!(asked[0].contains(&format!("\r\n{line}\r\n")), "no {line}: {}", asked[0]);
    }
    assert!(!asked[0].contains("x-user") && !asked[0].contains("x-role"), "{}", asked[0]);
    let got = got.lock().unwrap();
    for head in got.iter() {
        assert!(head.starts_with("put /a/allow?b=c http/1.1\r\n") && head.ends_with("hello"), "{head}");
        assert!(head.contains("\r\nx-user: alice\r\nx-user: al\r\n"), "{head}");
        assert!(!head.contains("root") && !head.contains("x-role") && !head.contains("x-other"), "{head}");
    }
    assert_eq!(got.len(), 3);
    assert_eq!(proxy.metric("sluice_external_auth_decisions_total", &["allowed"]), 3.0);
}

#[test]
fn a_refusal_is_the_clients_answer_whatever_it_speaks() {
    let (service, (backend, got)) = (Service::start(), backend());
    let proxy = guarded(&service, backend.address, &auth());
    let (status, head, body) = get(&proxy, "/deny");
    assert_eq!((status, &body[..]), (401, &b"why"[..]));
    assert!(head.contains("\r\nwww-authenticate: basic\r\n") && head.contains("\r\nx-user: nobody\r\n"), "{head}");
    assert!(!head.contains("x-other"), "{head}");
    let (status, head, _) = get(&proxy, "/login");
    assert!(status == 302 && head.contains("\r\nlocation: /login\r\n"), "{head}");
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let (response, _) = sender.send_request(http2_request("GET", "/deny").body(()).unwrap(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers().get("www-authenticate").unwrap(), "Basic");
        assert_eq!(answer(response).await, (401, "why".into()));
        // Before its body was asked for.
        let asked = http2_request("POST", "/deny").body(()).unwrap();
        let (response, _body) = sender.send_request(asked, false).unwrap();
        assert_eq!(answer(response.await.unwrap()).await, (401, "why".into()));
    });
    assert!(got.lock().unwrap().is_empty(), "the backend gets nothing of them");
    assert_eq!(proxy.metric("sluice_external_auth_decisions_total", &["denied"]), 4.0);
}

#[test]
fn a_service_that_fails_closes_the_route_or_opens_it_if_that_is_said() {
    // What a client may bring about by what it sends never opens.
    const CASES: [(&str, &str, bool); 7] = [
        ("/slow", "external_auth_timeout", true),
        ("/away", "external_auth_failed", true),
        ("/not-listening", "external_auth_failed", true),
        ("/error", "external_auth_failed", false),
        ("/gone", "external_auth_failed", false),
        ("/garbage", "external_auth_failed", false),
        ("/huge", "external_auth_failed", false),
    ];
    for fail_open in [false, true] {
        let (service, (backend, got)) = (Service::start(), backend());
        let auth = proto::ExternalAuth { fail_open, ..auth() };
        let proxy = guarded(&service, backend.address, &auth);
        let nobody = (ClusterProtocol::Http1, &[([127, 0, 0, 1], 1).into()][..]);
        let alone = guarded_by(nobody, backend.address, &auth, |_| {});
        for (path, reason, opens) in CASES {
            let opens = opens && fail_open;
            let proxy = if path == "/not-listening" { &alone } else { &proxy };
            let began = Instant::now();
            let (status, _, body) = get(proxy, path);
            let (took, body) = (began.elapsed(), String::from_utf8(body).unwrap());
            assert_eq!(status, if opens { 200 } else { 503 }, "{path}: {body}");
            assert!(took < Duration::from_secs(2), "{path}: {took:?}");
            if !opens {
                assert!(body.contains("could not be checked"), "{path}: {body}");
                until(reason, || proxy.metric("sluice_failed_requests_total", &[reason, "external"]) >= 1.0);
            }
        }
        let got = got.lock().unwrap();
        assert_eq!(got.len(), if fail_open { 3 } else { 0 });
        assert!(got.iter().all(|head| !head.contains("x-user") && !head.contains("x-role")), "{got:?}");
    }
}

/// Whatever becomes of its body: the head has said so.
#[test]
fn a_refusal_without_its_whole_body_is_one_all_the_same() {
    for fail_open in [false, true] {
        let (service, (backend, got)) = (Service::start(), backend());
        let proxy = guarded(&service, backend.address, &proto::ExternalAuth { fail_open, ..auth() });
        for path in ["/endless", "/stalls", "/cut"] {
            let (status, _, body) = get(&proxy, path);
            assert_eq!(status, 403, "{path}: {}", String::from_utf8_lossy(&body));
        }
        assert!(got.lock().unwrap().is_empty());
        assert_eq!(proxy.metric("sluice_external_auth_decisions_total", &["denied"]), 3.0);
    }
}

/// Service and backend might each read another one.
#[test]
fn of_several_credentials_none_is_checked() {
    let (service, (backend, got)) = (Service::start(), backend());
    let proxy = guarded(&service, backend.address, &auth());
    let mut client = proxy.connect();
    let two = "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n";
    client.send(format!("GET /allow HTTP/1.1\r\nHost: {HOST}\r\n{two}\r\n").as_bytes());
    assert_eq!(client.response(false).unwrap().0, 400);
    assert!(got.lock().unwrap().is_empty() && service.asked().is_empty());
}

#[test]
fn one_that_the_snapshot_lacks_never_opens_a_route() {
    let ((backend, got), auth) = (backend(), proto::ExternalAuth { fail_open: true, ..auth() });
    let proxy = Proxy::with(backend.address, proto::Limits::default(), |rule| {
        rule.filters = vec![proto::Filter { filter: Some(filter::Filter::ExternalAuth(auth.clone())) }];
    });
    assert_eq!(get(&proxy, "/").0, 500);
    assert!(got.lock().unwrap().is_empty());
}

#[test]
fn waiting_counts_for_the_time_that_a_request_has() {
    let (service, (backend, _)) = (Service::start(), backend());
    let auth = proto::ExternalAuth { timeout_ms: 5000, ..auth() };
    let service_at = (ClusterProtocol::Http1, &[service.upstream.address][..]);
    let proxy = guarded_by(service_at, backend.address, &auth, |rule| rule.request_timeout_ms = 300);
    let began = Instant::now();
    assert_eq!(get(&proxy, "/slow").0, 504);
    let took = began.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(2)).contains(&took), "{took:?}");
    until("it is counted", || proxy.metric("sluice_failed_requests_total", &["filter_timeout", "external"]) == 1.0);
    assert_eq!(proxy.metric("sluice_filter_waits_total", &["external_auth", "abandoned"]), 1.0);
    until("the question is over", || service.open.load(Ordering::SeqCst) == 0);
    assert_eq!(get(&proxy, "/while").0, 200);
}

#[test]
fn a_client_that_leaves_ends_the_question() {
    let (service, (backend, got)) = (Service::start(), backend());
    let auth = proto::ExternalAuth { timeout_ms: 20_000, ..auth() };
    let proxy = guarded(&service, backend.address, &auth);
    let asked = |number: usize| until("it is asked", || service.open.load(Ordering::SeqCst) == number);
    // By HTTP/1.1, without a body, and with one that nobody reads.
    for head in ["GET /slow HTTP/1.1\r\n", "POST /slow HTTP/1.1\r\nContent-Length: 9\r\n"] {
        let mut client = proxy.connect();
        client.send(format!("{head}Host: {HOST}\r\n\r\n").as_bytes());
        asked(1);
        socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        asked(0);
    }
    // By HTTP/2, one stream of several.
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let mut ask = |path| sender.send_request(http2_request("GET", path).body(()).unwrap(), true).unwrap();
        let (leaves, mut stream) = ask("/slow");
        let (stays, _) = ask("/while");
        assert_eq!(stays.await.unwrap().status(), 200);
        tokio::task::block_in_place(|| asked(1));
        stream.send_reset(h2::Reason::CANCEL);
        assert!(leaves.await.is_err());
        tokio::task::block_in_place(|| asked(0));
    });
    assert_eq!(got.lock().unwrap().len(), 1, "none that left goes on");
    until("it is counted", || proxy.metric("sluice_filter_waits_total", &["abandoned"]) == 3.0);
    until("who left", || proxy.metric("sluice_failed_requests_total", &["client_went", "downstream"]) == 3.0);
}

#[test]
fn so_many_are_asked_at_once_and_the_others_wait() {
    const CLIENTS: usize = 4;
    const STREAMS: usize = 100;
    let (service, (backend, got)) = (Service::start(), backend());
    let auth = proto::ExternalAuth { timeout_ms: 20_000, ..auth() };
    let proxy = guarded(&service, backend.address, &auth);
    proxy.runtime.block_on(async {
        let mut all = vec![];
        let mut senders = vec![];
        for _ in 0..CLIENTS {
            let mut sender = http2(&proxy).await;
            for _ in 0..STREAMS {
                sender = sender.ready().await.unwrap();
                let asked = http2_request("GET", "/while").body(()).unwrap();
                all.push(sender.send_request(asked, true).unwrap().0);
            }
            senders.push(sender);
        }
        for response in all {
            let response = timeout(Duration::from_secs(20), response).await.unwrap().unwrap();
            assert_eq!(response.status(), 200);
        }
    });
    let most = service.most.load(Ordering::SeqCst);
    assert!((50..=64).contains(&most), "{most} of one client at once");
    assert_eq!(got.lock().unwrap().len(), CLIENTS * STREAMS);
}

/// Whatever one client asks, another one's requests are asked about at once.
#[test]
fn a_client_leaves_room_for_others() {
    const STREAMS: usize = 100;
    let (service, (backend, _)) = (Service::start(), backend());
    let auth = proto::ExternalAuth { timeout_ms: 3000, ..auth() };
    let proxy = guarded(&service, backend.address, &auth);
    let greedy = proxy.runtime.block_on(async {
        let mut greedy = vec![];
        for _ in 0..7 {
            let mut sender = http2(&proxy).await;
            for _ in 0..STREAMS {
                sender = sender.ready().await.unwrap();
                greedy.push(sender.send_request(http2_request("GET", "/slow").body(()).unwrap(), true).unwrap());
            }
        }
        greedy
    });
    let busy = || proxy.metric("sluice_failed_requests_total", &["external_auth_busy"]);
    until("those beyond its share are refused", || busy() > 0.0);
    until("it has its share of them at once", || service.open.load(Ordering::SeqCst) == 64);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    socket.connect(&proxy.address.into()).unwrap();
    let mut other = Client::on(socket.into());
    let began = Instant::now();
    other.send(format!("GET /allow HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
    assert_eq!(other.response(false).unwrap().0, 200);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    drop(greedy);
}

/// The length that is told in answer to HEAD is that of GET's body, or none (RFC 9110 section 8.6).
#[test]
fn a_refused_head_tells_no_length_that_is_not_so() {
    let (service, (backend, _)) = (Service::start(), backend());
    let proxy = guarded(&service, backend.address, &auth());
    let head = |method: &str, path: &str| {
        let mut client = proxy.connect();
        let mut told = || {
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
            let (status, head, _) = client.response(method == "HEAD").unwrap();
            (status, field(&head, "content-length").map(str::to_owned))
        };
        let first = told();
        assert_eq!(told(), first, "the connection goes on");
        first
    };
    assert_eq!([head("HEAD", "/head"), head("HEAD", "/silent")], [(401, Some("3".into())), (401, None)]);
    // The proxy's own bodies are as long as they would be.
    let ([own, with], length) =
        (["HEAD", "GET"].map(|method| head(method, "/error")), |of: &(u16, Option<String>)| of.1.clone());
    assert!(own.0 == 503 && length(&own).is_some() && length(&own) == length(&with), "{own:?} {with:?}");
}

/// What is asked is held meanwhile, on account of the client that asks.
#[test]
fn questions_under_way_are_charged() {
    const CLIENTS: usize = 20;
    let (service, (backend, _)) = (Service::start(), backend());
    let proxy = guarded(&service, backend.address, &proto::ExternalAuth { timeout_ms: 3000, ..auth() });
    let cookie = "c".repeat(20_000);
    let ask = || {
        let mut client = proxy.connect();
        client.send(format!("GET /slow HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookie}\r\n\r\n").as_bytes());
        client
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| ask()).collect();
    let held = || proxy.metric("sluice_memory_held_bytes", &["kind=\"bodies\""]);
    until("they are charged", || held() >= (CLIENTS * cookie.len()) as f64);
    drop(clients);
    until("they are let go", || held() == 0.0);
}

/// An endpoint that never answers a SYN leaves time for one that does.
#[test]
fn an_endpoint_that_is_lost_does_not_take_all_the_time() {
    let (service, (backend, got)) = (Service::start(), backend());
    let lost = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        socket.listen(1).unwrap().into_std().unwrap()
    });
    let address = lost.local_addr().unwrap();
    // Until its queue is full.
    let connect = |_: &usize| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
    let queued: Vec<_> = (0..100).map_while(|n| connect(&n)).collect();
    assert!(queued.len() < 100);
    let auth = proto::ExternalAuth { timeout_ms: 1500, ..auth() };
    let proxy =
        guarded_by((ClusterProtocol::Http1, &[address, service.upstream.address]), backend.address, &auth, |_| {});
    for n in 0..10 {
        let (status, _, body) = get(&proxy, "/allow");
        assert_eq!(status, 200, "{n}: {}", String::from_utf8_lossy(&body));
    }
    assert_eq!(got.lock().unwrap().len(), 10);
}

#[test]
fn a_body_waits_untouched_and_comes_whole() {
    let (service, (backend, got)) = (Service::start(), backend());
    let proxy = guarded(&service, backend.address, &auth());
    let body = "0123456789".repeat(30_000);
    let mut client = proxy.connect();
    client.send(format!("POST /while HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    client.send(body.as_bytes());
    assert_eq!(client.response(false).unwrap().0, 200);
    // One that waits to be asked is asked once the request goes on.
    client.send(
        format!("POST /while HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").as_bytes(),
    );
    assert_eq!(client.response(false).unwrap().0, 100);
    client.send(b"late");
    assert_eq!(client.response(false).unwrap().0, 200);
    // And not at all if it does not.
    client.send(
        format!("POST /deny HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").as_bytes(),
    );
    assert_eq!(client.response(false).unwrap().0, 401);
    proxy.runtime.block_on(async {
        let mut sender = http2(&proxy).await;
        let asked = http2_request("POST", "/while").body(()).unwrap();
        let (response, mut upload) = sender.send_request(asked, false).unwrap();
        for piece in body.as_bytes().chunks(10_000) {
            upload.send_data(Bytes::copy_from_slice(piece), false).unwrap();
        }
        upload.send_data(Bytes::new(), true).unwrap();
        assert_eq!(answer(response.await.unwrap()).await.0, 200);
    });
    let got = got.lock().unwrap();
    let bodies: Vec<_> = got.iter().map(|asked| asked.split_once("\r\n\r\n").unwrap().1).collect();
    assert!(bodies == [&body, "late", &body], "{:?}", bodies.iter().map(|body| body.len()).collect::<Vec<_>>());
}

#[test]
fn what_the_service_takes_is_not_what_the_proxy_adds() {
    let (service, (backend, _)) = (Service::start(), backend());
    let proxy = guarded(&service, backend.address, &auth());
    let sent = 20;
    for _ in 0..sent {
        assert_eq!(get(&proxy, "/while").0, 200);
    }
    until("all are counted", || proxy.metric("sluice_added_latency_seconds_count", &[]) == f64::from(sent));
    let added = proxy.metric("sluice_added_latency_seconds_sum", &[]);
    let waited = proxy.metric("sluice_filter_wait_seconds_total", &["external_auth"]);
    assert!(waited >= 0.05 * f64::from(sent), "{waited} s");
    assert!(added < 0.1 * waited, "{added} s are added, {waited} s were waited for");
    assert_eq!(proxy.metric("sluice_filter_waits_total", &["external_auth", "resumed"]), f64::from(sent));
}

#[test]
fn a_service_that_speaks_http2_is_asked_by_it() {
    let service = support::http2_upstream(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!((request.uri().path(), request.uri().authority().unwrap().as_str()), ("/check/a", HOST));
            let response = http::Response::builder().header("x-user", "alice").body(()).unwrap();
            let mut body = respond.send_response(response, false).unwrap();
            body.send_data(Bytes::from_static(b"ok"), true).unwrap();
        }
    });
    let (backend, got) = backend();
    let proxy = guarded_by((ClusterProtocol::H2c, &[service]), backend.address, &auth(), |_| {});
    assert_eq!(get(&proxy, "/a").0, 200);
    assert!(got.lock().unwrap()[0].contains("\r\nx-user: alice\r\n"));
}
