//! What makes filters on requests of other origins executable.

use super::{Fit, Unfit, http_token, reason};
use crate::{
    origin::Pattern,
    proto::{Cors, Csrf},
};

pub(super) fn cors(c: &Cors) -> Fit {
    if c.allow_origins.is_empty() {
        return Err(Unfit::new("allowOrigins", reason::INVALID_HOSTNAME, "names no origin: give one, or '*'"));
    }
    origins("allowOrigins", &c.allow_origins)?;
    for (list, names, reason) in [
        ("allowMethods", &c.allow_methods, reason::INVALID_METHOD),
        ("allowHeaders", &c.allow_headers, reason::INVALID_HEADER),
        ("exposeHeaders", &c.expose_headers, reason::INVALID_HEADER),
    ] {
        for (i, name) in names.iter().enumerate() {
            http_token(name).map_err(|e| Unfit::new(format!("{list}[{i}]"), reason, e))?;
        }
        if names.len() > 1 && names.iter().any(|name| name == "*") {
            return Err(Unfit::new(list, reason, "'*' stands for all: it stands alone"));
        }
    }
    if c.allow_credentials && c.expose_headers.iter().any(|name| name == "*") {
        let message = "with credentials '*' is a name like any other: name the header fields";
        return Err(Unfit::new("exposeHeaders", reason::INVALID_HEADER, message));
    }
    Ok(())
}

pub(super) fn csrf(c: &Csrf) -> Fit {
    if c.additional_origins.iter().any(|origin| origin == "*") {
        let message = "'*' would let everybody's pages pass: leave the filter out instead";
        return Err(Unfit::new("additionalOrigins", reason::INVALID_HOSTNAME, message));
    }
    origins("additionalOrigins", &c.additional_origins)
}

fn origins(list: &str, origins: &[String]) -> Fit {
    for (i, origin) in origins.iter().enumerate() {
        if Pattern::parse(origin).is_none() {
            let message =
                format!("{origin:?} is no origin such as https://shop.example or https://*.shop.example:8443");
            return Err(Unfit::new(format!("{list}[{i}]"), reason::INVALID_HOSTNAME, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let fit = Cors { allow_origins: words(&["https://a", "https://*.b:81"]), ..Cors::default() };
        assert_eq!(cors(&fit), Ok(()));
        for (unfit, field) in [
            (Cors::default(), "allowOrigins"),
            (Cors { allow_origins: words(&["*", "https://a:65536"]), ..fit.clone() }, "allowOrigins[1]"),
            (Cors { allow_methods: words(&["GET", "A B"]), ..fit.clone() }, "allowMethods[1]"),
            (Cors { allow_headers: words(&["x-a\r\n"]), ..fit.clone() }, "allowHeaders[0]"),
            (Cors { expose_headers: words(&["*", ""]), ..fit }, "exposeHeaders[1]"),
        ] {
            assert_eq!(cors(&unfit).map_err(|e| e.field), Err(field.to_owned()));
        }
        assert_eq!(csrf(&Csrf::default()), Ok(()));
        let unfit = csrf(&Csrf { additional_origins: words(&["shop.example"]) }).unwrap_err();
        assert_eq!((unfit.field.as_str(), unfit.reason), ("additionalOrigins[0]", "InvalidHostname"));
    }
}
