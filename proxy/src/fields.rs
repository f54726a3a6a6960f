//! The header fields of one message on its way through.
//!
//! Those of a head of HTTP/1.1 stay where they were read: each is four numbers, and what nobody asks for is not looked
//! at again until it is copied to the other side. What is set on the way stands beside them. A map of hashed names and
//! counted values would cost more than all the rest of a request's parsing, for a dozen fields of which most only pass.
//!
//! Names are compared without regard to case. Fields of one name keep their order (RFC 9110 section 5.3).

use std::{cell::RefCell, ops::Range};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Most fields whose memory is kept.
const MAX_KEPT_FIELDS: usize = 64;
/// Most [`Fields`] that a thread keeps: they are held while the upstream takes its time.
const MAX_KEPT: usize = 1024;

thread_local! {
    /// Memory that messages borrow, as `http1/buffers.rs` has it for what is read and written.
    static KEPT: RefCell<Vec<Fields>> = const { RefCell::new(Vec::new()) };
}

/// No fields, and memory for some.
pub(crate) fn take() -> Fields {
    // Without any when the thread is about to end.
    KEPT.try_with(|kept| kept.borrow_mut().pop()).ok().flatten().unwrap_or_default()
}

/// Gives their memory back.
pub(crate) fn give_back(mut fields: Fields) {
    fields.clear();
    if (1..MAX_KEPT_FIELDS).contains(&fields.capacity()) {
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MAX_KEPT {
                kept.push(fields);
            }
        });
    }
}

/// Header fields, in the order in which they came and were set.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    head: Bytes,
    spans: Vec<Span>,
    set: Vec<(HeaderName, HeaderValue)>,
}

/// The span of a field in the head. Heads are bounded far below what `u32` holds.
#[derive(Clone, Copy, Debug)]
struct Span {
    name: u32,
    colon: u32,
    value: u32,
    end: u32,
}

/// A name that several fields have, where one is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeated;

/// Names of fields, without regard to case and to what servers of the CGI family take for the same: dashes written as
/// underscores.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<Box<[u8]>>);

/// A field's name and value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
    /// The line as it came, if it is what would be written: `name: value` and its end.
    pub(crate) line: Option<&'a [u8]>,
    /// Whether it came with a head of HTTP/1.1.
    pub(crate) parsed: bool,
}

impl Fields {
    /// Attaches the buffer that the spans added by [`Fields::parsed`] point into. Must be called before any look-up.
    pub(crate) fn attach_buffer(&mut self, head: Bytes) {
        self.head = head;
    }

    /// Adds the span of a field in the head: its name, a token, and its value without control characters.
    pub(crate) fn parsed(&mut self, name: Range<usize>, value: Range<usize>) {
        let [name, colon, value, end] = [name.start, name.end, value.start, value.end].map(|at| at as u32);
        self.spans.push(Span { name, colon, value, end });
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.spans.len() + self.set.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first value.
    pub fn get(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Option<&[u8]> {
        let name = name.as_ref();
        match self.spans.iter().find(|at| self.is_named(at, name)) {
            Some(at) => Some(self.part(at.value, at.end)),
            None => self.set.iter().find(|(other, _)| is_same(other, name)).map(|(_, value)| value.as_bytes()),
        }
    }

    /// Every value of a name. `for_each` is the fast way through them: it does not look at each step for where it is.
    pub fn get_all<'s>(&'s self, name: &(impl AsRef<[u8]> + ?Sized)) -> impl DoubleEndedIterator<Item = &'s [u8]> {
        let name = name.as_ref();
        let came = self.spans.iter().filter(move |at| self.is_named(at, name));
        let set = self.set.iter().filter(move |(other, _)| is_same(other, name));
        came.map(|at| self.part(at.value, at.end)).chain(set.map(|(_, value)| value.as_bytes()))
    }

    /// The first value, shared with the head that it came in.
    pub(crate) fn get_shared(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Option<Bytes> {
        match self.spans.iter().find(|at| self.is_named(at, name.as_ref())) {
            Some(came) => Some(self.head.slice(came.value as usize..came.end as usize)),
            None => self.get(name).map(Bytes::copy_from_slice),
        }
    }

    /// The only value, shared with the head that it came in.
    pub(crate) fn only(&self, name: &(impl AsRef<[u8]> + ?Sized)) -> Result<Option<Bytes>, Repeated> {
        let name = name.as_ref();
        let mut came = self.spans.iter().filter(|at| self.is_named(at, name));
        let mut set = self.set.iter().filter(|(other, _)| is_same(other, name));
        match (came.next(), came.next(), set.next(), set.next()) {
            (Some(at), None, None, None) => Ok(Some(self.head.slice(at.value as usize..at.end as usize))),
            (None, None, Some((_, value)), None) => Ok(Some(Bytes::copy_from_slice(value.as_bytes()))),
            (None, None, None, None) => Ok(None),
            _ => Err(Repeated),
        }
    }

    /// Names, as they came, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields().map(|field| (field.name, field.value))
    }

    /// Every field, with where it came from. `for_each` is the fast way through them.
    pub(crate) fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        let came = self.spans.iter().map(|at| {
            let (name, value) = (self.part(at.name, at.colon), self.part(at.value, at.end));
            let line = self.part(at.name, at.end + 2);
            let plain = at.value == at.colon + 2 && line[name.len() + 1] == b' ' && line.ends_with(b"\r\n");
            Field { name, value, line: plain.then_some(line), parsed: true }
        });
        let set = self.set.iter().map(|(name, value)| {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            Field { name, value, line: None, parsed: false }
        });
        came.chain(set)
    }

    /// Puts one in the place of all of its name.
    pub fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.remove(&name);
        self.set.push((name, value));
    }

    /// Adds one behind those of its name.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.set.push((name, value));
    }

    /// Takes out all of a name.
    pub fn remove(&mut self, name: &(impl AsRef<[u8]> + ?Sized)) {
        let name = name.as_ref();
        let head = &self.head;
        self.spans.retain(|came| !head[came.name as usize..came.colon as usize].eq_ignore_ascii_case(name));
        self.set.retain(|(other, _)| !is_same(other, name));
    }

    /// Takes out a field, and what servers of the CGI family take for the same: its dashes written as underscores.
    pub(crate) fn remove_disguised(&mut self, name: &HeaderName) {
        self.remove_all_disguised(&Names::from_iter([name]));
    }

    /// The same for several names. Each field is looked at once, however many names there are.
    pub(crate) fn remove_all_disguised(&mut self, names: &Names) {
        let head = &self.head;
        self.spans.retain(|came| !names.have(&head[came.name as usize..came.colon as usize]));
        self.set.retain(|(other, _)| !names.have(other.as_str().as_bytes()));
    }

    /// Takes out all of several names. Each field is looked at once, however many names there are: clients choose both.
    pub(crate) fn remove_all(&mut self, mut names: Vec<&[u8]>) {
        // Lengths first: they tell most names apart.
        let order = |a: &[u8], b: &[u8]| {
            let lower = |b: &u8| b.to_ascii_lowercase();
            a.len().cmp(&b.len()).then_with(|| a.iter().map(lower).cmp(b.iter().map(lower)))
        };
        names.sort_unstable_by(|a, b| order(a, b));
        let is_kept = |name: &[u8]| names.binary_search_by(|other| order(other, name)).is_err();
        let head = &self.head;
        self.spans.retain(|came| is_kept(&head[came.name as usize..came.colon as usize]));
        self.set.retain(|(name, _)| is_kept(name.as_str().as_bytes()));
    }

    /// As HTTP/2 wants them. What they stand in is copied: the buffer that a head was read into is wanted back, and
    /// HTTP/2 may keep a message for long.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.len() + 4);
        let head = if self.spans.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(&self.head) };
        for came in &self.spans {
            let name = HeaderName::from_bytes(self.part(came.name, came.colon));
            let value = HeaderValue::from_maybe_shared(head.slice(came.value as usize..came.end as usize));
            // Both were found valid when they came.
            if let (Ok(name), Ok(value)) = (name, value) {
                map.append(name, value);
            }
        }
        for (name, value) in &self.set {
            map.append(name.clone(), value.clone());
        }
        map
    }

    /// Takes all out; the memory for others stays.
    pub(crate) fn clear(&mut self) {
        self.head = Bytes::new();
        self.spans.clear();
        self.set.clear();
    }

    /// For how many there is memory.
    pub(crate) fn capacity(&self) -> usize {
        self.spans.capacity().max(self.set.capacity())
    }

    /// Lengths first: they tell most names apart without a look at the head.
    #[inline]
    fn is_named(&self, at: &Span, name: &[u8]) -> bool {
        (at.colon - at.name) as usize == name.len() && self.part(at.name, at.colon).eq_ignore_ascii_case(name)
    }

    fn part(&self, start: u32, end: u32) -> &[u8] {
        &self.head[start as usize..end as usize]
    }
}

impl Names {
    fn have(&self, name: &[u8]) -> bool {
        // Lengths first: they tell most names apart.
        let order = |known: &[u8]| {
            known.len().cmp(&name.len()).then_with(|| known.iter().copied().cmp(name.iter().map(dashed)))
        };
        self.0.binary_search_by(|known| order(known)).is_ok()
    }
}

impl<'a> FromIterator<&'a HeaderName> for Names {
    fn from_iter<T: IntoIterator<Item = &'a HeaderName>>(names: T) -> Self {
        let names = names.into_iter().map(|name| name.as_str().as_bytes().iter().map(dashed).collect());
        let mut names: Vec<Box<[u8]>> = names.collect();
        names.sort_unstable_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        Self(names)
    }
}

fn dashed(byte: &u8) -> u8 {
    if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

fn is_same(other: &HeaderName, name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(other.as_str().as_bytes())
}

impl FromIterator<(HeaderName, HeaderValue)> for Fields {
    fn from_iter<T: IntoIterator<Item = (HeaderName, HeaderValue)>>(fields: T) -> Self {
        Self { set: fields.into_iter().collect(), ..Self::default() }
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        let mut fields = take();
        for (name, value) in map {
            // A name is told once for all of its values.
            if let Some(name) = name.or_else(|| fields.set.last().map(|(name, _)| name.clone())) {
                fields.set.push((name, value));
            }
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed() -> Fields {
        let head = Bytes::from_static(b"Host: a\r\nX-A:1\r\nx-a:  2 \r\nB: \t3\r\nb:\t4\r\n\r\n");
        let mut fields = Fields::default();
        let mut at = 0;
        for line in head.split_inclusive(|b| *b == b'\n').filter(|line| line.len() > 2) {
            let colon = line.iter().position(|b| *b == b':').unwrap();
            let value = colon + 1 + line[colon + 1..].iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
            let end = value + line[value..].trim_ascii_end().len();
            fields.parsed(at..at + colon, at + value..at + end);
            at += line.len();
        }
        fields.attach_buffer(head);
        fields
    }

    fn text(fields: &Fields) -> Vec<String> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(name, value)| text(name) + "=" + &text(value)).collect()
    }

    #[test]
    fn what_came_and_what_is_set() {
        let mut fields = parsed();
        let (a, value) = (HeaderName::from_static("x-a"), HeaderValue::from_static);
        assert_eq!(text(&fields), ["Host=a", "X-A=1", "x-a=2", "B=3", "b=4"]);
        let lines: Vec<_> = fields.fields().filter_map(|field| field.line).collect();
        assert_eq!(lines, [b"Host: a\r\n"], "only what would be written the same is copied as it stands");
        assert_eq!(fields.get_all(&a).collect::<Vec<_>>(), [b"1", b"2"]);
        fields.append(a.clone(), value("3"));
        assert_eq!(fields.get_all(&a).collect::<Vec<_>>(), [b"1", b"2", b"3"]);
        assert_eq!((fields.get_shared("HOST"), fields.get_shared("c")), (Some(Bytes::from_static(b"a")), None));
        let only = ["HOST", "x-a", "b", "c"].map(|name| fields.only(name));
        assert_eq!(only, [Ok(Some(Bytes::from_static(b"a"))), Err(Repeated), Err(Repeated), Ok(None)]);
        fields.insert(a.clone(), value("4"));
        assert_eq!((fields.get(&a), fields.get_shared(&a)), (Some(&b"4"[..]), Some(Bytes::from_static(b"4"))));
        fields.remove("B");
        assert_eq!(text(&fields), ["Host=a", "x-a=4"]);
        fields.append(HeaderName::from_static("c"), value("5"));
        fields.remove_all(vec![b"x", b"X-a", b"HOST", b"x-a", b"x-b"]);
        assert_eq!(text(&fields), ["c=5"]);
    }

    #[test]
    fn there_and_back_as_a_map() {
        let mut fields = parsed();
        fields.append(HeaderName::from_static("b"), HeaderValue::from_static("5"));
        let map = fields.to_map();
        assert_eq!(map.get_all("b").iter().collect::<Vec<_>>(), ["3", "4", "5"]);
        assert_eq!(Fields::from(map.clone()).to_map(), map);
        assert_eq!(map.len(), fields.len());
    }
}
