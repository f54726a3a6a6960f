//! grpc-go's own interoperability cases, and loads of streams and deadlines: through the gateway, in clear text and by TLS,
//! they come to the same as directly.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use e2e::harness::{
    Gateway, Process, eventually, free_port, go_program,
    manifests::{Fleet, HOST, route, tls_secret},
};
use tempfile::TempDir;

use super::figure;
use crate::{at, long};

/// What asks for no credentials of a cloud, and for no several servers.
const CASES: [&str; 17] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "orca_per_rpc",
    "rpc_soak",
    "channel_soak",
];
/// The deadline of calls under load, and how many are made in a second.
const DEADLINES: &str = "deadlines of 3 ms at 200/s";

/// grpc-go's server, and a gateway before it.
struct World {
    program: PathBuf,
    _server: Process,
    _gateway: Gateway,
    folder: TempDir,
    /// Names, where they lead, and whether by TLS.
    ways: [(&'static str, SocketAddr, bool); 3],
}

impl World {
    fn start() -> Self {
        let program = go_program("grpc", "sluice.dev/e2e/grpc").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let [direct, plain, tls] = [(); 3].map(|()| free_port().unwrap());
        let mut serve = Command::new(&program);
        serve.args(["-addr", &at(direct).to_string(), "serve"]);
        let server = Process::start(&mut serve, &folder.path().join("server.log")).unwrap();
        let certificate = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let (chain, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
        std::fs::write(folder.path().join("ca.pem"), &chain).unwrap();
        let fleet = Fleet { https: Some((tls, "shop-tls".to_owned())), ..Fleet::single(plain) };
        let calls = route("calls", "/", at(direct)).replace("\"}", "\", appProtocol: kubernetes.io/h2c}");
        let manifests = [
            ("fleet.yaml", fleet.yaml()),
            ("secret.yaml", tls_secret("shop-tls", &chain, &key)),
            ("calls.yaml", calls),
        ];
        let gateway = Gateway::start(&manifests).unwrap();
        let ways = [("directly", at(direct), false), ("by h2c", at(plain), false), ("by TLS", at(tls), true)];
        let world = Self { program, _server: server, _gateway: gateway, folder, ways };
        for way in world.ways {
            let answers = || world.run(way, &["empty_unary"]).status.success().then_some(());
            eventually(&format!("calls are answered {}", way.0), Duration::from_secs(15), answers).unwrap();
        }
        world
    }

    fn run(&self, (_, to, tls): (&str, SocketAddr, bool), arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(["-addr", &to.to_string(), "-authority", HOST]);
        if tls {
            command.arg("-ca").arg(self.folder.path().join("ca.pem"));
        }
        command.args(arguments).output().unwrap()
    }

    /// The numbers that a load prints, by name.
    #[track_caller]
    fn numbers(&self, way: (&str, SocketAddr, bool), arguments: &[&str]) -> BTreeMap<String, u64> {
        let output = self.run(way, arguments);
        assert!(output.status.success(), "{}: {}", way.0, String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let number = |line: &str| line.split_once(' ').map(|(name, number)| (name.to_owned(), number.parse().unwrap()));
        text.lines().filter_map(number).collect()
    }
}

#[test]
fn grpcs_own_cases_pass_as_directly() {
    let world = World::start();
    let mut failures = vec![];
    for way in world.ways {
        let began = Instant::now();
        let mut passed = 0;
        for case in CASES {
            let output = world.run(way, &[case]);
            match output.status.success() {
                true => passed += 1,
                false => failures.push(format!("{case} {}: {}", way.0, String::from_utf8_lossy(&output.stderr))),
            }
        }
        let what = format!("grpc-go's cases {}", way.0);
        let took = began.elapsed().as_secs_f64();
        figure(&what, format!("{passed} of {} pass ({took:.1} s)", CASES.len()), "all, as directly");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn streams_at_full_speed_and_deadlines_come_to_the_same_as_directly() {
    let (messages, during) = if long() { (100_000, "10s") } else { (5000, "2s") };
    let world = World::start();
    for way in world.ways {
        let streams = world.numbers(way, &["-messages", &messages.to_string(), "streams"]);
        for stream in ["client", "server", "both"] {
            let rate = streams[&format!("{stream}_per_second")];
            let what = format!("{messages} messages of 1 byte, {stream} streaming, {}", way.0);
            figure(&what, format!("{} ({rate}/s)", streams[stream]), "all of them");
            assert_eq!(streams[stream], messages, "{what}");
        }
        let codes = world.numbers(way, &["-during", during, "deadlines"]);
        let sum: u64 = codes.values().sum();
        figure(&format!("{DEADLINES}, {}", way.0), format!("{codes:?}"), "OK and DeadlineExceeded, as directly");
        let known = |name: &&String| matches!(&***name, "OK" | "DeadlineExceeded");
        assert!(codes.keys().all(|name| known(&name)), "{}: {codes:?}", way.0);
        // Some of each, to tell: many are answered late on purpose.
        assert!(sum >= 200 && codes.len() == 2, "{}: {codes:?}", way.0);
    }
}
