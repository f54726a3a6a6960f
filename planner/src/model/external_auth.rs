//! External authorization: a filter in the form that proxies execute, and the service that it calls.

use crds::route as crd;
use snapshot::{check::Unfit, proto};

use super::{Destination, route};

/// The filter of a route of this namespace. Its service is named by the key that its cluster has where it is permitted:
/// where it is not, the rule answers 500.
pub(super) fn compile(namespace: &str, auth: &crd::ExternalAuth) -> proto::ExternalAuth {
    let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let service = service(auth, "").ok();
    proto::ExternalAuth {
        cluster: service.map(|service| service.key(namespace).to_string()).unwrap_or_default(),
        path: auth.http.path.clone(),
        request_headers: lower(&auth.http.allowed_headers),
        response_headers: lower(&auth.http.allowed_response_headers),
        timeout_ms: auth.timeout.as_millis(),
        fail_open: auth.fail_open,
    }
}

/// The service that it calls.
pub(super) fn service(auth: &crd::ExternalAuth, field: &str) -> Result<Destination, Unfit> {
    let crd::ExternalAuthBackendRef { name, namespace, port, address, app_protocol } = auth.backend_ref.clone();
    let backend = crd::BackendRef { name, namespace, port, address, app_protocol, weight: 1 };
    route::backend(&backend, field).map(|backend| backend.to)
}
