//! Cuts a head into its lines, in place, and remembers where: each byte is looked at once, however the head is cut into
//! reads. Lines end in CRLF and nothing else; a line that begins with white space (obs-fold) is refused.

use std::ops::Range;

use super::{Malformed, grammar};

/// The lines of one head, or of one trailer section, as far as it has come.
#[derive(Debug, Default)]
pub struct HeaderLines {
    /// Where the first line begins: behind an empty line that may stand before a request.
    start: usize,
    /// Length of the first line; nothing when there is none to come.
    first: Option<usize>,
    fields: Vec<Field>,
    /// Where the line under way begins.
    at: usize,
    /// Up to where the line under way holds no line feed.
    searched: usize,
}

/// Where a field stands.
#[derive(Clone, Copy, Debug)]
struct Field {
    name: u32,
    colon: u32,
    end: u32,
}

/// The most bytes and fields that there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes, the last line's end included.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
    /// Bytes of the first line.
    pub first: usize,
}

/// Why a head is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMuch {
    /// The first line.
    First,
    /// Too many bytes in all, or too many fields.
    Head,
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Not what HTTP/1.1 allows.
    Malformed(Malformed),
    /// More than was allowed.
    TooMuch(TooMuch),
}

impl HeaderLines {
    /// Forgets everything. `first`: whether a line precedes the fields.
    pub fn reset(&mut self, first: bool) {
        self.fields.clear();
        (self.start, self.at, self.searched) = (0, 0, 0);
        self.first = (!first).then_some(0);
    }

    /// Goes on where it ended. `buf` holds the head from its first byte; the answer is where the head ends.
    pub fn read(&mut self, buf: &[u8], bounds: Bounds) -> Result<Option<usize>, Bad> {
        loop {
            let Some(found) = memchr::memchr(b'\n', &buf[self.searched..]) else {
                self.searched = buf.len();
                return self.incomplete(buf, bounds);
            };
            let feed = self.searched + found;
            if feed == self.at || buf[feed - 1] != b'\r' {
                return Err(Bad::Malformed(Malformed::LineEnd));
            }
            let (line, end) = (self.at, feed - 1);
            (self.at, self.searched) = (feed + 1, feed + 1);
            if self.at > bounds.bytes {
                return Err(self.too_much(bounds));
            }
            match self.first {
                None if line == end && line == 0 => self.start = self.at,
                None if line == end => return Err(Bad::Malformed(Malformed::StartLine)),
                None if end - line > bounds.first => return Err(Bad::TooMuch(TooMuch::First)),
                None => self.first = Some(end - line),
                Some(_) if line == end => return Ok(Some(self.at)),
                Some(_) => self.field(buf, line, end, bounds)?,
            }
        }
    }

    /// The first line.
    pub fn first(&self) -> Range<usize> {
        self.start..self.start + self.first.unwrap_or(0)
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Where names and values stand; values without the white space around them.
    pub fn fields<'a>(&'a self, head: &'a [u8]) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        self.fields.iter().map(move |field| {
            let (colon, end) = (field.colon as usize, field.end as usize);
            let value = colon + 1 + head[colon + 1..end].iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
            let trailing = head[value..end].iter().rev().take_while(|b| matches!(b, b' ' | b'\t')).count();
            (field.name as usize..colon, value..end - trailing)
        })
    }

    /// Where within the head something stands fits `u32`: heads are bounded far below.
    fn field(&mut self, buf: &[u8], line: usize, end: usize, bounds: Bounds) -> Result<(), Bad> {
        if matches!(buf[line], b' ' | b'\t') {
            return Err(Bad::Malformed(Malformed::Folded));
        }
        let length = grammar::token(&buf[line..end]);
        if length == 0 || buf[line + length] != b':' {
            return Err(Bad::Malformed(Malformed::FieldName));
        }
        if self.fields.len() == bounds.fields {
            return Err(Bad::TooMuch(TooMuch::Head));
        }
        self.fields.push(Field { name: line as u32, colon: (line + length) as u32, end: end as u32 });
        Ok(())
    }

    /// Decides whether a line without its end is still worth waiting for.
    fn incomplete(&self, buf: &[u8], bounds: Bounds) -> Result<Option<usize>, Bad> {
        if self.first.is_none() && buf.len() - self.at > bounds.first + 1 {
            return Err(Bad::TooMuch(TooMuch::First));
        }
        if buf.len() >= bounds.bytes {
            return Err(self.too_much(bounds));
        }
        Ok(None)
    }

    fn too_much(&self, bounds: Bounds) -> Bad {
        let target = self.first.is_none() && self.at < bounds.bytes;
        Bad::TooMuch(if target { TooMuch::First } else { TooMuch::Head })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 100, fields: 3, first: 20 };

    fn all(text: &[u8]) -> Result<Option<(usize, Vec<String>)>, Bad> {
        let mut lines = HeaderLines::default();
        lines.reset(true);
        Ok(lines.read(text, BOUNDS)?.map(|end| {
            let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let fields =
                lines.fields(text).map(|(name, value)| format!("{}={}", show(&text[name]), show(&text[value])));
            (end, std::iter::once(show(&text[lines.first()])).chain(fields).collect())
        }))
    }

    #[track_caller]
    fn check(text: &str, expect: Result<&[&str], Bad>) {
        let whole = all(text.as_bytes());
        assert_eq!(
            whole.clone().map(|found| found.unwrap().1),
            expect.map(|e| e.iter().map(|s| (*s).into()).collect())
        );
        // However it is cut in two, and byte by byte.
        for cut in 0..text.len() {
            let mut lines = HeaderLines::default();
            lines.reset(true);
            let mut got = lines.read(&text.as_bytes()[..cut], BOUNDS);
            if got == Ok(None) {
                got = lines.read(text.as_bytes(), BOUNDS);
            }
            assert_eq!(got.map(Option::unwrap), whole.clone().map(|found| found.unwrap().0), "{text:?} cut at {cut}");
        }
    }

    #[test]
    fn lines() {
        check("GET / HTTP/1.1\r\nA: b\r\nc:\t d e \t\r\n\r\nrest", Ok(&["GET / HTTP/1.1", "A=b", "c=d e"]));
        check("\r\nX\r\na:\r\n\r\n", Ok(&["X", "a="]));
        check("X\r\n\r\n", Ok(&["X"]));
        let malformed = |what| Err(Bad::Malformed(what));
        for text in ["X\n\r\n", "X\r\na: b\n\r\n", "X\r\na: b\r\n\n", "\nX\r\n\r\n"] {
            check(text, malformed(Malformed::LineEnd));
        }
        check("\r\n\r\nX\r\n\r\n", malformed(Malformed::StartLine));
        for text in ["X\r\na: b\r\n c\r\n\r\n", "X\r\n\ta: b\r\n\r\n"] {
            check(text, malformed(Malformed::Folded));
        }
        for text in
            ["X\r\na : b\r\n\r\n", "X\r\n: b\r\n\r\n", "X\r\na\r\n\r\n", "X\r\na b: c\r\n\r\n", "X\r\na\0: c\r\n\r\n"]
        {
            check(text, malformed(Malformed::FieldName));
        }
        check("X\r\na:1\r\nb:2\r\nc:3\r\nd:4\r\n\r\n", Err(Bad::TooMuch(TooMuch::Head)));
        check(&format!("{}\r\n\r\n", "X".repeat(21)), Err(Bad::TooMuch(TooMuch::First)));
        check(&format!("X\r\na: {}\r\n\r\n", "b".repeat(100)), Err(Bad::TooMuch(TooMuch::Head)));
        check(&format!("X\r\na: {}\r\n\r\n", "b".repeat(90)), Ok(&["X", &format!("a={}", "b".repeat(90))]));
    }
}
