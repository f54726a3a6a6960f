//! The output of the chart for the sets of values in its testdata: `NAME.values.yaml` gives `NAME.yaml`. Adding a file adds
//! a case.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use devcluster::files;
use serde_json::Value;

use super::folder;
use crate::shell::Tool;

const VALUES: &str = ".values.yaml";

/// Writes anew what is not as the chart gives it, and names it.
pub(super) fn update(helm: &Path) -> anyhow::Result<Vec<String>> {
    let mut stale = Vec::new();
    for case in cases()? {
        let rendered = render(helm, &case)?;
        if files::read(&case.golden()).ok().as_ref() != Some(&rendered) {
            files::write(&case.golden(), &rendered)?;
            stale.push(format!("{}.yaml", case.0));
        }
    }
    Ok(stale)
}

/// Lints the chart, and compares what it gives with what is committed.
pub(crate) fn check(helm: &Path) -> anyhow::Result<()> {
    let lint = Tool::new(helm).args(["lint", "--strict", "--quiet"]).args([folder()]);
    let (passed, output) = lint.capture()?;
    anyhow::ensure!(passed, "helm lint --strict: {output}");
    for case in cases()? {
        let fresh = files::read(&case.golden()).ok().as_ref() == Some(&render(helm, &case)?);
        anyhow::ensure!(
            fresh,
            "charts/sluice/testdata/{}.yaml is stale: run `cargo xtask chart`, and read the diff",
            case.0
        );
    }
    super::refused::check(helm)?;
    definitions(helm)
}

/// The definitions come out of the chart as they stand in crds/yaml, and `helm uninstall` keeps them.
fn definitions(helm: &Path) -> anyhow::Result<()> {
    let rendered = template(helm, &["--show-only", "templates/crds.yaml"])?;
    let rendered: Vec<Value> = serde_yaml::from_multiple(&rendered).context("rendered definitions")?;
    let committed = super::definitions()?;
    anyhow::ensure!(
        rendered.len() == committed.len(),
        "{} definitions are rendered of {}",
        rendered.len(),
        committed.len()
    );
    for (name, text) in committed {
        let committed: Value = serde_yaml::from_str(&text).with_context(|| name.clone())?;
        let found = rendered.iter().find(|other| other["metadata"]["name"] == committed["metadata"]["name"]);
        let found = found.with_context(|| format!("{name} is not rendered"))?;
        anyhow::ensure!(found["spec"] == committed["spec"], "{name} is rendered with another spec");
        anyhow::ensure!(found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", "{name} is not kept");
    }
    Ok(())
}

struct Case(String);

impl Case {
    fn golden(&self) -> PathBuf {
        folder().join("testdata").join(format!("{}.yaml", self.0))
    }
}

fn cases() -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder().join("testdata"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        cases.extend(name.strip_suffix(VALUES).map(|name| Case(name.to_owned())));
    }
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    anyhow::ensure!(!cases.is_empty(), "charts/sluice/testdata has no *{VALUES}");
    Ok(cases)
}

fn render(helm: &Path, case: &Case) -> anyhow::Result<String> {
    let values = format!("charts/sluice/testdata/{}{VALUES}", case.0);
    template(helm, &["--values", &values])
}

/// The release is named as the README does.
fn template(helm: &Path, args: &[&str]) -> anyhow::Result<String> {
    let template = ["template", "sluice", "charts/sluice", "--namespace", "sluice-system"];
    Tool::new(helm).args(template).args(args).read()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is committed; that it is what the chart gives is seen where helm is.
    fn documents() -> Vec<(String, Value)> {
        let mut all = Vec::new();
        for case in cases().unwrap() {
            let text = files::read(&case.golden()).unwrap();
            let documents: Vec<Value> = serde_yaml::from_multiple(&text).unwrap();
            assert!(documents.len() > 5, "{}", case.0);
            all.extend(
                documents.into_iter().filter(|document| !document.is_null()).map(|document| (case.0.clone(), document)),
            );
        }
        all
    }

    /// Kinds without namespace.
    const CLUSTER_SCOPED: [&str; 5] = [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];

    fn list<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
        value.pointer(pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    #[test]
    fn rights_are_the_least() {
        let mut rules = 0;
        for (case, role) in documents() {
            for rule in role["rules"].as_array().into_iter().flatten() {
                rules += 1;
                assert!(!rule.to_string().contains('*'), "{case}: a wildcard in {rule}");
                let reads = list(rule, "/verbs").iter().all(|verb| ["get", "list", "watch"].contains(verb));
                let named = !list(rule, "/resourceNames").is_empty();
                let kinds = list(rule, "/resources");
                let touchy = ["secrets", "gatewayfleets"].iter().any(|kind| kinds.contains(kind));
                assert!(!touchy || reads || named, "{case}: {rule} writes whatever its name is");
                let roles =
                    kinds.iter().any(|kind| ["role", "admission", "impersonat"].iter().any(|word| kind.contains(word)));
                assert!(!roles, "{case}: {rule} gives rights to others");
            }
        }
        assert!(rules > 20);
    }

    /// What is bound by a ClusterRoleBinding holds in everybody's namespaces.
    #[test]
    fn everywhere_the_operator_reads_no_secret_and_writes_what_it_says_of_others() {
        let said = [
            "accesspolicies/status",
            "apiroutes/status",
            "consumers/status",
            "gatewayfleets/status",
            "ratepolicies/status",
            "events",
            "tokenreviews",
        ];
        let mut names = vec![];
        for (case, role) in documents().into_iter().filter(|(_, document)| document["kind"] == "ClusterRole") {
            let name = role["metadata"]["name"].as_str().unwrap().to_owned();
            // Users' rights, in namespaces where they have these already; and what the values ask for.
            let confined = name.ends_with("-edit") || (case == "bare" && name.ends_with("-fleets"));
            for rule in role["rules"].as_array().unwrap() {
                let kinds = list(rule, "/resources");
                assert!(!kinds.contains(&"secrets"), "{case}: {rule}");
                let reads = list(rule, "/verbs").iter().all(|verb| ["get", "list", "watch"].contains(verb));
                assert!(reads || confined || kinds.iter().all(|kind| said.contains(kind)), "{case}: {name}: {rule}");
            }
            names.push(format!("{case}: {name}"));
        }
        let expect = [
            "bare: sluice-operator",
            "bare: sluice-operator-fleets",
            "default: sluice-operator",
            "default: sluice-edit",
            "default: sluice-view",
            "full: gateway-operator",
            "full: gateway-edit",
            "full: gateway-view",
        ];
        assert_eq!(names, expect);
    }

    /// Where it may run fleets is what it is told.
    #[test]
    fn the_operator_is_told_where_it_has_roles() {
        for (case, expect) in
            [("default", &["sluice-system"][..]), ("full", &["sluice-system", "shop-edge"]), ("bare", &[])]
        {
            let all = documents();
            let of_case = || all.iter().filter(|(of, _)| of == case).map(|(_, document)| document);
            let deployment = of_case().find(|document| document["kind"] == "Deployment").unwrap();
            let args = list(deployment, "/spec/template/spec/containers/0/args");
            let told: Vec<_> = args.iter().filter_map(|arg| arg.strip_prefix("--fleet-namespace=")).collect();
            assert_eq!(told, expect, "{case}");
            let makes = |role: &&Value| role["rules"].to_string().contains("deployments");
            let roles: Vec<_> = of_case().filter(|document| document["kind"] == "Role").filter(makes).collect();
            let roles: Vec<_> = roles.iter().filter_map(|role| role["metadata"]["namespace"].as_str()).collect();
            assert_eq!(roles, expect, "{case}");
        }
    }

    /// Whatever the operator may write beyond its own few objects, a policy confines.
    #[test]
    fn what_the_operator_may_write_is_confined() {
        for case in ["bare", "default", "full"] {
            let all = documents();
            let of_case = || all.iter().filter(|(of, _)| of == case).map(|(_, document)| document);
            let policies: Vec<_> = of_case().filter(|d| d["kind"] == "ValidatingAdmissionPolicy").collect();
            let bindings: Vec<_> = of_case().filter(|d| d["kind"] == "ValidatingAdmissionPolicyBinding").collect();
            assert_eq!((policies.len(), bindings.len()), (3, 3), "{case}");
            for (policy, binding) in policies.iter().zip(bindings) {
                assert_eq!(policy["spec"]["failurePolicy"], "Fail", "{case}");
                assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"], "{case}");
                assert_eq!(list(binding, "/spec/validationActions"), ["Deny"], "{case}");
            }
            let rules = policies[0]["spec"]["matchConstraints"]["resourceRules"].as_array().unwrap();
            let confined: Vec<_> = rules.iter().flat_map(|rule| list(rule, "/resources")).collect();
            for role in of_case().filter(|d| matches!(d["kind"].as_str(), Some("Role" | "ClusterRole"))) {
                for rule in role["rules"].as_array().unwrap() {
                    let named = !list(rule, "/resourceNames").is_empty();
                    let users = role["metadata"]["name"].as_str().unwrap().ends_with("-edit");
                    let writes =
                        list(rule, "/verbs").iter().any(|verb| ["create", "patch", "update", "delete"].contains(verb));
                    for kind in list(rule, "/resources").into_iter().filter(|_| writes && !named && !users) {
                        let says = kind.ends_with("/status") || ["events", "tokenreviews", "leases"].contains(&kind);
                        assert!(says || confined.contains(&kind), "{case}: nothing confines {kind}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_object_says_its_namespace() {
        for (case, document) in documents() {
            let kind = document["kind"].as_str().unwrap();
            let namespace = document["metadata"]["namespace"].as_str();
            match kind {
                "Role" | "RoleBinding" if namespace == Some("shop-edge") => assert_eq!(case, "full"),
                _ if CLUSTER_SCOPED.contains(&kind) => assert_eq!(namespace, None, "{case}: {kind}"),
                _ => assert_eq!(namespace, Some("sluice-system"), "{case}: {kind}"),
            }
        }
    }

    #[test]
    fn pods_may_do_nothing_special() {
        let mut pods = 0;
        for (case, document) in documents() {
            let spec = match document["kind"].as_str().unwrap() {
                "Pod" => &document["spec"],
                "Deployment" => &document["spec"]["template"]["spec"],
                _ => continue,
            };
            pods += 1;
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{case}");
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{case}");
            for container in spec["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["readOnlyRootFilesystem"], true, "{case}");
                assert_eq!(context["allowPrivilegeEscalation"], false, "{case}");
                assert_eq!(list(context, "/capabilities/drop"), ["ALL"], "{case}");
            }
        }
        assert!(pods >= 6, "{pods}");
    }

    #[test]
    fn the_fleet_is_a_manifest_of_the_release() {
        let manifests: Vec<Value> = documents()
            .iter()
            .filter_map(|(_, document)| document["data"]["fleet.yaml"].as_str())
            .map(|text| serde_yaml::from_str(text).unwrap())
            .collect();
        let names: Vec<_> = manifests.iter().map(|manifest| manifest["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["default", "edge"]);
        for manifest in &manifests {
            assert_eq!(manifest["kind"], "GatewayFleet");
            assert!(manifest["spec"]["listeners"].is_array());
        }
    }
}
