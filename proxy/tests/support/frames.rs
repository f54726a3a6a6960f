//! HTTP/2 by hand: what a client sends that no library would.

use super::HOST;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// The preface, these settings, and `GET /` on so many streams, in HPACK: static entries, and the authority as a literal.
pub fn streams(settings: &[u8], streams: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, settings));
    let head = [&[0x82, 0x86, 0x84, 0x41, HOST.len() as u8], HOST.as_bytes()].concat();
    (0..streams).for_each(|n| bytes.extend(frame(1, 5, 2 * n + 1, &head)));
    bytes
}

/// The same with all windows as large as they may be.
pub fn wide_open(count: u32) -> Vec<u8> {
    let most = i32::MAX.to_be_bytes();
    let settings = [&[0, 4][..], &most].concat();
    [streams(&settings, count), frame(8, 0, 0, &(i32::MAX - 65_535).to_be_bytes())].concat()
}
