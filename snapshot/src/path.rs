//! The one form of a request's path: what routes are compared with, and what the upstream gets. Operator and proxy share
//! it, so that a path of a route is in the form that requests have when they are compared.
//!
//! Two spellings that every server reads as the same path become one: percent-encoded unreserved characters are decoded
//! (RFC 3986 section 6.2.2.2), what no path may hold as it is, such as UTF-8 and quotes, is percent-encoded, hexadecimal
//! digits are upper case, dot segments are resolved (section 5.2.4). What servers read differently is refused or, where
//! they are known to need it, up to the fleet: [`Rules`].

use std::borrow::Cow;

use crate::proto::{self, PathParameters};

/// The rules of reading paths that are up to the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The meaning of `;` in a segment.
    pub parameters: PathParameters,
    /// `%2F` is part of a segment; else it is refused.
    pub keep_escaped_slashes: bool,
    /// `//` is another path than `/`; else it is the same.
    pub keep_empty_segments: bool,
}

impl Rules {
    /// The rules for the path of a route, which may be on several fleets: nothing is decided.
    pub const OF_ROUTES: Self =
        Self { parameters: PathParameters::Keep, keep_escaped_slashes: true, keep_empty_segments: true };

    /// Whether no request has this path, which is in the one form; and why.
    pub fn never(self, path: &str) -> Option<&'static str> {
        match self.parameters {
            PathParameters::Strip if path.contains(';') => Some(
                "';' and what follows it in a segment is left out before paths are compared (spec.paths.parameters)",
            ),
            PathParameters::Reject if path.contains(';') => Some("';' is refused (spec.paths.parameters)"),
            _ if !self.keep_escaped_slashes && path.contains("%2F") => {
                Some("'%2F' is refused (spec.paths.escapedSlashes)")
            }
            _ => None,
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        proto::Paths::default().into()
    }
}

impl From<proto::Paths> for Rules {
    fn from(paths: proto::Paths) -> Self {
        Self {
            parameters: paths.parameters(),
            keep_escaped_slashes: paths.keep_escaped_slashes,
            keep_empty_segments: paths.keep_empty_segments,
        }
    }
}

/// The bytes that a path holds most often and may hold as they are (RFC 3986 section 3.3): without `%`, and without `;`,
/// which is up to the fleet.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = is_unreserved(b)
            || matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' | b'/')
            // No path may, and yet there are clients that do not encode it, and servers that take it as it is.
            || matches!(b, b'[' | b']');
        byte += 1;
    }
    table
};

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The one form of a path; `None`: servers could read it differently, or it is none.
pub fn normal(path: &str, rules: Rules) -> Option<Cow<'_, str>> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return None;
    }
    // Most paths are plain, have no empty segment, and are done here.
    let suspect = |w: &[u8]| !PLAIN[usize::from(w[0])] || w[0] == b'/' && matches!(w[1], b'/' | b'.');
    if !bytes.windows(2).any(suspect) && bytes.last().is_none_or(|last| PLAIN[usize::from(*last)]) {
        return Some(path.into());
    }
    let normal = String::from_utf8(rewritten(bytes, rules)?).ok()?;
    Some(if normal == path { path.into() } else { normal.into() })
}

/// The path in the one form, made in one pass over its bytes.
fn rewritten(path: &[u8], rules: Rules) -> Option<Vec<u8>> {
    let mut normal = Vec::with_capacity(path.len());
    normal.push(b'/');
    // Where the segment under way begins.
    let mut segment = 1;
    let mut rest = path.get(1..)?;
    // The last byte beyond ASCII, while they follow one another: overlong UTF-8 shows in the second byte.
    let mut before = None;
    loop {
        rest = match rest {
            [] => return end_segment(&mut normal, segment, rules).map(|_| normal),
            [b'/', after @ ..] => {
                let is_whole = end_segment(&mut normal, segment, rules)?;
                let is_empty = normal.len() == segment;
                if is_whole && (!is_empty || rules.keep_empty_segments) {
                    normal.push(b'/');
                }
                (segment, before) = (normal.len(), None);
                after
            }
            [b'\\', ..] => return None,
            [b';', ..] if rules.parameters == PathParameters::Reject => return None,
            [b'%', high, low, after @ ..] => {
                let byte = hex(*high)? << 4 | hex(*low)?;
                let slash = byte == b'/' && !rules.keep_escaped_slashes;
                if slash || is_overlong(before, byte) || matches!(byte, 0 | b'\\') {
                    return None;
                }
                if is_unreserved(byte) {
                    normal.push(byte);
                } else {
                    encode(&mut normal, byte);
                }
                before = Some(byte);
                after
            }
            [b'%', ..] => return None,
            [byte, after @ ..] if PLAIN[usize::from(*byte)] || *byte == b';' => {
                normal.push(*byte);
                before = None;
                after
            }
            [byte, after @ ..] => {
                if is_overlong(before, *byte) {
                    return None;
                }
                encode(&mut normal, *byte);
                before = Some(*byte);
                after
            }
        };
    }
}

/// Resolves the last segment if it is one of dots; whether it stays. `None`: it leads above the root, or servers read it
/// differently.
fn end_segment(normal: &mut Vec<u8>, segment: usize, rules: Rules) -> Option<bool> {
    let last = &normal[segment..];
    let name = memchr::memchr(b';', last).map_or(last, |end| &last[..end]);
    if rules.parameters != PathParameters::Keep && name.len() < last.len() && matches!(name, b"." | b"..") {
        // Servlets read `..;` as `..`, others as a name.
        return None;
    }
    match last {
        b"." => normal.truncate(segment),
        b".." => {
            let parent = memchr::memrchr(b'/', normal.get(..segment.checked_sub(1)?)?)?;
            normal.truncate(parent + 1);
        }
        _ => return Some(true),
    }
    Some(false)
}

/// The path that routes are compared with, of one in the one form.
pub fn matched(path: &str, rules: Rules) -> Cow<'_, str> {
    if rules.parameters != PathParameters::Strip || !path.contains(';') {
        return path.into();
    }
    let mut matched = String::with_capacity(path.len());
    without_parameters(path, rules, |part| {
        matched.push_str(part);
        true
    });
    matched.into()
}

/// The bytes of a path in the one form that the first `length` bytes of its [`matched`] are, with the parameters of the last
/// segment that they have a part in.
pub fn spanned(path: &str, rules: Rules, length: usize) -> usize {
    if rules.parameters != PathParameters::Strip || !path.contains(';') {
        return length;
    }
    let (mut left, mut end) = (length, 0);
    without_parameters(path, rules, |part| {
        let taken = left.min(part.len());
        left -= taken;
        end = part.as_ptr() as usize - path.as_ptr() as usize + taken;
        left > 0
    });
    let rest = &path[end..];
    if rest.starts_with(';') { end + rest.find('/').unwrap_or(rest.len()) } else { end }
}

/// Calls with each part of the path that is no parameter, until `go_on` says no.
fn without_parameters<'p>(path: &'p str, rules: Rules, mut go_on: impl FnMut(&'p str) -> bool) {
    let mut after_slash = false;
    for segment in path.split_inclusive('/') {
        let (name, slash) = segment.strip_suffix('/').map_or((segment, ""), |name| (name, &segment[name.len()..]));
        let plain = name.find(';').map_or(name, |end| &name[..end]);
        if !plain.is_empty() && !go_on(plain) {
            return;
        }
        // What is left of a segment of parameters alone is an empty one.
        let merged = plain.is_empty() && after_slash && !rules.keep_empty_segments;
        if !slash.is_empty() && !merged && !go_on(slash) {
            return;
        }
        after_slash = !slash.is_empty();
    }
}

/// The reason why no path in the one form matches an expression, as far as its text shows: it spells something that they
/// never have.
pub fn unmatched(expression: &str) -> Option<String> {
    let bytes = expression.as_bytes();
    for (at, _) in expression.match_indices('%') {
        let &[_, high, low] = bytes.get(at..at + 3)? else { continue };
        let (Some(h), Some(l)) = (hex(high), hex(low)) else { continue };
        let (byte, text) = (h << 4 | l, &expression[at..at + 3]);
        if is_unreserved(byte) {
            let character = char::from(byte);
            return Some(format!("requests have {character:?} where this has {text:?}: write it so"));
        }
        if text.bytes().any(|b| b.is_ascii_lowercase()) && !expression.contains("(?i") {
            return Some(format!("requests have {:?} where this has {text:?}: write it so", text.to_uppercase()));
        }
    }
    None
}

/// Writes a byte percent-encoded, in upper case (RFC 3986 section 6.2.2.1).
pub fn encode(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Whether a byte makes overlong UTF-8 of what is before it: another spelling of a shorter character.
fn is_overlong(before: Option<u8>, byte: u8) -> bool {
    matches!(byte, 0xc0 | 0xc1) || matches!((before, byte), (Some(0xe0), 0x80..0xa0) | (Some(0xf0), 0x80..0x90))
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(path: &str, rules: Rules, expect: Option<&str>) {
        assert_eq!(normal(path, rules).as_deref(), expect, "{path}");
    }

    #[test]
    fn one_form() {
        let rules = Rules::default();
        for good in ["/", "/a", "/a.b/..c/.d/...", "/a%20b", "/%C3%A9", "/%E2%82%AC", "/%FF", "/a;b=c/d", "/[a]"] {
            check(good, rules, Some(good));
            assert!(matches!(normal(good, rules), Some(Cow::Borrowed(_))), "{good}");
        }
        check("/%61dmin", rules, Some("/admin"));
        check("//admin", rules, Some("/admin"));
        check("/a///b//", rules, Some("/a/b/"));
        check("/%7euser/%2e%2E%2e/%c3%a9", rules, Some("/~user/.../%C3%A9"));
        check("/caf\u{e9}", rules, Some("/caf%C3%A9"));
        check("/\"a\"/{b}|^", rules, Some("/%22a%22/%7Bb%7D%7C%5E"));
        for bad in
            ["", "a", "/a%00", "/a\\b", "/a%5c..%5cb", "/a%2fb", "/a%2Fb", "/%c0%af", "/%e0%80%af", "/%f0%80%80%af"]
        {
            check(bad, rules, None);
        }
        for bad in ["/%", "/%4", "/%zz", "/a/%"] {
            check(bad, rules, None);
        }
    }

    #[test]
    fn dots() {
        let rules = Rules::default();
        for (path, resolved) in [
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/b/%2e%2E/c", "/a/c"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/.", "/"),
            ("/a//../b", "/b"),
            ("/a/b/../../c/", "/c/"),
        ] {
            check(path, rules, Some(resolved));
        }
        for above in ["/..", "/../a", "/a/../..", "/a/../../b", "/%2e%2e/a", "//../a"] {
            check(above, rules, None);
        }
        let kept = Rules { keep_empty_segments: true, ..rules };
        check("/a//../b", kept, Some("/a/b"));
        check("//a", kept, Some("//a"));
        check("//../a", kept, Some("/a"));
    }

    #[test]
    fn what_is_up_to_the_fleet() {
        let with = |parameters| Rules { parameters, ..Rules::default() };
        let [strip, keep, reject] = [PathParameters::Strip, PathParameters::Keep, PathParameters::Reject].map(with);
        for path in ["/public/..;/admin", "/public/..;a=b/admin", "/.;/a", "/a/%2e%2e;"] {
            check(path, strip, None);
            check(path, reject, None);
        }
        check("/public/..;/admin", keep, Some("/public/..;/admin"));
        check("/a;b/c", reject, None);
        for (path, matches) in [
            ("/admin;a=b/x", "/admin/x"),
            ("/a;/b;c", "/a/b"),
            ("/;x/admin", "/admin"),
            ("/a/;x/b", "/a/b"),
            ("/a/;x", "/a/"),
            ("/a", "/a"),
        ] {
            assert_eq!(normal(path, strip).as_deref(), Some(path));
            assert_eq!(matched(path, strip), matches, "{path}");
            assert_eq!(matched(path, keep), path);
        }
        let slashes = Rules { keep_escaped_slashes: true, ..Rules::default() };
        check("/a%2fb%2F..", slashes, Some("/a%2Fb%2F.."));
        check("/a%5Cb", slashes, None);
    }

    #[test]
    fn a_prefix_spans_its_parameters() {
        let rules = Rules::default();
        for (path, length, rest) in [
            ("/admin;a=b/x", "/admin".len(), "/x"),
            ("/a;1/b;2/c", "/a/b".len(), "/c"),
            ("/a;1/b;2", "/a/b".len(), ""),
            ("/a;1/b", "/a/".len(), "b"),
            ("/;x/admin/y", "/admin".len(), "/y"),
            ("/a/b", 2, "/b"),
        ] {
            assert_eq!(&path[spanned(path, rules, length)..], rest, "{path}");
        }
    }

    #[test]
    fn expressions_that_spell_what_no_path_has() {
        for (expression, told) in [
            ("/%7Euser/.*", Some("~")),
            ("/caf%c3%a9", Some("%C3")),
            ("(?i)/caf%c3%A9", None),
            ("/caf%C3%A9", None),
            ("/a%[0-9A-F]{2}", None),
            ("/50%", None),
        ] {
            let got = unmatched(expression);
            assert_eq!(got.is_some(), told.is_some(), "{expression}: {got:?}");
            assert!(got.unwrap_or_default().contains(told.unwrap_or_default()), "{expression}");
        }
    }

    fn rules() -> impl Strategy<Value = Rules> {
        let parameters =
            prop_oneof![Just(PathParameters::Strip), Just(PathParameters::Keep), Just(PathParameters::Reject)];
        (parameters, any::<bool>(), any::<bool>()).prop_map(
            |(parameters, keep_escaped_slashes, keep_empty_segments)| Rules {
                parameters,
                keep_escaped_slashes,
                keep_empty_segments,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// What is in the one form stays as it is, whatever form it had; nothing that servers read differently is left.
        #[test]
        fn it_is_one(path in "/([a./;%\\\\é\"]|%2[eEfF3]|%7[eE]){0,12}", rules in rules()) {
            if let Some(one) = normal(&path, rules) {
                let again = normal(&one, rules);
                prop_assert_eq!(again.as_deref(), Some(&*one));
                prop_assert!(one.is_ascii() && !one.contains('\\'));
                prop_assert!(!one.split('/').any(|segment| matches!(segment, "." | "..")));
                let compared = matched(&one, rules);
                prop_assert!(rules.parameters == PathParameters::Keep || !compared.contains(';'));
                prop_assert!(rules.keep_empty_segments || !compared.contains("//"));
                prop_assert!(compared.starts_with('/'));
                if rules.parameters != PathParameters::Keep {
                    prop_assert!(!compared.split('/').any(|segment| matches!(segment, "." | "..")));
                }
                for length in 0..=compared.len() {
                    prop_assert!(spanned(&one, rules, length) <= one.len());
                }
            }
        }
    }
}
