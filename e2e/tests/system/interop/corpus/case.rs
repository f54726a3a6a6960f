//! The corpus as text: what a case says. `e2e/testdata/interop/README.md` has the words.

use std::{fs, path::Path};

use super::{Fields, Way};

/// One request, what an upstream answers, and what has to come of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Case {
    /// File and name.
    pub(super) name: String,
    /// Where it is from.
    pub(super) source: String,
    /// `spec.paths` of the fleet, if not the default.
    pub(super) paths: String,
    pub(super) request: Request,
    pub(super) answer: Answer,
    expect: Vec<Line>,
    buts: Vec<But>,
    only: Option<But>,
    /// Why it comes to something else than its source has.
    departs: Option<String>,
}

/// What a client sends.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    pub(super) method: Vec<u8>,
    pub(super) target: Vec<u8>,
    /// `None`: none is named.
    pub(super) authority: Option<Vec<u8>>,
    /// `None`: that of the way.
    pub(super) scheme: Option<String>,
    pub(super) fields: Fields,
    pub(super) body: Option<Vec<u8>>,
    pub(super) chunked: bool,
    pub(super) when: When,
    pub(super) trailers: Fields,
    pub(super) takes_trailers: bool,
    /// By HTTP/1.1, these bytes instead.
    pub(super) h1: Option<Vec<u8>>,
    /// By HTTP/2, these fields instead, pseudo-header fields among them.
    pub(super) h2: Fields,
}

/// When a body is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum When {
    #[default]
    WithHead,
    /// A moment after the head, unasked.
    Later,
    /// When the client was told to continue.
    Asked,
}

/// What an upstream answers.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) interim: Vec<(u16, Fields)>,
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) body: Option<Vec<u8>>,
    /// No length is told.
    pub(super) streams: bool,
    pub(super) trailers: Fields,
    /// By HTTP/1.1, these bytes instead.
    pub(super) h1: Option<Vec<u8>>,
    /// By HTTP/2, these frames instead.
    pub(super) h2: Vec<Frame>,
    /// There is none.
    pub(super) silent: bool,
    /// The connection is closed behind it.
    pub(super) closes: bool,
    /// It comes before the request's body was read.
    pub(super) early: bool,
}

impl Default for Answer {
    fn default() -> Self {
        let (interim, fields, trailers, h2) = (vec![], vec![], vec![], vec![]);
        let (body, h1, streams, silent, closes, early) = (None, None, false, false, false, false);
        Self { interim, status: 200, fields, body, streams, trailers, h1, h2, silent, closes, early }
    }
}

/// What an upstream sends by HTTP/2.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    Headers { fields: Fields, end: bool },
    Data { bytes: Vec<u8>, end: bool },
    Reset(u32),
    GoAway(u32),
}

/// A word and what it says.
pub(super) type Line = (String, String);

/// What is otherwise on some ways, and why.
#[derive(Debug, Clone)]
struct But {
    ways: Pattern,
    line: Line,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Pattern {
    client: Option<u8>,
    upstream: Option<u8>,
}

/// The codes of RFC 9113 section 7, by number.
pub(super) const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// Those that say something once; of the others a field's name belongs to what is overridden.
const ONCE: [&str; 10] =
    ["gets", "sees", "unseen", "policy", "tries", "sees-host", "sees-body", "gets-body", "h2-code", "gets-hints"];
const OF_FIELDS: [&str; 7] =
    ["sees-field", "sees-no", "sees-trailer", "gets-field", "gets-no", "gets-trailer", "gets-hint"];

/// All cases of a folder.
pub(super) fn read(folder: &Path) -> Vec<Case> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut cases = vec![];
    for file in files {
        let topic = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let mut paths = String::new();
        for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
            let mut case = Case { paths: paths.clone(), ..Case::default() };
            case.request.authority = Some(super::HOST.into());
            for line in block.lines().filter(|line| !line.starts_with('#')) {
                let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
                match word {
                    "paths" => paths = rest.to_owned(),
                    "case" => case.name = format!("{topic}: {rest}"),
                    _ => case.line(word, rest).unwrap_or_else(|| panic!("{topic}: {}: {line:?}", case.name)),
                }
            }
            if !case.name.is_empty() {
                case.checked();
                cases.push(case);
            }
        }
    }
    cases
}

impl Case {
    fn line(&mut self, word: &str, rest: &str) -> Option<()> {
        let (request, answer) = (&mut self.request, &mut self.answer);
        match word {
            "from" => self.source = rest.to_owned(),
            "departs" => self.departs = Some(rest.to_owned()),
            "ask" => {
                let (method, target) = rest.split_once(' ')?;
                (request.method, request.target) = (unescape(method), unescape(target));
            }
            "grpc" => {
                (request.method, request.target) = (b"POST".into(), unescape(rest));
                request.fields.push((b"content-type".to_vec(), b"application/grpc".to_vec()));
                (request.takes_trailers, request.chunked, request.body) = (true, true, Some(vec![0; 5]));
            }
            "host" => request.authority = (rest != "-").then(|| unescape(rest)),
            "scheme" => request.scheme = Some(rest.to_owned()),
            "field" => request.fields.push(field(rest)?),
            "body" => request.body = Some(unescape(rest)),
            "chunked" => (request.body, request.chunked) = (Some(unescape(rest)), true),
            "later" => request.when = When::Later,
            "asked" => request.when = When::Asked,
            "trailer" => request.trailers.push(field(rest)?),
            "takes-trailers" => request.takes_trailers = true,
            "h1" => request.h1.get_or_insert_default().extend(unescape(rest)),
            "h2" => request.h2.push(field(rest)?),
            "answer" => answer.status = rest.parse().ok()?,
            "give" => answer.fields.push(field(rest)?),
            "says" => answer.body = Some(unescape(rest)),
            "streams" => (answer.body, answer.streams) = (Some(unescape(rest)), true),
            "ends-with" => {
                answer.trailers.push(field(rest)?);
                answer.streams = true;
            }
            "hints" => {
                let (status, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let fields = if rest.is_empty() { vec![] } else { vec![field(rest)?] };
                answer.interim.push((status.parse().ok()?, fields));
            }
            "early" => answer.early = true,
            "silent" => answer.silent = true,
            "closes" => answer.closes = true,
            "h1-answer" => answer.h1.get_or_insert_default().extend(unescape(rest)),
            "h2-answer" => answer.h2.push(frame(rest)?),
            "but" | "only" => {
                let (rest, reason) = rest.rsplit_once(" -- ")?;
                let (ways, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let but = But { ways: pattern(ways)?, line: expectation(rest), reason: reason.to_owned() };
                match word {
                    "only" => self.only = Some(but),
                    _ => self.buts.push(but),
                }
            }
            _ => self.expect.push(expectation(&format!("{word} {rest}"))),
        }
        Some(())
    }

    fn checked(&self) {
        let Self { name, .. } = self;
        let lines = self.expect.iter().chain(self.buts.iter().map(|but| &but.line));
        for (word, _) in lines.clone() {
            let known = ONCE.contains(&&**word) || OF_FIELDS.contains(&&**word) || word == "refused";
            assert!(known, "{name}: what is {word:?}?");
        }
        assert!(
            lines.clone().any(|(word, _)| matches!(&**word, "sees" | "unseen" | "refused")),
            "{name}: what is seen?"
        );
        assert!(!self.source.is_empty(), "{name}: where is it from?");
        let asks = self.request.h1.is_some() || !self.request.h2.is_empty() || !self.request.method.is_empty();
        assert!(asks, "{name}: what is asked?");
        assert!(
            self.reasons().chain(self.reason_of_few()).chain(self.departs()).all(|why| why.len() > 10),
            "{name}: why?"
        );
    }

    /// Whether it can be said on this way.
    pub(super) fn is_of(&self, way: Way) -> bool {
        self.only.as_ref().is_none_or(|only| only.ways.has(way))
    }

    /// Whether it is answered while the upstream still reads, or not at all.
    pub(super) fn races(&self) -> bool {
        self.answer.early || self.expect.iter().any(|(word, says)| word == "tries" && says == "any")
    }

    /// What is otherwise on this way, by number: those with the same have to come to the same in all.
    pub(super) fn differences(&self, way: Way) -> Vec<usize> {
        (0..self.buts.len()).filter(|at| self.buts[*at].ways.has(way)).collect()
    }

    /// The reasons why something is otherwise on some way.
    pub(super) fn reasons(&self) -> impl Iterator<Item = &str> {
        self.buts.iter().map(|but| &*but.reason)
    }

    /// Why it can't be said on all ways.
    pub(super) fn reason_of_few(&self) -> Option<&str> {
        self.only.as_ref().map(|only| &*only.reason)
    }

    /// Why it comes to something else than its source has, on all ways.
    pub(super) fn departs(&self) -> Option<&str> {
        self.departs.as_deref()
    }

    /// What has to come of it on this way.
    pub(super) fn expect(&self, way: Way) -> Vec<Line> {
        let mut lines = self.expect.clone();
        for but in self.buts.iter().filter(|but| but.ways.has(way)) {
            let subject = |(word, says): &Line| match ONCE.contains(&&**word) {
                true => (word.clone(), String::new()),
                false => (word.clone(), says.split(':').next().unwrap_or_default().to_owned()),
            };
            match &*but.line.0 {
                "refused" => lines.clear(),
                "sees" => lines.retain(|line| !matches!(&*line.0, "unseen" | "sees")),
                "unseen" => lines.retain(|line| !line.0.starts_with("sees")),
                // A field is there or is not.
                "sees-no" | "sees-field" => lines.retain(|line| {
                    !matches!(&*line.0, "sees-no" | "sees-field") || subject(line).1 != subject(&but.line).1
                }),
                "gets" => lines.retain(|line| !matches!(&*line.0, "refused" | "gets")),
                _ => lines.retain(|line| subject(line) != subject(&but.line)),
            }
            lines.push(but.line.clone());
        }
        lines
    }
}

impl Pattern {
    fn has(self, way: Way) -> bool {
        self.client.is_none_or(|version| version == way.client)
            && self.upstream.is_none_or(|version| version == way.upstream)
    }
}

fn pattern(text: &str) -> Option<Pattern> {
    let version = |text: &str| match text {
        "*" => Some(None),
        "h1" => Some(Some(1)),
        "h2" | "h2c" => Some(Some(2)),
        _ => None,
    };
    let (client, upstream) = text.split_once('>')?;
    Some(Pattern { client: version(client)?, upstream: version(upstream)? })
}

fn expectation(text: &str) -> Line {
    let (word, says) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    (word.to_owned(), says.to_owned())
}

fn field(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    // A pseudo-header field's name begins with a colon.
    let colon = text.get(1..)?.find(':')? + 1;
    let value = &text[colon + 1..];
    Some((unescape(&text[..colon]), unescape(value.strip_prefix(' ').unwrap_or(value))))
}

fn frame(text: &str) -> Option<Frame> {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (end, says) = rest.strip_prefix("end").map_or((false, rest), |says| (true, says.trim_start()));
    let code = || CODES.iter().position(|code| *code == rest)?.try_into().ok();
    Some(match kind {
        "headers" => Frame::Headers { fields: says.split(" | ").map(field).collect::<Option<_>>()?, end },
        "data" => Frame::Data { bytes: unescape(says), end },
        "reset" => Frame::Reset(code()?),
        "goaway" => Frame::GoAway(code()?),
        _ => return None,
    })
}

/// `\r`, `\n`, `\t`, `\0`, `\s` for a space at an end, `\xNN`, `\\`; `{x*90}` is ninety times x.
pub(super) fn unescape(text: &str) -> Vec<u8> {
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
                    b's' => b' ',
                    b'0' => 0,
                    other => *other,
                });
                after
            }
            (b'{', _) if let Some((unit, count, end)) = repeated(after) => {
                bytes.extend(unescape(unit).repeat(count));
                &after[end..]
            }
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    bytes
}

/// What follows a brace, if that is a repetition; and where it ends.
fn repeated(text: &[u8]) -> Option<(&str, usize, usize)> {
    let end = text.iter().position(|b| *b == b'}')?;
    let (unit, count) = str::from_utf8(&text[..end]).ok()?.rsplit_once('*')?;
    Some((unit, count.parse().ok()?, end + 1))
}
