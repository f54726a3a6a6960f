//! Parts of the derived schemas: kinds of text, bounded shapes of Kubernetes' own types, and the
//! last pass that turns schemars' output into what the API server takes without a warning.

pub(crate) mod k8s;
pub(crate) mod pods;
pub(crate) mod structural;
pub(crate) mod text;
