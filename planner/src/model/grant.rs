//! ReferenceGrant: who may refer from other namespaces to what is in this one.

use crds::grant::{GrantFrom, GrantTo};

/// A grant, for references into its own namespace.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    from: Vec<GrantFrom>,
    to: Vec<GrantTo>,
}

impl Grant {
    /// Whether it permits objects of a kind of ours in a namespace to refer to a Service or Secret.
    pub(crate) fn permits(&self, from: (&str, &str), to: (&str, &str)) -> bool {
        let ((from_kind, namespace), (to_kind, name)) = (from, to);
        let may = |from: &GrantFrom| from.group == crds::GROUP && from.kind == from_kind && from.namespace == namespace;
        let what = |to: &GrantTo| {
            // Some write the group that has no name as `core`; Gateway API knows only the empty one.
            to.group.is_empty() && to.kind == to_kind && to.name.as_deref().is_none_or(|only| only == name)
        };
        self.from.iter().any(may) && self.to.iter().any(what)
    }
}

/// The schema says all there is to check.
pub(super) fn validate(grant: &crds::ReferenceGrant) -> Grant {
    Grant { from: grant.spec.from.clone(), to: grant.spec.to.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(from: Value, to: Value, expect: bool) {
        let grant = Grant { from: serde_json::from_value(from).unwrap(), to: serde_json::from_value(to).unwrap() };
        assert_eq!(grant.permits(("ApiRoute", "shop"), ("Service", "db")), expect, "{grant:?}");
    }

    #[test]
    fn grants() {
        let shop = json!([{"group": "sluice.dev", "kind": "ApiRoute", "namespace": "shop"}]);
        let any = json!([{"group": "", "kind": "Service"}]);
        check(shop.clone(), any.clone(), true);
        check(
            shop.clone(),
            json!([{"group": "", "kind": "Secret"}, {"group": "", "kind": "Service", "name": "db"}]),
            true,
        );
        check(shop.clone(), json!([{"group": "", "kind": "Service", "name": "other"}]), false);
        check(shop.clone(), json!([{"group": "", "kind": "Secret"}]), false);
        check(shop, json!([{"group": "core", "kind": "Service"}]), false);
        check(json!([{"group": "sluice.dev", "kind": "ApiRoute", "namespace": "other"}]), any.clone(), false);
        check(json!([{"group": "sluice.dev", "kind": "GatewayFleet", "namespace": "shop"}]), any.clone(), false);
        check(json!([{"group": "gateway.networking.k8s.io", "kind": "ApiRoute", "namespace": "shop"}]), any, false);
    }
}
