//! Parts that several providers have.

use crate::{
    check::{Fit, Unfit, http_token, modifiable, reason},
    proto::{CredentialSource, credential_source},
};

/// Most places in which a provider looks for a credential.
pub const MAX_SOURCES: usize = 8;

/// The check of the places of a credential.
pub(super) fn sources(from: &[CredentialSource]) -> Fit {
    bounded("from", from.len(), MAX_SOURCES)?;
    for (i, source) in from.iter().enumerate() {
        let field = |member: &str| format!("from[{i}]{member}");
        match &source.source {
            Some(credential_source::Source::Header(name)) => {
                let fit = http_token(name).and_then(|()| modifiable(name, &["cookie"]));
                fit.map_err(|e| Unfit::new(field(".header"), reason::INVALID_HEADER, e))?;
            }
            Some(credential_source::Source::Cookie(name)) => {
                http_token(name).map_err(|e| Unfit::new(field(".cookie"), reason::INVALID_HEADER, e))?;
            }
            Some(credential_source::Source::Query(name)) if name.is_empty() => {
                return Err(Unfit::new(field(".query"), reason::INVALID_ACCESS, "is empty"));
            }
            Some(credential_source::Source::Query(_)) => {}
            None => {
                let message = "a place that this version does not know";
                return Err(Unfit::new(field(""), reason::UNKNOWN_PROVIDER, message));
            }
        }
    }
    Ok(())
}

/// The check of a list's length.
pub(super) fn bounded(list: &str, len: usize, most: usize) -> Fit {
    let message = || format!("has {len}, at most {most} are allowed: take some out");
    if len > most { Err(Unfit::new(list, reason::INVALID_ACCESS, message())) } else { Ok(()) }
}
