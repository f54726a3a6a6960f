//! What a request says under a name: parameters of its query, cookies, header fields.
//!
//! The first questions are answered by looking through all that there is. Once that came to some KiB, there is an
//! index: clients choose how much there is, tenants how often it is asked for, and what a request costs is the sum of
//! both, never their product.

use std::{
    borrow::Cow,
    cell::{Cell, OnceCell},
    hash::BuildHasher,
};

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};
use http::header::COOKIE;
use percent_encoding::percent_decode;

use crate::fields::Fields;

/// Bytes that are looked through, for one kind of question, before there is an index: what an index of a small request
/// costs.
const FEW: usize = 2 << 10;
/// The cost of a field, in bytes looked through.
const OF_FIELD: usize = 16;

/// The parameters, cookies and fields of a request, by name.
pub(crate) struct Lookup<'a> {
    query: &'a str,
    fields: &'a Fields,
    parameters: Asked<'a>,
    cookies: Asked<'a>,
    by_name: Asked<'a>,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(query: Option<&'a str>, fields: &'a Fields) -> Self {
        let [parameters, cookies, by_name] = [(); 3].map(|()| Asked::default());
        Self { query: query.unwrap_or_default(), fields, parameters, cookies, by_name }
    }

    /// The first parameter of that name, its value as it came. A repeated name counts once.
    pub(crate) fn parameter(&self, name: &[u8]) -> Option<&'a str> {
        let index = || Index::of_first(parameters(self.query).map(decoded_name));
        let value = match self.parameters.index(|| self.query.len(), index) {
            Some(index) => index.all(name).next()?,
            None => return parameter(self.query, name),
        };
        // It was text before.
        str::from_utf8(value).ok()
    }

    /// The first cookie of that name.
    pub(crate) fn cookie(&self, name: &[u8]) -> Option<&'a [u8]> {
        let cookies = || self.fields.get_all(&COOKIE).flat_map(cookies);
        // What is indexed are names up to the first `=`.
        let size = || self.fields.get_all(&COOKIE).map(<[u8]>::len).sum();
        match self.cookies.index(size, || Index::of_first(cookies().filter_map(named))) {
            Some(index) if !name.contains(&b'=') => index.all(name).next(),
            _ => cookies().find_map(|cookie| cookie.strip_prefix(name)?.strip_prefix(b"=")),
        }
    }

    /// Whether several parameters have that name; all are looked through.
    pub(crate) fn repeats_parameter(&self, name: &[u8]) -> bool {
        parameters(self.query).filter(|(raw, _)| is_named(raw, name)).nth(1).is_some()
    }

    /// Whether several cookies have that name; all are looked through.
    pub(crate) fn repeats_cookie(&self, name: &[u8]) -> bool {
        let cookies = self.fields.get_all(&COOKIE).flat_map(cookies).filter_map(named);
        cookies.filter(|(of, _)| of.trim_ascii() == name).nth(1).is_some()
    }

    /// Whether a field of that name, which is in lower case, has such a value.
    pub(crate) fn any_field(&self, name: &str, such: impl FnMut(&'a [u8]) -> bool) -> bool {
        let index = || Index::of_all(self.fields.iter().map(|(name, value)| (lower(name), value)));
        match self.by_name.index(|| OF_FIELD * self.fields.len(), index) {
            Some(index) => index.all(name.as_bytes()).any(such),
            None => self.fields.get_all(name).any(such),
        }
    }
}

/// Decodes `application/x-www-form-urlencoded` text, byte by byte.
pub(crate) fn decoded(raw: &str) -> impl Iterator<Item = u8> + '_ {
    let mut plain = raw.split('+').map(|part| percent_decode(part.as_bytes()));
    let first = plain.next().into_iter().flatten();
    first.chain(plain.flat_map(|part| std::iter::once(b' ').chain(part)))
}

/// Whether a value stands for itself.
pub(crate) fn is_plain(raw: &str) -> bool {
    memchr::memchr2(b'%', b'+', raw.as_bytes()).is_none()
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The first parameter of that name, found by looking.
fn parameter<'a>(query: &'a str, name: &[u8]) -> Option<&'a str> {
    let mut rest = query;
    loop {
        // Its first byte tells most of what is no such parameter, and of it no more is looked at than where it ends.
        let first = *rest.as_bytes().first()?;
        if first == b'&' {
            rest = &rest[1..];
            continue;
        }
        let end = memchr::memchr(b'&', rest.as_bytes()).unwrap_or(rest.len());
        let pair = &rest[..end];
        let may_be = name.first().is_none_or(|wanted| first == *wanted) || matches!(first, b'%' | b'+');
        if may_be && pair.len() >= name.len() {
            let (raw, value) = pair.split_once('=').unwrap_or((pair, ""));
            if is_named(raw, name) {
                return Some(value);
            }
        }
        rest = rest.get(end + 1..)?;
    }
}

/// Lengths first: no encoding is shorter than what it stands for, none more than three times as long.
fn is_named(raw: &str, name: &[u8]) -> bool {
    match raw.len() {
        length if length < name.len() || length > 3 * name.len() => false,
        _ if is_plain(raw) => raw.as_bytes() == name,
        _ => decoded(raw).eq(name.iter().copied()),
    }
}

fn decoded_name<'a>((raw, value): (&'a str, &'a str)) -> (Cow<'a, [u8]>, &'a [u8]) {
    let name = if is_plain(raw) { raw.as_bytes().into() } else { decoded(raw).collect::<Vec<_>>().into() };
    (name, value.as_bytes())
}

fn cookies(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|b| *b == b';').map(<[u8]>::trim_ascii)
}

fn named(cookie: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let equals = memchr::memchr(b'=', cookie)?;
    Some((cookie[..equals].into(), &cookie[equals + 1..]))
}

fn lower(name: &[u8]) -> Cow<'_, [u8]> {
    if name.iter().any(u8::is_ascii_uppercase) { name.to_ascii_lowercase().into() } else { name.into() }
}

/// The effort spent on one kind of question, and the index once that was enough.
#[derive(Default)]
struct Asked<'a> {
    looked: Cell<usize>,
    index: OnceCell<Index<'a>>,
}

impl<'a> Asked<'a> {
    /// For a question that means looking through so much.
    fn index(&self, size: impl FnOnce() -> usize, make: impl FnOnce() -> Index<'a>) -> Option<&Index<'a>> {
        let looked = self.looked.get();
        if looked < FEW {
            self.looked.set(looked + size());
            return None;
        }
        Some(self.index.get_or_init(make))
    }
}

/// Values by name.
#[derive(Default)]
struct Index<'a> {
    state: RandomState,
    /// First and last place of each name.
    names: HashTable<(usize, usize)>,
    values: Vec<Value<'a>>,
}

struct Value<'a> {
    name: Cow<'a, [u8]>,
    value: &'a [u8],
    /// Place of the next of that name.
    next: Option<usize>,
}

impl<'a> Index<'a> {
    /// An index of the first value of each name.
    fn of_first(values: impl Iterator<Item = (Cow<'a, [u8]>, &'a [u8])>) -> Self {
        Self::of(values, false)
    }

    /// An index of all values of each name, in their order.
    fn of_all(values: impl Iterator<Item = (Cow<'a, [u8]>, &'a [u8])>) -> Self {
        Self::of(values, true)
    }

    fn of(all: impl Iterator<Item = (Cow<'a, [u8]>, &'a [u8])>, repeated: bool) -> Self {
        let mut index = Self::default();
        for (name, value) in all {
            let Self { state, names, values } = &mut index;
            let (place, hash) = (values.len(), state.hash_one(&*name));
            let same = |(first, _): &(usize, usize)| values[*first].name == name;
            match names.entry(hash, same, |(first, _)| state.hash_one(&*values[*first].name)) {
                Entry::Occupied(_) if !repeated => continue,
                Entry::Occupied(mut places) => {
                    let (_, last) = places.get_mut();
                    let before = std::mem::replace(last, place);
                    values[before].next = Some(place);
                }
                Entry::Vacant(free) => drop(free.insert((place, place))),
            }
            values.push(Value { name, value, next: None });
        }
        index
    }

    fn all(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let same = |(first, _): &(usize, usize)| *self.values[*first].name == *name;
        let first = self.names.find(self.state.hash_one(name), same).map(|(first, _)| &self.values[*first]);
        std::iter::successors(first, |value| Some(&self.values[value.next?])).map(|value| value.value)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::{prelude::*, sample::select};

    use super::*;

    fn fields(of: &[(&'static str, String)]) -> Fields {
        of.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::try_from(value).unwrap())).collect()
    }

    /// The same as [`Lookup`] was before there was an index.
    fn naive<'a>(query: &'a str, fields: &'a Fields, name: &str) -> (Option<&'a str>, Option<&'a [u8]>, Vec<&'a [u8]>) {
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let parameter = pairs.find(|(raw, _)| decoded(raw).eq(name.bytes())).map(|(_, value)| value);
        let mut cookies = fields.get_all(&COOKIE).flat_map(|v| v.split(|b| *b == b';')).map(<[u8]>::trim_ascii);
        let cookie = cookies.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        (parameter, cookie, fields.get_all(name).collect())
    }

    fn text(of: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
        proptest::collection::vec(select(of), 0..most).prop_map(|parts| parts.concat())
    }

    proptest! {
        /// However often one asks, and whatever for, the answer is what one would find by looking.
        #[test]
        fn an_index_answers_as_looking_does(
            query in text(&["&", "=", "a", "b", "ab", "%61", "%", "+", "%2b", "%6", "x=1", "&a=2", "&b+b="], 20),
            cookie in text(&[";", "; ", "=", "a", "b", "ab", " ", "a=1", ";b=2", "a b=3"], 20),
            others in proptest::collection::vec((select(&["a", "b", "ab", "cookie"][..]), "[0-9]{0,2}"), 0..8),
        ) {
            let mut all = vec![("cookie", cookie)];
            all.extend(others);
            let fields = fields(&all);
            let lookup = Lookup::new(Some(&query), &fields);
            for round in 0..60 {
                for name in ["a", "b", "ab", "a b", "b b", "a+", "+", "x", "cookie", "c", "a=b"] {
                    let (parameter, cookie, values) = naive(&query, &fields, name);
                    prop_assert_eq!(lookup.parameter(name.as_bytes()), parameter, "{} {}", name, round);
                    prop_assert_eq!(lookup.cookie(name.as_bytes()), cookie, "{} {}", name, round);
                    let mut seen = vec![];
                    lookup.any_field(name, |value| {
                        seen.push(value);
                        false
                    });
                    prop_assert_eq!(seen, values, "{} {}", name, round);
                }
            }
        }
    }
}
