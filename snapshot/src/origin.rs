//! Origins (RFC 6454), as browsers name them and as filters list them: one reading for operator and proxies.

use std::borrow::Cow;

/// An origin that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Whether its scheme is `https`; else it is `http`.
    pub tls: bool,
    /// The host as it is written, an IPv6 address in brackets.
    pub host: &'a str,
    /// The port, that of the scheme included.
    pub port: u16,
}

/// Origins that a filter lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Every origin, whatever its scheme.
    Any,
    /// Those of one scheme and port.
    Of {
        /// Whether the scheme is `https`; else it is `http`.
        tls: bool,
        /// The hosts.
        hosts: Hosts,
        /// The port.
        port: u16,
    },
}

/// Hosts of listed origins, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Every host.
    Any,
    /// Every host below this one, whose name begins with a dot here.
    Below(Box<str>),
    /// One host.
    One(Box<str>),
}

impl<'a> Origin<'a> {
    /// The origin of an `Origin` field. `None`: it is none of a page by HTTP, such as `null`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        Self::of(scheme, authority)
    }

    /// The origin of a URL, such as a `Referer` has.
    pub fn of_url(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        Self::of(scheme, rest.split(['/', '?', '#']).next().unwrap_or_default())
    }

    fn of(scheme: &str, authority: &'a str) -> Option<Self> {
        let tls = match scheme {
            scheme if scheme.eq_ignore_ascii_case("https") => true,
            scheme if scheme.eq_ignore_ascii_case("http") => false,
            _ => return None,
        };
        let (host, port) = host_and_port(authority, tls)?;
        Some(Self { tls, host, port })
    }

    /// Whether a request's `Host`, which came by TLS or not, is the one that this origin's pages have. A proxy before this one
    /// may have ended TLS, but none began it.
    pub fn is_of(&self, host: &str, tls: bool) -> bool {
        (self.tls || !tls)
            && host_and_port(host, self.tls)
                .is_some_and(|(host, port)| port == self.port && host.eq_ignore_ascii_case(self.host))
    }
}

impl Pattern {
    /// The origins that a text stands for: `*`, or an origin whose host may begin with `*.`, or be `*`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let Origin { tls, host, port } = Origin::parse(text)?;
        let host = host.to_ascii_lowercase();
        let hosts = match host.strip_prefix('*') {
            Some("") => Hosts::Any,
            Some(below) if below.starts_with('.') && below.len() > 1 => Hosts::Below(below.into()),
            Some(_) => return None,
            None => Hosts::One(host.into()),
        };
        let named = match &hosts {
            Hosts::Any => "",
            Hosts::Below(host) | Hosts::One(host) => host,
        };
        (!named.contains('*')).then_some(Self::Of { tls, hosts, port })
    }

    /// Whether an origin is one of these; `None`: that of a page that is none by HTTP.
    pub fn has(&self, origin: Option<&Origin<'_>>) -> bool {
        let (Self::Of { tls, hosts, port }, Some(origin)) = (self, origin) else { return *self == Self::Any };
        if (*tls, *port) != (origin.tls, origin.port) {
            return false;
        }
        // As browsers write it, but for clients that are none.
        let host: Cow<'_, str> = match origin.host.bytes().any(|b| b.is_ascii_uppercase()) {
            true => origin.host.to_ascii_lowercase().into(),
            false => origin.host.into(),
        };
        match hosts {
            Hosts::Any => true,
            Hosts::Below(below) => host.len() > below.len() && host.ends_with(&**below),
            Hosts::One(one) => *host == **one,
        }
    }
}

/// A host, an IPv6 address in its brackets, and its port: that of the scheme if it has none.
fn host_and_port(authority: &str, tls: bool) -> Option<(&str, u16)> {
    let end = match authority.starts_with('[') {
        true => authority.find(']')? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let fit = |b: u8| b.is_ascii_graphic() && !b"@/?#\\\"<>".contains(&b);
    if host.is_empty() || !host.bytes().all(fit) {
        return None;
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => {
            if tls {
                443
            } else {
                80
            }
        }
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    (port > 0).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, has: &[&str], lacks: &[&str]) {
        let pattern = Pattern::parse(pattern).unwrap();
        for origin in has {
            assert!(pattern.has(Origin::parse(origin).as_ref()), "{origin}");
        }
        for origin in lacks {
            assert!(!pattern.has(Origin::parse(origin).as_ref()), "{origin}");
        }
    }

    #[test]
    fn origins_that_are_listed() {
        check("*", &["https://a", "null", "chrome-extension://x"], &[]);
        check(
            "https://shop.example",
            &["https://shop.example", "https://shop.example:443", "https://Shop.Example", "HTTPS://shop.example"],
            &[
                "http://shop.example",
                "https://shop.example:8443",
                "https://www.shop.example",
                "https://shop.example.evil.example",
                "https://evil.example/https://shop.example",
                "https://shop.example@evil.example",
                "https://shop.example/",
                "https://shop.example:",
                "https://shop.example:0443443",
                "null",
                "",
            ],
        );
        check(
            "https://*.shop.example",
            &["https://a.shop.example", "https://a.b.shop.example"],
            &["https://shop.example", "https://.shop.example", "https://evilshop.example", "http://a.shop.example"],
        );
        check("http://*", &["http://a", "http://a.b:80", "http://[::1]"], &["https://a", "http://a:81"]);
        check("http://[::1]:3000", &["http://[::1]:3000"], &["http://[::1]", "http://[::2]:3000"]);
    }

    #[test]
    fn what_is_no_pattern() {
        for bad in
            ["", "null", "shop.example", "ftp://a", "https://", "https://a/", "https://a*", "https://*a", "https://*."]
        {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
        for bad in ["https://a.*", "https://*.*", "https://a:0", "https://a:65536", "https://a:x", "https://a@b", "**"]
        {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_own_host() {
        let is_of = |url: &str, host: &str, tls| Origin::of_url(url).is_some_and(|origin| origin.is_of(host, tls));
        for (url, host, tls) in [
            ("https://shop.example/cart?a=b#c", "shop.example", true),
            ("https://shop.example", "Shop.Example:443", true),
            // TLS was ended before this proxy.
            ("https://shop.example?a", "shop.example", false),
            ("http://shop.example:8080/", "shop.example:8080", false),
            ("http://[::1]:80/", "[::1]", false),
        ] {
            assert!(is_of(url, host, tls), "{url} {host} {tls}");
        }
        for (url, host, tls) in [
            ("http://shop.example/", "shop.example", true),
            ("https://shop.example:8443/", "shop.example", true),
            ("https://evil.example/shop.example", "shop.example", true),
            ("https://shop.example@evil.example/", "shop.example", true),
            ("https://evil.example\\@shop.example/", "shop.example", true),
            ("https:///shop.example", "shop.example", true),
            ("about:blank", "shop.example", false),
            ("", "", false),
        ] {
            assert!(!is_of(url, host, tls), "{url} {host} {tls}");
        }
    }
}
