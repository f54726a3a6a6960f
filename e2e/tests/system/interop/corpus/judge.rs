//! What came of a case on one way: held to what the case says, and to what came of it on another way.

use super::{
    Fields, HOST, Way,
    case::{Case, unescape},
    client::Got,
    upstream::Seen,
};

/// What client and upstream got to see.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) got: Got,
    pub(super) seen: Vec<Seen>,
    /// How much of the request the upstream had seen by then is a matter of time.
    pub(super) races: bool,
}

/// What differs by itself from request to request or from way to way: what was asked is compared in other words.
const OF_REQUESTS: [&str; 5] = ["x-request-id", "x-forwarded-proto", "connection", "transfer-encoding", "expect"];
/// (A limit's `Retry-After` counts seconds; a backend's is what a case says.)
const OF_RESPONSES: [&str; 8] = [
    "x-request-id",
    "date",
    "connection",
    "transfer-encoding",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "content-length",
];

impl Outcome {
    /// What is not as the case has it.
    pub(super) fn judge(&self, case: &Case, way: Way) -> Vec<String> {
        let expect = case.expect(way);
        let mut wrong = vec![];
        let says = |word: &str| expect.iter().find(|(other, _)| other == word).map(|(_, says)| &**says);
        let mut hold = |what: &str, got: &str, expect: &str| {
            if got != expect {
                wrong.push(format!("{what} is {got:?}, not {expect:?}"));
            }
        };
        let refused = says("refused");
        hold("the verdict", &self.got.verdict, refused.or(says("gets")).unwrap_or("200"));
        let whole = self.seen.iter().filter(|seen| seen.whole).count();
        match (says("sees"), says("tries")) {
            (None, _) => hold("whole requests upstream", &whole.to_string(), "0"),
            (Some(_), Some("any")) => {}
            (Some(_), tries) => {
                hold("requests upstream", &self.seen.len().to_string(), tries.unwrap_or("1"));
                if !self.races {
                    hold("whole requests upstream", &whole.to_string(), tries.unwrap_or("1"));
                }
            }
        }
        let none = if refused.is_some() || self.got.fields.is_empty() { "" } else { "all" };
        let policy = says("policy").unwrap_or(none);
        hold("the policy", &quoted(&joined(&self.got.fields, "ratelimit-policy")), policy);
        hold("the limit", &quoted(&joined(&self.got.fields, "ratelimit")), policy);
        let id_is_sent = expect.iter().any(|(word, says)| word == "sees-field" && says.starts_with("x-request-id:"));
        for seen in &self.seen {
            if let Some(asked) = says("sees") {
                hold("the upstream's request", &seen.asked, &text(&unescape(asked)));
                let host = case.request.authority.as_deref().map_or(HOST.into(), text);
                hold("the upstream's host", &seen.host, says("sees-host").unwrap_or(&host));
                hold(
                    "x-forwarded-proto",
                    &joined(&seen.fields, "x-forwarded-proto"),
                    if way.tls { "https" } else { "http" },
                );
                hold(
                    "the client",
                    joined(&seen.fields, "x-forwarded-for").rsplit(", ").next().unwrap_or(""),
                    "127.0.0.1",
                );
                let id = joined(&seen.fields, "x-request-id");
                if !self.got.fields.is_empty() {
                    hold("the request's id", &joined(&self.got.fields, "x-request-id"), &id);
                }
                if !id_is_sent {
                    let digits = id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                    hold("the request's id", if digits { "ours" } else { &id }, "ours");
                }
            }
        }
        for (word, says) in &expect {
            let (name, value) = says.split_once(": ").unwrap_or((says.trim_end_matches(':'), ""));
            let value = text(&unescape(value));
            let (of_request, of_response) = (|seen: &Seen| joined(&seen.fields, name), joined(&self.got.fields, name));
            match &**word {
                "sees-field" => self.seen.iter().for_each(|seen| hold(name, &of_request(seen), &value)),
                "sees-no" => self.seen.iter().for_each(|seen| hold(name, &of_request(seen), "")),
                "sees-trailer" => {
                    self.seen.iter().for_each(|seen| hold(name, &joined(&seen.trailers, name), &value));
                }
                "sees-body" => {
                    let body = text(&unescape(says));
                    self.seen.iter().for_each(|seen| hold("the upstream's body", &text(&seen.body), &body));
                }
                "gets-field" => hold(name, &of_response, &value),
                "gets-no" => hold(name, &of_response, ""),
                "gets-trailer" => hold(name, &joined(&self.got.trailers, name), &value),
                "gets-body" => hold("the body", &text(&self.got.body), &text(&unescape(says))),
                "gets-hints" => {
                    let statuses: Vec<_> = self.got.hints.iter().map(|(status, _)| &**status).collect();
                    hold("interim responses", &statuses.join(" "), says);
                }
                "gets-hint" => {
                    let fields = self.got.hints.iter().flat_map(|(_, fields)| fields.clone()).collect();
                    hold(name, &joined(&fields, name), &value);
                }
                "h2-code" if way.client == 2 => hold("the code", self.got.code.as_deref().unwrap_or_default(), says),
                _ => {}
            }
        }
        wrong
    }

    /// What is not the same on two ways that are not said to differ.
    pub(super) fn differs(&self, other: &Outcome) -> impl Iterator<Item = String> {
        let (ours, theirs) = (self.essence(), other.essence());
        ours.into_iter()
            .zip(theirs)
            .filter(|(ours, theirs)| ours != theirs)
            .map(|(ours, theirs)| format!("not the same: {ours}\n    and {theirs}"))
    }

    /// All that is the same however it is sent, one thing after the other.
    fn essence(&self) -> Vec<String> {
        let Got { verdict, hints, fields, body, trailers, .. } = &self.got;
        let hints: Vec<_> = hints.iter().map(|(status, fields)| format!("{status} {}", listed(fields, &[]))).collect();
        let mut all = vec![
            format!("verdict {verdict}, interim {hints:?}"),
            format!("response fields {}", listed(fields, &OF_RESPONSES)),
            format!("response body {:?}", without_id(&text(body))),
            format!("response trailers {}", listed(trailers, &[])),
        ];
        if self.races {
            return all;
        }
        all.push(format!("requests upstream {}", self.seen.iter().filter(|seen| seen.whole).count()));
        // Of what broke off, what came of it is a matter of time.
        if let Some(seen) = self.seen.first().filter(|seen| seen.whole) {
            let Seen { asked, host, fields, body, trailers, .. } = seen;
            all.push(format!("request {asked:?} of {host:?}"));
            all.push(format!("request fields {}", listed(fields, &OF_REQUESTS)));
            all.push(format!("request body {:?}", text(body)));
            all.push(format!("request trailers {}", listed(trailers, &[])));
        }
        all
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The values of a name, one behind the other.
fn joined(fields: &Fields, name: &str) -> String {
    let values = fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
    values.map(|(_, value)| text(value)).collect::<Vec<_>>().join(" | ")
}

/// What stands in quotation marks: the names in a list of policies, or of limits.
fn quoted(list: &str) -> String {
    list.split('"').skip(1).step_by(2).collect::<Vec<_>>().join(" ")
}

/// Fields by name, those of one name in their order.
fn listed(fields: &Fields, without: &[&str]) -> String {
    let mut lines: Vec<_> = fields.iter().map(|(name, value)| (text(name), text(value))).collect();
    lines.retain(|(name, _)| !without.contains(&&**name));
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    format!("{lines:?}")
}

/// Of the proxy's own responses the request's id is another each time.
fn without_id(body: &str) -> &str {
    body.split("\"requestId\"").next().unwrap_or_default()
}
