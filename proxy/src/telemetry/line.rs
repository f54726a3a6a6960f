//! One line of the access log: a JSON object; its names are the log's interface.
//!
//! Written by hand: a flood of rejected requests writes a line for each, and `serde_json` would format addresses and
//! fractions anew by the machinery that suits anything.

use std::{cell::Cell, io::Write as _, net::SocketAddr, time::Duration};

use http::Version;

use super::record::RequestRecord;
use crate::{
    consumers::Consumer,
    header_value::{decimal, ipv4},
    wall_clock,
};

/// Bytes of a target that are logged.
const MAX_TARGET_BYTES: usize = 1 << 10;

/// The bytes between the value before and that of a field.
macro_rules! field {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

/// Writes the line of a request. What it has not is left out: a route, an upstream, a reason.
pub(super) fn write(out: &mut Vec<u8>, record: &RequestRecord<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(&time(wall_clock::unix(record.ended)));
    out.push(b'"');
    plain(out, field!("request_id"), record.request_id);
    match record.client_port {
        Some(port) => client(out, field!("client"), record.client, port),
        None => plain(out, field!("client"), record.client),
    }
    plain(out, field!("method"), record.method.as_str().as_bytes());
    plain(out, field!("host"), record.host);
    text(out, field!("target"), cut(record.target));
    plain(out, field!("protocol"), protocol(record.version).as_bytes());
    number(out, field!("status"), record.status.into());
    if let Some(rule) = record.rule {
        plain(out, field!("route"), rule.route.as_bytes());
        text(out, field!("rule"), rule.rule);
    }
    if let Some(consumer) = record.consumer {
        consumer_name(out, field!("consumer"), consumer);
    }
    milliseconds(out, field!("duration_ms"), record.duration);
    if let Some(upstream) = record.upstream {
        milliseconds(out, field!("upstream_ms"), upstream);
    }
    if let Some(external) = record.external {
        milliseconds(out, field!("external_ms"), external);
    }
    milliseconds(out, field!("added_ms"), record.added);
    if let Some(upstream) = record.upstream_address {
        address(out, field!("upstream"), upstream);
    }
    number(out, field!("bytes_in"), record.bytes_in);
    number(out, field!("bytes_out"), record.bytes_out);
    if let Some(reason) = record.reason {
        plain(out, field!("reason"), reason.as_bytes());
    }
    if let Some(error_source) = record.error_source {
        plain(out, field!("blame"), error_source.as_str().as_bytes());
    }
    out.extend_from_slice(b"}\n");
}

/// Text in which nothing can need escaping: tokens, names of hosts and of Kubernetes' objects, our own words.
fn plain(out: &mut Vec<u8>, field: &[u8], value: &[u8]) {
    out.extend_from_slice(field);
    out.push(b'"');
    out.extend_from_slice(value);
    out.push(b'"');
}

/// `namespace/name`, as that of a route.
fn consumer_name(out: &mut Vec<u8>, field: &[u8], consumer: &Consumer) {
    out.extend_from_slice(field);
    out.push(b'"');
    out.extend_from_slice(consumer.namespace.as_bytes());
    out.push(b'/');
    out.extend_from_slice(consumer.name.as_bytes());
    out.push(b'"');
}

fn text(out: &mut Vec<u8>, field: &[u8], value: &str) {
    // Without an early end, so that it is done many bytes at a time.
    if value.bytes().fold(true, |all, b| all & (b >= b' ') & (b != b'"') & (b != b'\\')) {
        return plain(out, field, value.as_bytes());
    }
    out.extend_from_slice(field);
    // Writing to memory does not fail.
    drop(serde_json::to_writer(out, value));
}

/// Clients choose how long their targets are, and may send each as two bytes by HTTP/2: the log holds what tells them
/// apart.
fn cut(target: &str) -> &str {
    let mut end = target.len().min(MAX_TARGET_BYTES);
    while !target.is_char_boundary(end) {
        end -= 1;
    }
    &target[..end]
}

fn number(out: &mut Vec<u8>, field: &[u8], value: u64) {
    out.extend_from_slice(field);
    decimal(out, value);
}

/// Writes milliseconds with three decimals.
fn milliseconds(out: &mut Vec<u8>, field: &[u8], value: Duration) {
    out.extend_from_slice(field);
    let us = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    decimal(out, us / 1000);
    let [a, b, c] = three(us % 1000);
    out.extend_from_slice(&[b'.', a, b, c]);
}

/// As a socket's address is written: IPv6 in brackets.
fn client(out: &mut Vec<u8>, field: &[u8], address: &[u8], port: u16) {
    out.extend_from_slice(field);
    let brackets: (&[u8], &[u8]) = if address.contains(&b':') { (b"\"[", b"]:") } else { (b"\"", b":") };
    out.extend_from_slice(brackets.0);
    out.extend_from_slice(address);
    out.extend_from_slice(brackets.1);
    decimal(out, port.into());
    out.push(b'"');
}

fn address(out: &mut Vec<u8>, field: &[u8], value: SocketAddr) {
    out.extend_from_slice(field);
    out.push(b'"');
    match value {
        SocketAddr::V4(address) => {
            ipv4(out, *address.ip());
            out.push(b':');
            decimal(out, address.port().into());
        }
        // Writing to memory does not fail.
        SocketAddr::V6(address) => drop(write!(out, "{address}")),
    }
    out.push(b'"');
}

/// Three digits.
fn three(number: u64) -> [u8; 3] {
    [number / 100, number / 10 % 10, number % 10].map(|digit| b'0' + digit as u8)
}

/// As RFC 3339 has it, in UTC, with milliseconds: all but these is written anew once a second. `unix`: since 1970
/// began.
fn time(unix: Duration) -> Time {
    thread_local! {
        static WRITTEN: Cell<(u64, Time)> = const { Cell::new((u64::MAX, *b"0000-00-00T00:00:00.000Z")) };
    }
    let (second, mut text) = WRITTEN.get();
    if second != unix.as_secs() {
        let at = i64::try_from(unix.as_secs()).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
        let whole = at.unwrap_or_default().to_string();
        // Years of five digits would be longer.
        let length = whole.len().min(WHOLE);
        text[..length].copy_from_slice(&whole.as_bytes()[..length]);
        WRITTEN.set((unix.as_secs(), text));
    }
    text[WHOLE + 1..WHOLE + 4].copy_from_slice(&three(unix.subsec_millis().into()));
    text
}

type Time = [u8; WHOLE + 5];

/// Length without milliseconds.
const WHOLE: usize = "2026-01-31T23:59:59".len();

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{ErrorSource, access_log::tests::record};

    #[test]
    fn lines_are_json_in_plain_words() {
        let mut line = vec![];
        write(&mut line, &record(502, Some(ErrorSource::Upstream)));
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let mut got: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let time = got["time"].take();
        assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{time}");
        let expect = serde_json::json!({
            "time": null, "request_id": "id", "client": "192.0.2.1:7", "method": "GET", "host": "shop",
            "target": "/a?b=\"c\"", "protocol": "HTTP/2", "status": 502,
            "duration_ms": 12.345, "upstream_ms": 12.0, "added_ms": 0.045, "upstream": "[2001:db8::1]:9000",
            "bytes_in": 1, "bytes_out": 2, "reason": "upstream_broke", "blame": "upstream",
        });
        assert_eq!(got, expect);
    }

    #[test]
    fn what_a_request_has_not_is_left_out() {
        let mut line = vec![];
        let mut record = record(404, None);
        (record.client, record.upstream, record.upstream_address) = (b"2001:db8::1", None, None);
        write(&mut line, &record);
        let got: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(got["client"], "[2001:db8::1]:7");
        line.clear();
        write(&mut line, &RequestRecord { client_port: None, ..record });
        let forwarded: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(forwarded["client"], "2001:db8::1");
        let absent = ["route", "rule", "upstream_ms", "upstream", "reason", "blame"];
        assert!(absent.iter().all(|name| got.get(name).is_none()), "{got}");
    }

    #[test]
    fn a_long_target_is_cut() {
        let mut line = vec![];
        let target = format!("/{}", "é".repeat(5000));
        write(&mut line, &RequestRecord { target: &target, ..record(404, None) });
        let got: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(got["target"], target[..1023]);
    }

    #[test]
    fn what_is_not_plain_is_escaped() {
        for value in ["", "a b", "\"", "\\", "\n\t\u{1}", "é\u{7f}"] {
            let mut out = vec![];
            text(&mut out, field!("x"), value);
            let json = format!("{{\"y\":0{}}}", str::from_utf8(&out).unwrap());
            assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["x"], value, "{json}");
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        for (ms, expect) in [
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (1_767_225_600_000, "2026-01-01T00:00:00.000Z"),
            (1_767_225_600_070, "2026-01-01T00:00:00.070Z"),
        ] {
            assert_eq!(time(Duration::from_millis(ms)), expect.as_bytes());
        }
    }
}
