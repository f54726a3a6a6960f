//! Responses are coded on their way, whatever the client and the backend speak: whoever decodes one has what was sent.

use std::{
    io::Read as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use e2e::{
    echo::Echo,
    harness::{
        Gateway, eventually, free_port, http,
        manifests::{Fleet, HOST, route_with},
    },
    load::{Load, Plan},
};

use crate::{assert_clean, at, bound, serves};

const H2C_HOST: &str = "h2c.shop.example";
const LARGE: usize = 10_000_000;
/// Milliseconds between the chunks of a stream.
const GAP_MS: u64 = 300;

/// Names what the backend does not say, which is coded then: filters of the response come before that.
const CODED: &str = "filters:\n    \
     - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: content-type, value: text/plain}, \
        {name: etag, value: '\"a\"'}]}}\n    \
     - {type: Compression, compression: {minBytes: 5}}";

/// A gateway in front of a backend, which it speaks to by HTTP/1.1 and, for another host, by HTTP/2.
fn gateway(port: u16, echo: &Echo) -> Gateway {
    let h2c = route_with("h2c", CODED, echo.addr)
        .replace("api.shop", "h2c.shop")
        .replace("\"}", "\", appProtocol: kubernetes.io/h2c}");
    let manifests = [
        ("fleet.yaml", Fleet::single(port).yaml()),
        ("all.yaml", route_with("all", CODED, echo.addr)),
        ("h2c.yaml", h2c),
    ];
    let gateway = Gateway::start(&manifests).unwrap();
    serves(port, "/");
    gateway
}

/// curl, which asks for coded content and decodes it.
fn curl(port: u16, host: &str, version: &str, path: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "30", "--compressed", version]);
    curl.args(["--connect-to", &format!("{host}:80:127.0.0.1:{port}"), &format!("http://{host}{path}")]);
    curl
}

/// Does something by each protocol of a client and of a backend.
fn on_every_way(test: impl Fn(&str, &str)) {
    for host in [HOST, H2C_HOST] {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            test(host, version);
        }
    }
}

/// Bytes of bodies that the proxy holds.
fn held(gateway: &Gateway) -> u64 {
    let metrics = http::get(gateway.proxies()[0].admin, "localhost", "/metrics").unwrap().body;
    let line = metrics.lines().find(|line| line.starts_with("sluice_memory_held_bytes{") && line.contains("bodies"));
    line.unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

#[test]
fn curl_decodes_what_was_sent() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let gateway = gateway(port, &echo);
    on_every_way(|host, version| {
        let way = format!("{version} to {host}");
        let output = curl(port, host, version, &format!("/bytes/{LARGE}"))
            .args(["--write-out", "%{stderr}%{size_download}"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{way}: {output:?}");
        assert!(output.stdout.len() == LARGE && output.stdout.iter().all(|byte| *byte == b'.'), "{way}");
        let coded: usize = String::from_utf8(output.stderr).unwrap().parse().unwrap();
        println!("{way}: {LARGE} bytes came as {coded}");
        assert!(coded < LARGE / 100, "{way}: {coded}");

        let asked = |arguments: &[&str], path: &str| {
            let output = curl(port, host, version, path).args(arguments).output().unwrap();
            assert!(output.status.success(), "{way} {path}: {output:?}");
            String::from_utf8(output.stdout).unwrap().to_lowercase()
        };
        let all = asked(&["--include"], "/trailers");
        assert!(all.contains("content-encoding: gzip") && all.contains("hello\n"), "{way}: {all}");
        // What GET would get: nothing is said of a length.
        let head = asked(&["--head"], "/bytes/100000");
        assert!(head.contains("content-encoding: gzip") && !head.contains("content-length"), "{way}: {head}");
        assert!(head.contains("etag: w/\"a\"") && head.contains("vary: accept-encoding"), "{way}: {head}");
        let none = asked(&["--include"], "/status/204");
        assert!(none.contains(" 204") && !none.contains("content-encoding"), "{way}: {none}");
        let unmodified = asked(&["--include"], "/status/304");
        assert!(unmodified.contains(" 304") && !unmodified.contains("content-encoding"), "{way}: {unmodified}");
        assert!(unmodified.contains("etag: w/\"a\"") && unmodified.contains("vary: accept-encoding"), "{unmodified}");
        // `--compressed` names gzip beside others; what is weighed otherwise passes as it is.
        let plain = asked(&["--include", "--header", "accept-encoding: gzip;q=0, *;q=0"], "/bytes/100");
        assert!(plain.contains("content-length: 100") && plain.contains("vary: accept-encoding"), "{way}: {plain}");
        let short = asked(&["--include"], "/bytes/4");
        assert!(short.contains("content-length: 4") && !short.contains("vary"), "{way}: {short}");
    });
    eventually("nothing is held", Duration::from_secs(5), || (held(&gateway) == 0).then_some(())).unwrap();
}

#[test]
fn a_stream_arrives_as_it_is_sent() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let _gateway = gateway(port, &echo);
    on_every_way(|host, version| {
        let mut curl = curl(port, host, version, &format!("/stream/5/{GAP_MS}"));
        let mut curl = curl.arg("--no-buffer").stdout(Stdio::piped()).spawn().unwrap();
        let (mut stream, mut buffer, mut text, mut came) = (curl.stdout.take().unwrap(), [0; 4096], vec![], vec![]);
        loop {
            let bytes = stream.read(&mut buffer).unwrap();
            if bytes == 0 {
                break;
            }
            text.extend_from_slice(&buffer[..bytes]);
            came.resize(text.iter().filter(|byte| **byte == b'\n').count(), Instant::now());
        }
        assert!(curl.wait().unwrap().success());
        assert_eq!(String::from_utf8(text).unwrap(), (0..5).map(|i| format!("chunk {i}\n")).collect::<String>());
        let late = |pair: &[Instant]| (pair[1] - pair[0]).abs_diff(Duration::from_millis(GAP_MS));
        let most = came.windows(2).map(late).max().unwrap();
        println!("{version} to {host}: chunks are late by at most {most:?}");
        assert!(most <= bound(Duration::from_millis(20)), "{came:?}");
    });
}

/// Others on the same worker have their turns while much is coded for somebody.
#[test]
fn others_go_on_meanwhile() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let gateway = gateway(port, &echo);
    let plan = || {
        let mut plan = Plan::new(at(port), HOST).step(200.0, Duration::from_secs(3600));
        (plan.h1, plan.paths) = (8, vec!["/small".to_owned()]);
        plan
    };
    let p99 = |load: &Load| {
        load.live();
        e2e::harness::pause(Duration::from_secs(3));
        load.live().latency.p99
    };
    let load = Load::start(plan()).unwrap();
    let quiet = p99(&load);
    let clients: Vec<_> = (0..2)
        .map(|_| curl(port, HOST, "--http1.1", "/bytes/4000000000").stdout(Stdio::null()).spawn().unwrap())
        .collect();
    let busy = p99(&load);
    let held = held(&gateway);
    for mut client in clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    let report = load.stop().unwrap();
    println!(
        "p99 in ms: {quiet:.2} before, {busy:.2} while two bodies are coded, of which {held} bytes are held\n{report}"
    );
    assert_clean(&report);
    assert!(busy <= bound(Duration::from_millis(20)).as_secs_f64() * 1000.0, "{busy}");
    assert!(held <= 3_000_000, "{held}");
    eventually("nothing is held", Duration::from_secs(5), || (self::held(&gateway) == 0).then_some(())).unwrap();
}
