//! The characters of HTTP (RFC 9110 section 5.6).

/// Bytes of a token.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// Length of the token at the beginning.
pub(super) fn token(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| !TOKEN[usize::from(*b)]).unwrap_or(bytes.len())
}

/// Whether it is a token.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && token(bytes) == bytes.len()
}

/// Digits and nothing else; no more than fit.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    let digits = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    digits.then(|| str::from_utf8(bytes).ok()?.parse().ok()).flatten()
}

/// The items of a list, without the white space around them.
pub(crate) fn items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_numbers() {
        assert_eq!(token(b"Content-Length: 5"), 14);
        assert!(is_token(b"!#$%&'*+-.^_`|~09azAZ"));
        for bad in [&b""[..], b"a b", b"a:", b"a\x7f", b"\xc3", b"\"", b"("] {
            assert!(!is_token(bad), "{bad:?}");
        }
        assert_eq!([&b"0"[..], b"007", b"18446744073709551615"].map(number), [Some(0), Some(7), Some(u64::MAX)]);
        for bad in [&b""[..], b"+1", b"-1", b"1 ", b"0x1", b"1,1", b"18446744073709551616", b"\xd9\xa1"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }
}
