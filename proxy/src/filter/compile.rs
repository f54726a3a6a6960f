//! From what a snapshot lists to the filters that do it.

use snapshot::{
    check::{Unfit, reason},
    proto,
};

use super::{Filter, compression, cors, csrf, external_auth, header_modifier, parts::Parts, redirect, rewrite};

/// Compiles what a rule lists as one of its filters.
pub(crate) fn compile(filter: &proto::Filter, parts: &mut Parts<'_>) -> Result<Box<dyn Filter>, Unfit> {
    use proto::filter::Filter as Proto;
    Ok(match &filter.filter {
        Some(Proto::RequestHeaderModifier(m)) => Box::new(header_modifier::RequestHeaders::compile(m)?),
        Some(Proto::ResponseHeaderModifier(m)) => Box::new(header_modifier::ResponseHeaders::compile(m)?),
        Some(Proto::RequestRedirect(r)) => Box::new(redirect::Redirect::compile(r)?),
        Some(Proto::UrlRewrite(u)) => Box::new(rewrite::Rewrite::compile(u)?),
        Some(Proto::Compression(c)) => Box::new(compression::Compression::compile(c)?),
        Some(Proto::ExternalAuth(a)) => Box::new(external_auth::ExternalAuth::compile(a, parts)?),
        Some(Proto::Cors(c)) => Box::new(cors::Cors::compile(c)?),
        Some(Proto::Csrf(c)) => Box::new(csrf::Csrf::compile(c)?),
        None => return Err(Unfit::new("type", reason::UNKNOWN_FILTER, "a filter that this version does not know")),
    })
}
