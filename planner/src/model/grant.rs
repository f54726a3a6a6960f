//! ReferenceGrant: who may refer from other namespaces to what is in this one.

use crds::grant::{GrantFrom, GrantTo};

use crate::world::ObjectRef;

/// A grant, for references into its own namespace.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    from: Vec<GrantFrom>,
    to: Vec<GrantTo>,
}

impl Grant {
    /// Whether it permits an object of a kind of ours to refer to a Service or Secret of the grant's namespace.
    pub(crate) fn permits(&self, from: &ObjectRef, to: &ObjectRef) -> bool {
        let who = |f: &GrantFrom| f.group == crds::GROUP && f.kind == from.kind.name() && f.namespace == from.namespace;
        let what = |t: &GrantTo| {
            // Services and Secrets are of the group that has no name; `core` is none.
            t.group.is_empty() && t.kind == to.kind.name() && t.name.as_deref().is_none_or(|only| only == to.name)
        };
        self.from.iter().any(who) && self.to.iter().any(what)
    }
}

/// The message that a reference is not permitted, with the grant that would permit it.
pub(crate) fn missing(from: &ObjectRef, to: &ObjectRef) -> String {
    let (group, kind, namespace) = (crds::GROUP, from.kind.name(), &from.namespace);
    format!(
        "{to} is in another namespace, and no ReferenceGrant there permits it: create one in namespace {} with from \
         {{group: {group}, kind: {kind}, namespace: {namespace}}} and to {{group: \"\", kind: {}, name: {}}}",
        to.namespace,
        to.kind.name(),
        to.name,
    )
}

/// The schema says all there is to check.
pub(super) fn validate(grant: &crds::ReferenceGrant) -> Grant {
    Grant { from: grant.spec.from.clone(), to: grant.spec.to.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Kind;

    #[track_caller]
    fn check(from: &Value, to: Value, expect: bool) {
        let (from, to) = (serde_json::from_value(from.clone()).unwrap(), serde_json::from_value(to).unwrap());
        let grant = Grant { from, to };
        let object =
            |kind, namespace: &str, name: &str| ObjectRef { kind, namespace: namespace.into(), name: name.into() };
        let (route, service) = (object(Kind::ApiRoute, "shop", "r"), object(Kind::Service, "data", "db"));
        assert_eq!(grant.permits(&route, &service), expect, "{grant:?}");
    }

    #[test]
    fn grants() {
        let from =
            |group: &str, kind: &str, namespace: &str| json!([{"group": group, "kind": kind, "namespace": namespace}]);
        let any = || json!([{"group": "", "kind": "Service"}]);
        let shop = from("sluice.dev", "ApiRoute", "shop");
        check(&shop, any(), true);
        check(&shop, json!([{"group": "", "kind": "Secret"}, {"group": "", "kind": "Service", "name": "db"}]), true);
        check(&shop, json!([{"group": "", "kind": "Service", "name": "other"}]), false);
        check(&shop, json!([{"group": "", "kind": "Secret"}]), false);
        check(&shop, json!([{"group": "core", "kind": "Service"}]), false);
        check(&from("sluice.dev", "ApiRoute", "other"), any(), false);
        check(&from("sluice.dev", "GatewayFleet", "shop"), any(), false);
        check(&from("gateway.networking.k8s.io", "ApiRoute", "shop"), any(), false);
    }
}
