//! What clients may send, and what of it reaches an upstream: one file of `corpus/` for each case.
//!
//! `>` lines are what the client sends; `<` lines what the upstream must get, less the fields that the proxy adds; `expect`
//! the statuses of the answers. Without `<` lines nothing reaches the upstream, or, with `expect 200`, it does not matter
//! what exactly. Lines end where their escapes say: `\r`, `\n`, `\t`, `\0`, `\xNN`, `\\`.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    fs,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
};

use support::{Proxy, Request, Upstream, field, pause, request};

#[derive(Debug, Default)]
struct Case {
    send: Vec<u8>,
    statuses: Vec<u16>,
    upstream: Option<Vec<u8>>,
}

#[test]
fn nothing_ambiguous_reaches_the_upstream() {
    let record = Arc::<Mutex<Vec<u8>>>::default();
    let recorded = Arc::clone(&record);
    let requests = Arc::<Mutex<Vec<Request>>>::default();
    let understood = Arc::clone(&requests);
    let upstream = Upstream::start(move |mut stream| {
        let mut read = vec![];
        while let Some(request) = request(&mut stream, &mut read, &recorded) {
            let head_only = request.head.starts_with("HEAD ");
            understood.lock().unwrap().push(request);
            let body: &[u8] = if head_only { b"" } else { b"ok" };
            let answer = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", body].concat();
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    });
    let proxy = Proxy::start(upstream.address);
    let mut files: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 100);
    let mut failures = vec![];
    for file in files {
        let case = parse(&fs::read_to_string(&file).unwrap());
        println!("{}", file.display());
        record.lock().unwrap().clear();
        requests.lock().unwrap().clear();
        let statuses = statuses(&proxy, &case);
        let good = case.statuses.iter().filter(|status| **status < 400).count();
        if case.statuses.len() > good {
            // What must not arrive gets the time to do so.
            pause(10);
        }
        let (record, requests) = (record.lock().unwrap().clone(), requests.lock().unwrap().clone());
        let what = judge(&case, &statuses, good, &record, &requests);
        if let Err(what) = what {
            let record = String::from_utf8_lossy(&record).into_owned();
            failures.push(format!("{}: {what}\n  upstream got {record:?}", file.file_stem().unwrap().display()));
        }
    }
    assert!(failures.is_empty(), "{} failed\n{}", failures.len(), failures.join("\n"));
}

fn statuses(proxy: &Proxy, case: &Case) -> Vec<u16> {
    let mut client = proxy.connect();
    client.send(&case.send);
    let mut statuses = vec![];
    let heads: Vec<bool> = {
        // Which of the answers have no body.
        let text = String::from_utf8_lossy(&case.send).into_owned();
        text.match_indices(" HTTP/1.")
            .map(|(at, _)| text[..at].rsplit('\n').next().unwrap().contains("HEAD "))
            .collect()
    };
    while statuses.len() < case.statuses.len() {
        match client.response(heads.get(statuses.len()).copied().unwrap_or_default()) {
            Some((100, ..)) => {}
            Some((status, ..)) => statuses.push(status),
            None => break,
        }
    }
    if case.statuses.last().is_some_and(|status| *status >= 400) {
        // What is refused ends the connection.
        let rest = client.rest();
        assert!(rest.is_empty() || rest == "RESET", "{rest:?}");
    }
    statuses
}

fn judge(case: &Case, statuses: &[u16], good: usize, record: &[u8], requests: &[Request]) -> Result<(), String> {
    if statuses != case.statuses {
        return Err(format!("answered {statuses:?}, not {:?}", case.statuses));
    }
    if requests.len() != good {
        return Err(format!("the upstream understood {} requests, not {good}", requests.len()));
    }
    for request in requests {
        let names =
            |name: &str| request.head.lines().filter(|l| l.to_lowercase().starts_with(&format!("{name}:"))).count();
        let framed = names("content-length") + names("transfer-encoding");
        if names("host") != 1 || framed > 1 || field(&request.head, "x-forwarded-for") != Some("127.0.0.1") {
            return Err("the upstream's head is ambiguous".into());
        }
        let lines: Vec<&str> = request.head.split("\r\n").collect();
        let torn = |l: &&str| l.contains(['\r', '\n', '\0']) || l.starts_with([' ', '\t']);
        if lines.iter().any(torn) || lines[1..lines.len() - 2].iter().any(|l| !l.contains(": ")) {
            return Err("the upstream's lines are ambiguous".into());
        }
    }
    let chunks = case.send.windows(8).any(|w| w.eq_ignore_ascii_case(b" chunked"));
    if good == 0 && !record.is_empty() && !chunks {
        return Err("something of a refused request got through".into());
    }
    match &case.upstream {
        Some(expect) if without_ours(record) != *expect => {
            Err(format!("the upstream should have got {:?}", String::from_utf8_lossy(expect)))
        }
        _ => Ok(()),
    }
}

/// Without the fields that the proxy adds.
fn without_ours(bytes: &[u8]) -> Vec<u8> {
    let ours = |line: &&[u8]| !line.starts_with(b"x-request-id: ") && !line.starts_with(b"x-forwarded-");
    bytes.split_inclusive(|b| *b == b'\n').filter(ours).collect::<Vec<_>>().concat()
}

fn parse(text: &str) -> Case {
    let mut case = Case::default();
    for line in text.lines() {
        if let Some(statuses) = line.strip_prefix("expect ") {
            case.statuses = statuses.split(' ').map(|status| status.parse().unwrap()).collect();
        } else if let Some(sent) = line.strip_prefix("> ") {
            case.send.extend(unescape(sent));
        } else if let Some(repeated) = line.strip_prefix("repeat ") {
            let (count, what) = repeated.split_once(' ').unwrap();
            case.send.extend(unescape(what).repeat(count.parse().unwrap()));
        } else if let Some(got) = line.strip_prefix("< ") {
            case.upstream.get_or_insert_default().extend(unescape(got));
        } else {
            assert!(line.starts_with('#'), "{line:?}");
        }
    }
    case
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (vec![], text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap());
                after
            }
            (b'\\', [escape, after @ ..]) => {
                bytes.push(match escape {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'0' => 0,
                    b'\\' => b'\\',
                    other => panic!("escape {other}"),
                });
                after
            }
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    bytes
}
