//! The kinds of text that the resources hold: pattern and length for the schema, words for the people who got it wrong.
//!
//! The patterns follow Gateway API's where it has them. They are read by Go's RE2, by ECMA 262 and by `regex` alike, so
//! they use only what the three have in common.

use schemars::{Schema, SchemaGenerator, json_schema};

use crate::duration;

/// A kind of text.
pub(crate) struct Text {
    pattern: &'static str,
    max_length: u32,
    /// Completes "must be ...".
    words: &'static str,
}

const HOSTNAME: Text = Text {
    pattern: r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    max_length: 253,
    words: "a host name: lower-case letters, digits and '-' in labels separated by '.', with '*.' in front for all hosts \
            below a domain, and no port",
};
const HOSTNAME_OR_ALL: Text = Text {
    pattern: r"^(\*|(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)$",
    max_length: 253,
    words: "a host name in lower case, with '*.' in front for all hosts below a domain, or '*' alone for every host",
};
const LABEL: Text = Text {
    pattern: "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    max_length: 63,
    words: "a DNS label: lower-case letters, digits and '-', with a letter or digit first and last",
};
const SUBDOMAIN: Text = Text {
    pattern: r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    max_length: 253,
    words: "a DNS name: lower-case letters, digits, '-' and '.', with a letter or digit first and last",
};
/// RFC 9110 section 5.1.
const HEADER_NAME: Text = Text {
    pattern: r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$",
    max_length: 256,
    words: "a header field name: letters, digits and the signs !#$%&'*+-.^_`|~",
};
/// RFC 9110 section 5.6.2: a method, and what RFC 6265 takes for the name of a cookie.
const TOKEN: Text = Text {
    pattern: r"^[-A-Za-z0-9!#$%&'*+.^_\x60|~]+$",
    max_length: 64,
    words: "a method, or a cookie's name: letters, digits and the signs !#$%&'*+-.^_`|~",
};
/// RFC 9110 section 5.5 without the obsolete bytes above 0x7f; CR, LF and NUL would let a value smuggle in a field.
const HEADER_VALUE: Text = Text {
    pattern: r"^[!-~]([\t -~]*[!-~])?$",
    max_length: 4096,
    words: "a header field value: printable ASCII without line breaks, not empty, no space first or last",
};
/// RFC 6454 section 6.1, of the schemes that browsers have pages of. What a port is at most is for the planner to say.
const ORIGIN: Text = Text {
    pattern: concat!(
        r"^https?://(\*|(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*|\[[0-9a-f:.]{2,45}\])",
        "(:[1-9][0-9]{0,4})?$",
    ),
    max_length: 267,
    words: "an origin such as https://shop.example or http://localhost:3000, in lower case and without a path; '*.' in front of \
            the host is for all hosts below, '*' in its place for all of the scheme",
};
const ORIGIN_OR_ALL: Text = Text {
    pattern: concat!(
        r"^(\*|https?://(\*|(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*|\[[0-9a-f:.]{2,45}\])",
        "(:[1-9][0-9]{0,4})?)$",
    ),
    max_length: 267,
    words: "an origin such as https://shop.example or http://localhost:3000, in lower case and without a path; '*.' in front of \
            the host is for all hosts below, and '*' alone for every origin",
};
/// RFC 6838 section 4.2, or all of a type.
const MEDIA_RANGE: Text = Text {
    pattern: r"^[A-Za-z0-9][-A-Za-z0-9!#$&^_.+]*/(\*|[A-Za-z0-9][-A-Za-z0-9!#$&^_.+]*)$",
    max_length: 127,
    words: "a media type without parameters, such as application/json, or text/* for all of a type",
};
/// The value that a header or query parameter is compared with.
const MATCH_VALUE: Text =
    Text { pattern: r"^[^\x00\r\n]+$", max_length: 4096, words: "text without line breaks, not empty" };
const PARAMETER_NAME: Text = Text {
    pattern: r"^[^\x00-\x20&=#]+$",
    max_length: 256,
    words: "a name without spaces, '&', '=', '#' and control characters",
};
/// Path rules that depend on the type of a match are CEL.
const PATH: Text = Text {
    pattern: "^[!-~]+$",
    max_length: 1024,
    words: "a path such as /orders: no spaces, and other characters than ASCII percent-encoded",
};
const NEW_PATH: Text = Text {
    pattern: r"^/([-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*$",
    max_length: 1024,
    words: "a path: begins with '/', without '?', '#' and spaces, other characters percent-encoded",
};
const NEW_PREFIX: Text = Text {
    pattern: r"^(/([-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*)?$",
    max_length: 1024,
    words: "a path or empty: begins with '/', without '?', '#' and spaces, other characters percent-encoded",
};
const ADDRESS: Text = Text {
    pattern: r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9a-fA-F:.]{2,45}\]):[1-9][0-9]{0,4}$",
    max_length: 47,
    words: "an IP address and a port, such as 127.0.0.1:9000 or [::1]:9000 (a host name needs a Service)",
};
const QUANTITY: Text = Text {
    pattern: r"^[0-9]{1,15}(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$",
    max_length: 20,
    words: r#"a quantity in quotes, such as "4000", "4k" or "256Mi""#,
};
const DURATION: Text = Text {
    pattern: duration::PATTERN,
    max_length: 24,
    words: "a duration: one to four whole numbers of at most five digits, each with h, m, s or ms, such as 5s or 1m30s",
};
const TOLERANCE: Text = Text {
    pattern: r"^(0(\.[0-9]+)?|1|[0-9]{1,3}m)$",
    max_length: 8,
    words: r#"a fraction of at most 1 in quotes, such as "0.1" or "100m""#,
};

/// A label's key: `example.com/team`.
const QUALIFIED_NAME: Text = Text {
    pattern: r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
    max_length: 317,
    words: "a name of at most 63 letters, digits, '-', '_' and '.', with a DNS name and '/' in front if you like, such as \
            example.com/team",
};
const LABEL_VALUE: Text = Text {
    pattern: "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
    max_length: 63,
    words: "a label's value: at most 63 letters, digits, '-', '_' and '.', with a letter or digit first and last",
};
/// The text of a CIDR: whether it is one is for CEL's `isCIDR` to say.
const CIDR: Text =
    Text { pattern: "^[0-9a-f:.]+/[0-9]{1,3}$", max_length: 43, words: "a network such as 10.0.0.0/8 or fd00::/8" };
/// A group of API versions; empty: the one that Service and Secret are of.
const GROUP: Text = Text {
    pattern: r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$",
    max_length: 253,
    words: "an API group such as sluice.dev, or empty for that of Service and Secret",
};
const KIND: Text =
    Text { pattern: "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$", max_length: 63, words: "a kind, such as Service" };
/// A key within a Secret.
const SECRET_KEY: Text = Text {
    pattern: "^[-._a-zA-Z0-9]+$",
    max_length: 253,
    words: "a key of a Secret: letters, digits, '-', '_' and '.'",
};

const ALL: [&Text; 25] = [
    &HOSTNAME,
    &HOSTNAME_OR_ALL,
    &LABEL,
    &SUBDOMAIN,
    &HEADER_NAME,
    &TOKEN,
    &HEADER_VALUE,
    &ORIGIN,
    &ORIGIN_OR_ALL,
    &MEDIA_RANGE,
    &MATCH_VALUE,
    &PARAMETER_NAME,
    &PATH,
    &NEW_PATH,
    &NEW_PREFIX,
    &ADDRESS,
    &QUANTITY,
    &DURATION,
    &TOLERANCE,
    &QUALIFIED_NAME,
    &LABEL_VALUE,
    &CIDR,
    &GROUP,
    &KIND,
    &SECRET_KEY,
];

/// The words for what a pattern asks for, as the end of "must be ...".
pub(crate) fn words(pattern: &str) -> Option<&'static str> {
    ALL.iter().find(|text| text.pattern == pattern).map(|text| text.words)
}

impl Text {
    fn schema(&self) -> Schema {
        json_schema!({"type": "string", "pattern": self.pattern, "maxLength": self.max_length})
    }
}

// One function for each kind, as schemars' `schema_with` wants it.

pub(crate) fn hostname(_: &mut SchemaGenerator) -> Schema {
    HOSTNAME.schema()
}

/// A host name, a wildcard, or every host.
pub(crate) fn hostname_or_all(_: &mut SchemaGenerator) -> Schema {
    HOSTNAME_OR_ALL.schema()
}

/// A namespace, the name of a Service or of a limit.
pub(crate) fn label(_: &mut SchemaGenerator) -> Schema {
    LABEL.schema()
}

/// The name of an object, listener or rule; a host name without wildcard.
pub(crate) fn subdomain(_: &mut SchemaGenerator) -> Schema {
    SUBDOMAIN.schema()
}

pub(crate) fn header_name(_: &mut SchemaGenerator) -> Schema {
    HEADER_NAME.schema()
}

pub(crate) fn token(_: &mut SchemaGenerator) -> Schema {
    TOKEN.schema()
}

pub(crate) fn header_value(_: &mut SchemaGenerator) -> Schema {
    HEADER_VALUE.schema()
}

/// An origin, or all below a host or of a scheme.
pub(crate) fn origin(_: &mut SchemaGenerator) -> Schema {
    ORIGIN.schema()
}

/// The same, or every origin.
pub(crate) fn origin_or_all(_: &mut SchemaGenerator) -> Schema {
    ORIGIN_OR_ALL.schema()
}

/// A media type, or all of one type.
pub(crate) fn media_range(_: &mut SchemaGenerator) -> Schema {
    MEDIA_RANGE.schema()
}

pub(crate) fn match_value(_: &mut SchemaGenerator) -> Schema {
    MATCH_VALUE.schema()
}

pub(crate) fn parameter_name(_: &mut SchemaGenerator) -> Schema {
    PARAMETER_NAME.schema()
}

pub(crate) fn path(_: &mut SchemaGenerator) -> Schema {
    PATH.schema()
}

pub(crate) fn new_path(_: &mut SchemaGenerator) -> Schema {
    NEW_PATH.schema()
}

pub(crate) fn new_prefix(_: &mut SchemaGenerator) -> Schema {
    NEW_PREFIX.schema()
}

pub(crate) fn address(_: &mut SchemaGenerator) -> Schema {
    ADDRESS.schema()
}

pub(crate) fn quantity(_: &mut SchemaGenerator) -> Schema {
    QUANTITY.schema()
}

pub(crate) fn duration(_: &mut SchemaGenerator) -> Schema {
    DURATION.schema()
}

pub(crate) fn tolerance(_: &mut SchemaGenerator) -> Schema {
    TOLERANCE.schema()
}

pub(crate) fn qualified_name(_: &mut SchemaGenerator) -> Schema {
    QUALIFIED_NAME.schema()
}

pub(crate) fn label_value(_: &mut SchemaGenerator) -> Schema {
    LABEL_VALUE.schema()
}

pub(crate) fn cidr(_: &mut SchemaGenerator) -> Schema {
    CIDR.schema()
}

pub(crate) fn group(_: &mut SchemaGenerator) -> Schema {
    GROUP.schema()
}

pub(crate) fn kind(_: &mut SchemaGenerator) -> Schema {
    KIND.schema()
}

pub(crate) fn secret_key(_: &mut SchemaGenerator) -> Schema {
    SECRET_KEY.schema()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &Text, good: &[&str], bad: &[&str]) {
        let pattern = regex::Regex::new(text.pattern).unwrap();
        for value in good {
            assert!(pattern.is_match(value), "{value:?} should be {}", text.words);
        }
        for value in bad {
            assert!(!pattern.is_match(value), "{value:?} should not be {}", text.words);
        }
    }

    #[test]
    fn patterns() {
        check(
            &HOSTNAME,
            &["a", "a.b", "*.shop.example", "x-1.example"],
            &["", "*", "A.b", "a..b", "-a", "a:80", "a.*"],
        );
        check(&LABEL, &["a", "a-1"], &["a.b", "-a", "a-", "A", ""]);
        check(&SUBDOMAIN, &["a.b-c.d"], &["a..b", "a.", "a\n"]);
        check(&HEADER_NAME, &["X-Tier", "a`b|c"], &["", "a b", "a:b", "é", "a\r", ":path"]);
        check(&TOKEN, &["GET", "a`b|c"], &["", "a b", "a:b", "a=b", "a;b"]);
        check(&HEADER_VALUE, &["x", "a b\tc", "\"q\""], &["", " a", "a ", "a\r\nb: c", "a\0", "é"]);
        let origins = ["https://a", "http://*.a.b:81", "https://*", "http://[::1]:3000", "http://192.0.2.1"];
        let others = [
            "",
            "a",
            "ftp://a",
            "https://a/",
            "https://A",
            "https://*a",
            "https://a.*",
            "https://a:0",
            "https://a@b",
            "null",
        ];
        for text in [&ORIGIN, &ORIGIN_OR_ALL] {
            check(text, &origins, &others);
        }
        check(&ORIGIN, &[], &["*"]);
        check(&ORIGIN_OR_ALL, &["*"], &["**"]);
        check(
            &MEDIA_RANGE,
            &["text/html", "text/*", "application/vnd.api+json"],
            &["", "text", "*/*", "*", "text/", "/html", "text/html;a=b", "text/h*", "a/b/c"],
        );
        check(&MATCH_VALUE, &["é", " "], &["", "a\nb", "\0"]);
        check(&PARAMETER_NAME, &["q", "a[0]", "é"], &["", "a b", "a&b", "a=b"]);
        check(&PATH, &["/", "/a.*"], &["", "/a b", "/\n", "/é"]);
        check(&NEW_PATH, &["/", "/a%20b/c"], &["", "a", "/a?b", "/a#b", "/%2", "/a b"]);
        check(&NEW_PREFIX, &["", "/", "/v2"], &["v2", "/a?b"]);
        check(
            &ADDRESS,
            &["127.0.0.1:9000", "[::1]:80"],
            &["localhost:80", "::1:80", "1.2.3.4", "1.2.3.4:0", "[::1]:099999"],
        );
        check(&QUANTITY, &["4000", "4k", "256Mi", "1.5", "100m"], &["", "-1", "4 k", "1e3", "4K"]);
        check(&TOLERANCE, &["0", "0.1", "100m", "1"], &["", "1.5", "10%"]);
        check(
            &QUALIFIED_NAME,
            &["a", "A_b.c", "example.com/team", "a/B"],
            &["", "/a", "a/", "A/b", "a/b/c", "-a", "a b", &"a".repeat(64)],
        );
        check(&LABEL_VALUE, &["", "a", "A_b.c"], &["-a", "a b", "a/b", "."]);
        check(&CIDR, &["10.0.0.0/8", "fd00::/8", "::/0"], &["", "10.0.0.0", "10.0.0.0/", "FD00::/8", "a b/8"]);
        check(&GROUP, &["", "sluice.dev"], &["a..b", "A", "-"]);
        check(&KIND, &["Service"], &["", "9a", "a b"]);
        check(&SECRET_KEY, &["api-key", "A_b.c"], &["", "a/b", "a b"]);
        check(&DURATION, &["5s", "1h30m"], &["5", "1.5s", "5 s"]);
    }

    #[test]
    fn every_pattern_has_its_own_words() {
        for text in ALL {
            let first = ALL.iter().find(|other| other.pattern == text.pattern).unwrap();
            assert_eq!(first.words, text.words, "{}: two kinds of text share one pattern", text.pattern);
        }
    }
}
