//! A proxy as a process of its own.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use proxy::config::last_good;
use snapshot::{Snapshot, proto::Limits};

use super::{content, free_port, pause};

/// A proxy that serves what its last-good file holds.
pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub state: tempfile::TempDir,
}

impl Process {
    /// With so many descriptors at most.
    pub fn start(descriptors: usize, upstream: SocketAddr, limits: Limits) -> Self {
        let port = free_port();
        Self::with(descriptors, port, &content(port, upstream, limits, |_| {}), &[])
    }

    /// With these further arguments, and this content; `port` is the one that it is reached at.
    pub fn with(descriptors: usize, port: u16, content: &Snapshot, more: &[&str]) -> Self {
        let state = tempfile::tempdir().unwrap();
        let admin = free_port();
        last_good::save(state.path(), 1, content).unwrap();
        let of = |name: &str| state.path().join(name).display().to_string();
        let child = Command::new("sh")
            .args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_sluice-proxy"))
            .args(["--name", "p-0", "--fleet", "ns/f", "--workers", "1"])
            .args(["--control", &format!("unix:{}", of("control.sock")), "--admin", &format!("127.0.0.1:{admin}")])
            .args(["--state", &state.path().display().to_string()])
            .args(more)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let process = Self { child, address: at(port), admin: at(admin), state };
        process.until_ready();
        process
    }

    pub fn until_ready(&self) {
        let is_ready = || self.admin("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"));
        self.until("it is ready", is_ready);
    }

    /// The answer of the admin port, if there is one within 2 s.
    pub fn admin(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// The value of a series, as it is named with its labels.
    pub fn series(&self, name: &str) -> Option<f64> {
        let text = self.admin("/metrics").unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    pub fn metric(&self, name: &str) -> f64 {
        self.series(name).unwrap_or_else(|| panic!("no {name}"))
    }

    pub fn until(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !done() {
            assert!(Instant::now() < end, "not within 30 s: {what}");
            pause(20);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
