//! HTTP/1.1 as it comes: heads and bodies, by whichever side, as strictly as the other side has to write them.

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::Fields;

/// What is read, and what was read ahead.
pub(super) struct Reader<R> {
    pub(super) io: R,
    buffer: Vec<u8>,
}

/// A first line and the fields behind it, names in lower case.
pub(super) struct Head {
    pub(super) first: String,
    pub(super) fields: Fields,
}

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// A body as far as it came, and what followed it.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) trailers: Fields,
    pub(super) whole: bool,
}

impl Head {
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        get(&self.fields, name)
    }

    /// What the fields say; `otherwise`: when they say nothing.
    pub(super) fn framing(&self, otherwise: Framing) -> Framing {
        match (self.get("transfer-encoding"), self.get("content-length")) {
            (Some(_), _) => Framing::Chunked,
            (_, Some(length)) => String::from_utf8_lossy(length).parse().map_or(otherwise, Framing::Length),
            _ => otherwise,
        }
    }
}

/// A field's first value.
pub(super) fn get<'f>(fields: &'f Fields, name: &str) -> Option<&'f [u8]> {
    fields.iter().find(|(other, _)| other == name.as_bytes()).map(|(_, value)| &value[..])
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(io: R) -> Self {
        Self { io, buffer: vec![] }
    }

    /// `None`: the connection ended.
    async fn fill(&mut self) -> Option<()> {
        let count = self.io.read_buf(&mut self.buffer).await.unwrap_or(0);
        (count > 0).then_some(())
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            self.fill().await?;
        }
    }

    pub(super) async fn head(&mut self) -> Option<Head> {
        let mut text = self.until(b"\r\n\r\n").await?;
        text.truncate(text.len() - 2);
        let first = text.windows(2).position(|window| window == b"\r\n").unwrap() + 2;
        let fields = fields(&text[first..]);
        Some(Head { first: String::from_utf8_lossy(&text[..first - 2]).into_owned(), fields })
    }

    pub(super) async fn body(&mut self, framing: Framing) -> Body {
        let mut body = Body::default();
        body.whole = match framing {
            Framing::Length(length) => {
                while self.buffer.len() < length && self.fill().await.is_some() {}
                let there = self.buffer.len().min(length);
                body.bytes = self.buffer.drain(..there).collect();
                there == length
            }
            Framing::Chunked => self.chunks(&mut body).await.is_some(),
            Framing::UntilClose => {
                // A connection that is reset is no end.
                loop {
                    match self.io.read_buf(&mut self.buffer).await {
                        Ok(0) => break body.bytes.append(&mut self.buffer),
                        Ok(_) => {}
                        Err(_) => return body,
                    }
                }
                true
            }
        };
        body
    }

    async fn chunks(&mut self, body: &mut Body) -> Option<()> {
        loop {
            let line = self.until(b"\r\n").await?;
            let size = usize::from_str_radix(str::from_utf8(&line[..line.len() - 2]).ok()?, 16).ok()?;
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 {
                if self.fill().await.is_none() {
                    body.bytes.append(&mut self.buffer);
                    return None;
                }
            }
            body.bytes.extend(self.buffer.drain(..size));
            assert_eq!(self.buffer.drain(..2).collect::<Vec<_>>(), b"\r\n", "behind a chunk");
        }
        loop {
            let line = self.until(b"\r\n").await?;
            if line.len() == 2 {
                return Some(());
            }
            body.trailers.extend(fields(&line));
        }
    }
}

/// Lines as fields; what is no field would be the proxy's mistake.
fn fields(lines: &[u8]) -> Fields {
    let mut fields = vec![];
    for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let line = line.strip_suffix(b"\r").unwrap();
        let colon =
            line.iter().position(|b| *b == b':').unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(line)));
        let (name, value) =
            (line[..colon].to_ascii_lowercase(), line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]));
        assert!(!line.contains(&b'\r') && !line.contains(&0), "a line is torn: {:?}", String::from_utf8_lossy(line));
        fields.push((name, value.to_vec()));
    }
    fields
}
