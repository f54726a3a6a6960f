//! Field values that are made for one request: written into a block that the values of a thread share, so that most
//! cost no allocation, neither when they are made nor when they are cloned.

use std::{cell::RefCell, net::Ipv4Addr};

use bytes::BytesMut;
use http::HeaderValue;

/// Size of a block. A value that is kept keeps its block.
const BLOCK_BYTES: usize = 4 << 10;
/// Room that a block must have left for another value; a longer one moves to a block of its own.
const MIN_ROOM_BYTES: usize = 128;

/// The value that `write` writes; `None` if that is no valid one.
pub(crate) fn value(write: impl FnOnce(&mut BytesMut)) -> Option<HeaderValue> {
    thread_local! {
        static BLOCK_HERE: RefCell<BytesMut> = RefCell::default();
    }
    let text = BLOCK_HERE.try_with(|block| {
        let mut block = block.borrow_mut();
        if block.capacity() < MIN_ROOM_BYTES {
            // The same memory again, once no value refers to it.
            block.reserve(BLOCK_BYTES);
        }
        write(&mut block);
        block.split().freeze()
    });
    HeaderValue::from_maybe_shared(text.ok()?).ok()
}

/// Writes a number in decimal digits.
pub(crate) fn decimal(out: &mut impl bytes::BufMut, number: u64) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes an address as dotted decimals.
pub(crate) fn ipv4(out: &mut Vec<u8>, address: Ipv4Addr) {
    for (i, part) in address.octets().into_iter().enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        decimal(out, part.into());
    }
}

/// A value without the white space around it: by HTTP/1.1 that is none of it (RFC 9110 section 5.5), and by HTTP/2 it
/// must not be there (RFC 9113 section 8.2.1), so that what decides by a value sees the same one of both.
pub(crate) fn trim(value: &mut HeaderValue) {
    let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let text = value.as_bytes();
    if !space(text.first()) && !space(text.last()) {
        return;
    }
    // A part of a valid value is one.
    if let Ok(mut trimmed) = HeaderValue::from_bytes(text.trim_ascii()) {
        trimmed.set_sensitive(value.is_sensitive());
        *value = trimmed;
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut as _;

    use super::*;

    #[test]
    fn values_of_a_block_stay_what_they_are() {
        let make = |i: u64| value(|out| (0..=i % 50).for_each(|_| decimal(out, i))).unwrap();
        let twice = |value: HeaderValue| (value.clone(), value);
        let made: Vec<_> = (0..1000).map(|i| (i, twice(make(i)))).collect();
        for (i, (value, other)) in made {
            assert_eq!(value.to_str().unwrap(), i.to_string().repeat((i % 50) as usize + 1));
            assert_eq!(value, other);
        }
        assert!(value(|out| out.put_slice(&[b'x'; 2 * BLOCK_BYTES])).is_some());
        assert_eq!(value(|out| out.put_slice(b"a\nb")), None);
    }

    #[test]
    fn numbers() {
        let written = |write: fn(&mut BytesMut)| {
            let mut out = BytesMut::new();
            write(&mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(written(|out| decimal(out, 0)), "0");
        assert_eq!(written(|out| decimal(out, u64::MAX)), u64::MAX.to_string());
    }
}
