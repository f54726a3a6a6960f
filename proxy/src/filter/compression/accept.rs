//! The content coding that a client likes best (RFC 9110 section 12.5.3).

use http::{HeaderValue, header::ACCEPT_ENCODING};

use crate::{fields::Fields, http1::grammar::items};

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// RFC 1952.
    Gzip,
}

/// Any coding that is not named.
const ANY: &[&str] = &["*"];
/// None.
const IDENTITY: &[&str] = &["identity"];

impl Coding {
    /// The value of `Content-Encoding`.
    pub(super) fn name(self) -> HeaderValue {
        match self {
            Coding::Gzip => HeaderValue::from_static("gzip"),
        }
    }

    /// The names that clients have for it.
    fn names(self) -> &'static [&'static str] {
        match self {
            // RFC 9110 section 8.4.1.3.
            Coding::Gzip => &["gzip", "x-gzip"],
        }
    }
}

/// The coding of `ours` that a client likes best, the first of several; `None`: it accepts none, or likes the content
/// better as it is. One that says nothing takes anything, and is sent what every client understands.
pub(super) fn preferred(fields: &Fields, ours: &[Coding]) -> Option<Coding> {
    fields.get(&ACCEPT_ENCODING)?;
    let any = weight(fields, ANY);
    let mut best = None;
    let mut most = weight(fields, IDENTITY).unwrap_or(0).max(1);
    for coding in ours {
        let weight = weight(fields, coding.names()).or(any).unwrap_or(0);
        if weight > most || weight == most && best.is_none() {
            (best, most) = (Some(*coding), weight);
        }
    }
    best
}

/// The weight of a coding with one of these names, in thousandths; the least, if it has several.
fn weight(fields: &Fields, names: &[&str]) -> Option<u16> {
    let of_member = |member: &[u8]| {
        let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next()?;
        if !names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes())) {
            return None;
        }
        match parts.next() {
            None => Some(1000),
            // What is no weight accepts nothing.
            Some(weight) => Some(quality(weight).unwrap_or(0)),
        }
    };
    fields.get_all(&ACCEPT_ENCODING).flat_map(items).filter_map(of_member).min()
}

/// `q=0.5` in thousandths (RFC 9110 section 12.4.2).
fn quality(weight: &[u8]) -> Option<u16> {
    let value = weight.strip_prefix(b"q=").or_else(|| weight.strip_prefix(b"Q="))?;
    let (whole, rest) = value.split_first()?;
    let digits = match rest {
        [] => &[],
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return None,
    };
    let thousandths = digits.iter().zip([100, 10, 1]).map(|(digit, of)| u16::from(digit - b'0') * of).sum();
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_accept() {
        let preferred = |values: &[&'static str]| {
            let fields = values.iter().map(|value| (ACCEPT_ENCODING, HeaderValue::from_static(value))).collect();
            preferred(&fields, &[Coding::Gzip])
        };
        for accepted in [
            &["gzip"][..],
            &["GZip"],
            &["x-gzip"],
            &["gzip, deflate, br, zstd"],
            &["br;q=1.0, gzip;q=0.8, *;q=0.1"],
            &["deflate", "gzip"],
            &["*"],
            &["br, *;q=0.001"],
            &["gzip;q=0.5, identity;q=0.5"],
            &["gzip ; q=1.000"],
            &["gzip;Q=0.1"],
            &["identity;q=0, *"],
            &[" , gzip,,"],
        ] {
            assert_eq!(preferred(accepted), Some(Coding::Gzip), "{accepted:?}");
        }
        for refused in [
            &[][..],
            &[""],
            &["identity"],
            &["br"],
            &["gzip;q=0"],
            &["gzip;q=0.000, *"],
            &["*;q=0"],
            &["gzip;q=0.5, identity"],
            &["gzip, gzip;q=0"],
            &["gzip, x-gzip;q=0"],
            &["gzip;q=2"],
            &["gzip;q=1.001"],
            &["gzip;q=0.1234"],
            &["gzip;q="],
            &["gzip;level=1"],
            &["gzipped"],
        ] {
            assert_eq!(preferred(refused), None, "{refused:?}");
        }
    }
}
