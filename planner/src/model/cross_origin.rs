//! Filters on requests of other origins, in the form that proxies execute.

use crds::route as crd;
use snapshot::proto;

pub(super) fn cors(c: &crd::Cors) -> proto::Cors {
    let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
    proto::Cors {
        allow_origins: c.allow_origins.clone(),
        allow_methods: c.allow_methods.iter().map(|of| method(*of).to_owned()).collect(),
        allow_headers: lower(&c.allow_headers),
        expose_headers: lower(&c.expose_headers),
        allow_credentials: c.allow_credentials.unwrap_or_default(),
        max_age_seconds: c.max_age,
    }
}

pub(super) fn csrf(c: &crd::Csrf) -> proto::Csrf {
    proto::Csrf { additional_origins: c.additional_origins.clone() }
}

fn method(of: crd::CorsMethod) -> &'static str {
    match of {
        crd::CorsMethod::Get => "GET",
        crd::CorsMethod::Head => "HEAD",
        crd::CorsMethod::Post => "POST",
        crd::CorsMethod::Put => "PUT",
        crd::CorsMethod::Delete => "DELETE",
        crd::CorsMethod::Connect => "CONNECT",
        crd::CorsMethod::Options => "OPTIONS",
        crd::CorsMethod::Trace => "TRACE",
        crd::CorsMethod::Patch => "PATCH",
        crd::CorsMethod::Any => "*",
    }
}
