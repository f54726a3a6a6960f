//! Follows the frames of one direction of an HTTP/2 connection (RFC 9113 section 4.1) in the bytes that pass, without
//! keeping any: what a frame is for is in its first nine bytes.

/// The types that are told apart (RFC 9113 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameType {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    Ping,
    WindowUpdate,
    Continuation,
    Other,
}

/// A frame's header, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameType,
    pub(crate) length: u32,
    /// END_STREAM of DATA and HEADERS; ACK of SETTINGS and PING.
    pub(crate) flag: bool,
    /// END_HEADERS of HEADERS and CONTINUATION.
    pub(crate) end_headers: bool,
    /// The stream that it is of; 0: the connection.
    pub(crate) stream: u32,
}

/// Where in the byte stream one is.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Bytes that belong to no header: the preface, a payload.
    skip: u32,
    header: [u8; 9],
    have: usize,
    /// Whether the payload under way is DATA, and the bytes of such so far.
    is_data: bool,
    data: u64,
}

impl Frames {
    /// A reader of the frames that follow so many first bytes.
    pub(crate) fn after(skip: u32) -> Self {
        Self { skip, header: [0; 9], have: 0, is_data: false, data: 0 }
    }

    /// Bytes of bodies that have passed.
    pub(crate) fn data(&self) -> u64 {
        self.data
    }

    /// Calls `seen` for each frame whose header ends in these bytes.
    pub(crate) fn pass(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = bytes.len().min(self.skip as usize);
                self.skip -= n as u32;
                self.data += if self.is_data { n as u64 } else { 0 };
                bytes = &bytes[n..];
                continue;
            }
            let n = bytes.len().min(9 - self.have);
            self.header[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have == 9 {
                let frame = read(self.header);
                (self.skip, self.have, self.is_data) = (frame.length, 0, frame.kind == FrameType::Data);
                seen(frame);
            }
        }
    }
}

fn read([a, b, c, kind, flags, stream @ ..]: [u8; 9]) -> Frame {
    let kind = match kind {
        0 => FrameType::Data,
        1 => FrameType::Headers,
        2 => FrameType::Priority,
        3 => FrameType::Reset,
        4 => FrameType::Settings,
        6 => FrameType::Ping,
        8 => FrameType::WindowUpdate,
        9 => FrameType::Continuation,
        _ => FrameType::Other,
    };
    let (length, stream) = (u32::from_be_bytes([0, a, b, c]), u32::from_be_bytes(stream) & (u32::MAX >> 1));
    Frame { kind, length, flag: flags & 1 == 1, end_headers: flags & 4 == 4, stream }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1][..], payload].concat()
    }

    #[test]
    fn frames_are_seen_however_the_bytes_are_split() {
        let bytes = [
            b"PREFACE".to_vec(),
            frame(4, 0, &[0; 12]),
            frame(0, 1, b""),
            frame(0, 1, &[1; 20]),
            frame(99, 4, &[9; 300]),
        ];
        let bytes = bytes.concat();
        let expect = [
            Frame { kind: FrameType::Settings, length: 12, flag: false, end_headers: false, stream: 1 },
            Frame { kind: FrameType::Data, length: 0, flag: true, end_headers: false, stream: 1 },
            Frame { kind: FrameType::Data, length: 20, flag: true, end_headers: false, stream: 1 },
            Frame { kind: FrameType::Other, length: 300, flag: false, end_headers: true, stream: 1 },
        ];
        for split in 0..=bytes.len() {
            let (mut frames, mut seen) = (Frames::after(7), vec![]);
            frames.pass(&bytes[..split], |f| seen.push(f));
            frames.pass(&bytes[split..], |f| seen.push(f));
            assert_eq!((seen.as_slice(), frames.data()), (&expect[..], 20), "{split}");
        }
    }
}
