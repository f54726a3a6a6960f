//! Where requests have their credentials, and how these are taken out.

use std::{borrow::Cow, collections::BTreeSet};

use http::{
    HeaderName, HeaderValue, Uri,
    header::COOKIE,
    uri::{Parts, PathAndQuery},
};
use jwt::MAX_TOKEN_BYTES;
use snapshot::{
    check::{Unfit, reason},
    credential::MAX_API_KEY,
    proto::{self, credential_source},
};

use crate::{
    fields::Names,
    lookup::{Lookup, decoded, is_plain},
    message::RequestHead,
};

/// Longest credential of any kind, in bytes.
const MAX_CREDENTIAL_BYTES: usize = if MAX_TOKEN_BYTES > MAX_API_KEY { MAX_TOKEN_BYTES } else { MAX_API_KEY };

/// A place that may hold a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The only field of a name.
    Header(HeaderName),
    /// The first parameter of a name, decoded.
    Query(Box<[u8]>),
    /// The first cookie of a name.
    Cookie(Box<[u8]>),
}

/// What a place holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Presented<T> {
    Nothing,
    One(T),
    /// More than one, of which others might read another one.
    Several,
}

impl<T> Presented<T> {
    /// What the first of some places holds that holds something. `alone`: no other one may, since all of it goes on.
    pub(super) fn first(places: &mut impl Iterator<Item = Self>, alone: bool) -> Self {
        let mut found = places.filter(|found| !matches!(found, Presented::Nothing));
        let first = found.next().unwrap_or(Presented::Nothing);
        if alone && found.next().is_some() { Presented::Several } else { first }
    }
}

/// Places whose credentials backends are not to get.
#[derive(Debug, Default)]
pub(super) struct Places {
    headers: Names,
    parameters: BTreeSet<Box<[u8]>>,
    cookies: BTreeSet<Box<[u8]>>,
}

impl Source {
    pub(super) fn compile(source: &proto::CredentialSource) -> Result<Self, Unfit> {
        Ok(match &source.source {
            Some(credential_source::Source::Header(name)) => {
                Self::Header(HeaderName::from_bytes(name.as_bytes()).map_err(|e| {
                    Unfit::new("header", reason::INVALID_HEADER, format!("{name:?} is no field name: {e}"))
                })?)
            }
            Some(credential_source::Source::Query(name)) => Self::Query(name.as_bytes().into()),
            Some(credential_source::Source::Cookie(name)) => Self::Cookie(name.as_bytes().into()),
            None => return Err(Unfit::new("", reason::UNKNOWN_PROVIDER, "a place that this version does not know")),
        })
    }

    /// The places of a list, which is that member of its provider.
    pub(super) fn compile_all(member: &str, sources: &[proto::CredentialSource]) -> Result<Box<[Self]>, Unfit> {
        let compile = |(i, source): (usize, &proto::CredentialSource)| {
            let within = |e: Unfit| Unfit { field: format!("{member}[{i}].{}", e.field), ..e };
            Self::compile(source).map_err(within)
        };
        sources.iter().enumerate().map(compile).collect()
    }

    /// Whether it is this header field.
    pub(super) fn is_header(&self, name: &HeaderName) -> bool {
        matches!(self, Self::Header(of) if of == name)
    }

    /// What a request has there. `alone`: it may have no other of that name, since backends get it, and might read that one.
    pub(super) fn presented<'a>(
        &self,
        head: &'a RequestHead,
        lookup: &Lookup<'a>,
        alone: bool,
    ) -> Presented<Cow<'a, [u8]>> {
        let found = match self {
            Self::Header(name) => {
                let mut values = head.fields.get_all(name);
                let first = values.next().map(Cow::from);
                if values.next().is_some() {
                    return Presented::Several;
                }
                first
            }
            Self::Query(name) if alone && lookup.repeats_parameter(name) => return Presented::Several,
            Self::Cookie(name) if alone && lookup.repeats_cookie(name) => return Presented::Several,
            Self::Query(name) => lookup.parameter(name).map(|raw| match is_plain(raw) {
                true => raw.as_bytes().into(),
                // No longer than what is no credential any more.
                false => decoded(raw).take(MAX_CREDENTIAL_BYTES + 1).collect(),
            }),
            Self::Cookie(name) => lookup.cookie(name).map(Cow::from),
        };
        found.map_or(Presented::Nothing, Presented::One)
    }
}

impl<'a> FromIterator<&'a Source> for Places {
    fn from_iter<T: IntoIterator<Item = &'a Source>>(sources: T) -> Self {
        let (mut places, mut headers) = (Self::default(), vec![]);
        for source in sources {
            match source {
                Source::Header(name) => headers.push(name),
                Source::Query(name) => drop(places.parameters.insert(name.clone())),
                Source::Cookie(name) => drop(places.cookies.insert(name.clone())),
            }
        }
        places.headers = headers.into_iter().collect();
        places
    }
}

impl Places {
    /// Takes out whatever a request has there: header fields also in spellings that some servers take for the same, parameters
    /// by their decoded names.
    pub(super) fn clear(&self, head: &mut RequestHead) {
        head.fields.remove_all_disguised(&self.headers);
        if let Some(uri) = self.without_parameters(&head.uri) {
            head.uri = uri;
        }
        if !self.cookies.is_empty() {
            self.clear_cookies(head);
        }
    }

    /// A URI without what stands in its query there; `None`: nothing does.
    pub(super) fn without_parameters(&self, uri: &Uri) -> Option<Uri> {
        let query = uri.query().filter(|_| !self.parameters.is_empty())?;
        let is_kept = |pair: &&str| {
            let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
            match is_plain(name) {
                true => !self.parameters.contains(name.as_bytes()),
                false => !self.parameters.contains(&*decoded(name).collect::<Vec<_>>()),
            }
        };
        if query.split('&').all(|pair| is_kept(&pair)) {
            return None;
        }
        let kept: Vec<&str> = query.split('&').filter(is_kept).collect();
        let target = match kept.is_empty() {
            true => uri.path().to_owned(),
            false => format!("{}?{}", uri.path(), kept.join("&")),
        };
        let mut parts = Parts::default();
        // A part of what was one before.
        parts.path_and_query = Some(PathAndQuery::try_from(target).unwrap_or_else(|_| PathAndQuery::from_static("/")));
        Some(Uri::from_parts(parts).unwrap_or_default())
    }

    fn clear_cookies(&self, head: &mut RequestHead) {
        let is_kept = |cookie: &&[u8]| {
            let name = cookie.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii();
            !self.cookies.contains(name)
        };
        let fields = || head.fields.get_all(&COOKIE);
        if fields().all(|field| field.split(|b| *b == b';').all(|cookie| is_kept(&cookie))) {
            return;
        }
        let kept = fields().flat_map(|field| field.split(|b| *b == b';').filter(is_kept).map(<[u8]>::trim_ascii));
        let kept = kept.filter(|cookie| !cookie.is_empty()).collect::<Vec<_>>().join(&b"; "[..]);
        head.fields.remove(&COOKIE);
        if !kept.is_empty()
            && let Ok(kept) = HeaderValue::from_bytes(&kept)
        {
            head.fields.append(COOKIE, kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(uri: &str, fields: &[(&'static str, &str)]) -> RequestHead {
        let mut request = Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        RequestHead::from(request.body(()).unwrap().into_parts().0)
    }

    fn presented(source: &Source, head: &RequestHead) -> Presented<String> {
        match source.presented(head, &Lookup::new(head.uri.query(), &head.fields), false) {
            Presented::Nothing => Presented::Nothing,
            Presented::Several => Presented::Several,
            Presented::One(key) => Presented::One(String::from_utf8_lossy(&key).into_owned()),
        }
    }

    #[test]
    fn what_a_request_presents() {
        let one = |key: &str| Presented::One(key.to_owned());
        let header = Source::Header(HeaderName::from_static("x-key"));
        assert_eq!(presented(&header, &head("/", &[])), Presented::Nothing);
        assert_eq!(presented(&header, &head("/", &[("x-key", "k")])), one("k"));
        assert_eq!(presented(&header, &head("/", &[("X-Key", "")])), one(""));
        assert_eq!(presented(&header, &head("/", &[("x-key", "k"), ("x-key", "k")])), Presented::Several);
        let query = Source::Query((*b"key").into());
        for (uri, expect) in [("/?key=k", "k"), ("/?a=1&%6bey=%6b%2B+&key=x", "k+ "), ("/?key", "")] {
            assert_eq!(presented(&query, &head(uri, &[])), one(expect), "{uri}");
        }
        assert_eq!(presented(&query, &head("/?keys=k", &[])), Presented::Nothing);
        let cookie = Source::Cookie((*b"key").into());
        assert_eq!(presented(&cookie, &head("/", &[("cookie", "a=1; key=k; key=x")])), one("k"));
        assert_eq!(presented(&cookie, &head("/", &[("cookie", "akey=k")])), Presented::Nothing);
    }

    #[test]
    fn what_is_taken_out() {
        let key: Box<[u8]> = (*b"key").into();
        let header = Source::Header(HeaderName::from_static("x-key"));
        let places: Places = [header, Source::Query(key.clone()), Source::Cookie(key)].iter().collect();
        for (uri, expect) in [
            ("/a?key=k", "/a"),
            ("/a?b=1&key=k&c=%41&key", "/a?b=1&c=%41"),
            ("/a?%6Bey=k&b", "/a?b"),
            ("/a?keys=k", "/a?keys=k"),
            ("/a?&key=1&", "/a?&"),
            ("/a?", "/a?"),
        ] {
            let mut head = head(uri, &[]);
            places.clear(&mut head);
            assert_eq!(head.uri.to_string(), expect, "{uri}");
        }
        let cookies = |cookies: &[&str]| {
            let fields: Vec<_> = cookies.iter().map(|value| ("cookie", *value)).collect();
            let mut head = head("/", &fields);
            places.clear(&mut head);
            head.fields.get_all(&COOKIE).map(|value| String::from_utf8_lossy(value).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(cookies(&["a=1; key=k;b=2", "key =x"]), ["a=1; b=2"]);
        assert_eq!(cookies(&["key=k"]), [""; 0]);
        assert_eq!(cookies(&["a=1 ;b=2"]), ["a=1 ;b=2"]);
        let mut head = head("/", &[("X-KEY", "k"), ("x_key", "k"), ("x-keys", "k")]);
        places.clear(&mut head);
        assert_eq!(head.fields.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(), [b"x-keys"]);
    }
}
