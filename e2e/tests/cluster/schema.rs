//! The API server and `crds::admit` say the same of each manifest of `crds/testdata`, whose verdict stands beside it:
//! accepted, or refused with the same field named.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Instant};

use e2e::cluster::{Api, Refusal, Resource, Shell, grants};
use http::Method;
use serde_json::Value;

/// Where the two differ, and why that stays. One that agrees fails the test too.
const DIFFERENT: &[(&str, &str)] = &[
    (
        "document-kind-unknown",
        "there is no place to send it to: what the API server says is about another kind's place",
    ),
    ("document-list", "the API server says that it has no kind"),
    ("document-text", "the API server says that it has no kind"),
    ("endpointslice-ok-loopback", "upstreams on this machine are for standalone; a cluster's API server refuses them"),
    ("endpointslice-port", "the API server takes any number, but nothing listens on port 0"),
    ("fleet-ok-status-is-ignored", "a status is the operator's to write, so what stands in a manifest does not matter"),
    ("fleet-rollout-canary-observe-pattern", "the API server also names the rule that compares what is no duration"),
    ("grant-version", "there is no place to send it to: what the API server says is about another version's place"),
    ("metadata-creation-timestamp", "the API server names no field, only what it cannot parse"),
    ("metadata-namespace-dot", "the API server looks for that namespace, and says that it is not found"),
    ("namespace-in-namespace", "the API server drops it silently"),
    ("secret-key", "the API server looks when it has moved stringData into data"),
    ("secret-no-base64", "the API server names no field, only what it cannot decode"),
    ("service-port-high", "the API server also names targetPort, which is the same number by default"),
];

#[test]
fn the_api_server_and_admit_agree() {
    let started = Instant::now();
    let shell = Shell::open().unwrap();
    shell.run("kubectl apply --server-side --force-conflicts -f crds/yaml").unwrap();
    let _grants = grants::installed(&shell).unwrap();
    let api = Api::connect(&shell.kubeconfig().unwrap()).unwrap();
    let inputs = inputs();
    assert!(inputs.len() > 200, "the manifests are gone");

    let mut wrong = Vec::new();
    for input in &inputs {
        let name = input.file_name().unwrap().to_string_lossy().replace(".in.yaml", "");
        let golden = fs::read_to_string(input.with_extension("").with_extension("out")).unwrap();
        let answer = answer(&api, &fs::read_to_string(input).unwrap());
        let agrees = agrees(&golden, answer.as_ref().err());
        let known = DIFFERENT.iter().find(|(different, _)| *different == name);
        match (agrees, known) {
            (Err(_), Some(_)) | (Ok(()), None) => {}
            (Err(why), None) => wrong.push(format!("{name}: {why}\n  ours   {golden}  theirs {answer:?}")),
            (Ok(()), Some((_, reason))) => wrong.push(format!("{name}: they agree, though {reason}")),
        }
    }
    for (name, _) in DIFFERENT {
        assert!(inputs.iter().any(|input| input.ends_with(format!("{name}.in.yaml"))), "{name} is gone");
    }
    println!(
        "{} manifests in {:.1?}, {} of them with different words for a reason",
        inputs.len(),
        started.elapsed(),
        DIFFERENT.len()
    );
    assert!(wrong.is_empty(), "{} disagreements\n{}", wrong.len(), wrong.join("\n"));
}

/// What the API server says to a `kubectl create --dry-run=server --validate=strict`.
fn answer(api: &Api, manifest: &str) -> Result<Value, Refusal> {
    let mut object: Value = serde_yaml::from_str(manifest).unwrap();
    // Which namespace it is does not matter, but it must be there.
    let mut namespace = "default".to_owned();
    if let Some(Value::String(name)) = object.pointer_mut("/metadata/namespace") {
        if name.contains('.') {
            namespace.clone_from(name);
        } else if !name.is_empty() {
            name.clone_from(&namespace);
        }
    }
    let resource = match (object["kind"].as_str().unwrap_or_default(), object["apiVersion"].as_str()) {
        ("GatewayFleet", _) => Resource::GATEWAY_FLEETS,
        ("RatePolicy", _) => Resource::RATE_POLICIES,
        ("AccessPolicy", _) => Resource::ACCESS_POLICIES,
        ("Consumer", _) => Resource::CONSUMERS,
        ("Service", _) => Resource::SERVICES,
        ("EndpointSlice", _) => Resource::ENDPOINT_SLICES,
        ("Secret", _) => Resource::SECRETS,
        ("ReferenceGrant", Some("gateway.networking.k8s.io/v1beta1")) => Resource::REFERENCE_GRANTS_BETA,
        ("ReferenceGrant", _) => Resource::REFERENCE_GRANTS,
        ("Namespace", _) => {
            namespace.clear();
            Resource::NAMESPACES
        }
        _ => Resource::API_ROUTES,
    };
    let path = format!("{}?dryRun=All&fieldValidation=Strict", resource.all(&namespace));
    api.send(Method::POST, &path, Some(&object)).unwrap()
}

/// Whether our verdict and theirs are the same. They report the first stage that found something, we report all stages:
/// what they name we must name, and what we name they must name unless they stopped early.
fn agrees(golden: &str, theirs: Option<&Refusal>) -> Result<(), String> {
    let ours = golden.strip_prefix("refused\n").map(named);
    let (ours, refusal) = match (ours, theirs) {
        (None, None) => return Ok(()),
        (Some(_), None) => return Err("the API server accepts it".to_owned()),
        (None, Some(_)) => return Err("the API server refuses it".to_owned()),
        (Some(ours), Some(refusal)) => (ours, refusal),
    };
    let theirs = fields(refusal);
    if theirs.is_empty() {
        return Err("the API server names no field".to_owned());
    }
    let cut = golden.contains("\nand ");
    if let Some(field) = theirs.iter().find(|field| !cut && !ours.iter().any(|other| same(field, other))) {
        return Err(format!("only the API server names {field}"));
    }
    let stopped = refusal.code != 422 || refusal.causes.iter().any(|(field, _)| field == "<nil>");
    match ours.iter().find(|field| !stopped && !cut && !theirs.iter().any(|other| same(field, other))) {
        Some(field) => Err(format!("the API server does not name {field}")),
        None => Ok(()),
    }
}

/// The fields that our verdict names.
fn named(violations: &str) -> BTreeSet<String> {
    let field = |line: &str| line.split_once(": ").map_or("", |(field, _)| field).to_owned();
    violations.lines().map(field).collect()
}

/// The fields that a refusal of the API server names: as causes, or, when the object could not even be decoded, in its
/// text.
fn fields(refusal: &Refusal) -> BTreeSet<String> {
    let causes = refusal.causes.iter().map(|(field, _)| field.clone());
    let mut fields: BTreeSet<_> = causes.filter(|field| field != "<nil>").collect();
    let message = &refusal.message;
    for text in message.split("unknown field \"").skip(1) {
        fields.extend(text.split_once('"').map(|(field, _)| field.to_owned()));
    }
    if message.contains("the API version in the data") {
        fields.insert("apiVersion".to_owned());
    } else if message.contains("couldn't get version/kind") || message.contains("Object 'Kind' is missing") {
        fields.insert("kind".to_owned());
    } else if message.contains("the namespace of the provided object") {
        fields.insert("metadata.namespace".to_owned());
    } else if let Some((_, rest)) = message.split_once("into Go struct field ")
        && let Some((kind, field)) = rest.split_once(' ').and_then(|(field, _)| field.split_once('.'))
    {
        // As Go calls it: the type, then the way to the field, without positions in lists.
        fields.insert(if kind == "ObjectMeta" { format!("metadata.{field}") } else { field.to_owned() });
    }
    fields
}

/// Whether two paths mean the same field, or one the other's direct part: who says `labels[a]` and who says `labels` see
/// the same mistake.
fn same(a: &str, b: &str) -> bool {
    let (a, b) = (steps(a), steps(b));
    // The Go decoder leaves the positions in lists out.
    let names = |steps: &[String]| -> Vec<String> {
        steps.iter().filter(|step| step.parse::<u32>().is_err()).cloned().collect()
    };
    let near = |a: &[String], b: &[String]| {
        let common = a.len().min(b.len());
        common > 0 && a.len().abs_diff(b.len()) <= 1 && a[..common] == b[..common]
    };
    let without_positions = [&a, &b].into_iter().any(|steps| names(steps) == **steps);
    near(&a, &b) || (without_positions && names(&a) == names(&b))
}

/// `spec.rules[0].name` as `spec`, `rules`, `0`, `name`; a key in brackets may hold dots.
fn steps(path: &str) -> Vec<String> {
    path.split(['.', '[', ']', '/']).filter(|step| !step.is_empty()).map(str::to_owned).collect()
}

fn inputs() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/testdata");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.to_string_lossy().ends_with(".in.yaml")).collect();
    paths.sort();
    paths
}

#[test]
fn paths_of_one_field() {
    assert!(same("metadata.labels[a b]", "metadata.labels"));
    assert!(same("spec.limits[nvidia.com/gpu]", "spec.limits.nvidia.com/gpu"));
    assert!(same("spec.ports[0].nodePort", "spec.ports.nodePort"));
    assert!(!same("spec.ports[0].nodePort", "spec.ports[1].nodePort"));
    assert!(!same("spec", "spec.ports[0].nodePort"));
    assert!(!same("", "spec"));
}
