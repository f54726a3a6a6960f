//! Checks of content coding of responses.

use super::{Fit, Unfit, http_token, reason};
use crate::proto::{Compression, CompressionAlgorithm};

pub(super) fn fit(c: &Compression) -> Fit {
    let known = |algorithm: &i32| CompressionAlgorithm::try_from(*algorithm).is_ok();
    if c.algorithms.is_empty() || !c.algorithms.iter().all(known) {
        let message = "names no coding, or one that this version does not know";
        return Err(Unfit::new("algorithms", reason::UNKNOWN_FILTER, message));
    }
    for (i, media_type) in c.types.iter().enumerate() {
        if !is_range(media_type) {
            let message = format!("{media_type:?} is no media type such as text/html or text/*, in lower case");
            return Err(Unfit::new(format!("types[{i}]"), reason::INVALID_HEADER, message));
        }
    }
    Ok(())
}

/// Whether it is a media type, or all of a type, in lower case and without parameters.
fn is_range(media_type: &str) -> bool {
    let is_word = |text: &str| http_token(text).is_ok() && !text.bytes().any(|b| b.is_ascii_uppercase() || b == b'*');
    media_type.split_once('/').is_some_and(|(of, sub)| is_word(of) && (sub == "*" || is_word(sub)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused() {
        let of = |algorithms: &[i32], types: &[&str]| {
            let types = types.iter().map(|of| (*of).to_owned()).collect();
            fit(&Compression { algorithms: algorithms.to_vec(), types, min_bytes: 0 }).map_err(|e| e.field)
        };
        assert_eq!(of(&[0], &["text/*", "application/vnd.api+json"]), Ok(()));
        for (algorithms, types, field) in [
            (&[][..], &[][..], "algorithms"),
            (&[0, 99], &[], "algorithms"),
            (&[0], &["text/html", "*/*"], "types[1]"),
            (&[0], &["text/h*"], "types[0]"),
            (&[0], &["Text/html"], "types[0]"),
            (&[0], &["text/html;a=b"], "types[0]"),
            (&[0], &["text"], "types[0]"),
        ] {
            assert_eq!(of(algorithms, types), Err(field.to_owned()), "{algorithms:?} {types:?}");
        }
    }
}
