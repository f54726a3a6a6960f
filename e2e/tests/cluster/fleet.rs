//! What a fleet is made of stays what the operator made of it, and leaves alone what others own.

use std::time::Instant;

use e2e::cluster::{FLEET, Fleet, Place, Resource, names, sluice};
use serde_json::{Value, json};

use crate::seconds;

const NAME: &str = "sluice-edge";

#[test]
fn objects_are_kept_as_they_are_meant() {
    let sluice = sluice().unwrap();
    let place = Place::new(&sluice, "fleet", &Fleet::fixed(1)).unwrap();
    let api = place.api();
    let fleet = place.fleet().unwrap();
    let owned = [
        Resource::SERVICES,
        Resource::POD_DISRUPTION_BUDGETS,
        Resource::NETWORK_POLICIES,
        Resource::CONFIG_MAPS,
        Resource::SERVICE_ACCOUNTS,
        // Last, and so with pods of the new ServiceAccount: a pod that starts with a token of a deleted one can't enrol
        // until its kubelet asks for another, which takes minutes.
        Resource::DEPLOYMENTS,
    ];
    for resource in owned {
        let name = if resource == Resource::CONFIG_MAPS { "sluice-edge-ca" } else { NAME };
        let object = place.object(resource, name).unwrap();
        let owner = &object["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["uid"], &owner["controller"]), (&fleet["metadata"]["uid"], &json!(true)), "{object:#}");
        assert_eq!(object["metadata"]["labels"]["sluice.dev/fleet"], FLEET);
    }

    // Hand edits are undone, what others add stays.
    let annotate =
        format!("kubectl annotate --namespace {} deployment/{NAME} service/{NAME} example.com/note=x", place.namespace);
    sluice.shell.run(&annotate).unwrap();
    let port = place.object(Resource::SERVICES, NAME).unwrap()["spec"]["ports"][0].clone();
    let edits = [
        (
            Resource::SERVICES,
            json!({"spec": {"selector": {"app.kubernetes.io/name": "other"}}}),
            "/spec/selector/app.kubernetes.io~1name",
        ),
        (
            Resource::DEPLOYMENTS,
            json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 7}}}}),
            "/spec/template/spec/terminationGracePeriodSeconds",
        ),
        (Resource::POD_DISRUPTION_BUDGETS, json!({"spec": {"maxUnavailable": 7}}), "/spec/maxUnavailable"),
        (
            Resource::NETWORK_POLICIES,
            json!({"spec": {"podSelector": {"matchLabels": {"sluice.dev/fleet": "other"}}}}),
            "/spec/podSelector/matchLabels/sluice.dev~1fleet",
        ),
    ];
    for (resource, patch, pointer) in edits {
        let before = place.object(resource, NAME).unwrap().pointer(pointer).cloned();
        assert!(before.is_some(), "{} has no {pointer}", resource.plural());
        api.patch(resource, &place.namespace, NAME, &patch).unwrap();
        let at = Instant::now();
        api.eventually(&format!("{} {pointer} is restored", resource.plural()), seconds(15), |_| {
            Ok((place.object(resource, NAME)?.pointer(pointer) == before.as_ref()).then_some(()))
        })
        .unwrap();
        println!("{} restored after {:.0?}", resource.plural(), at.elapsed());
    }
    for resource in [Resource::DEPLOYMENTS, Resource::SERVICES] {
        let object = place.object(resource, NAME).unwrap();
        assert_eq!(object["metadata"]["annotations"]["example.com/note"], "x", "{object:#}");
    }
    assert_eq!(place.object(Resource::SERVICES, NAME).unwrap()["spec"]["ports"][0], port);

    // What is deleted comes back.
    for resource in owned {
        let name = if resource == Resource::CONFIG_MAPS { "sluice-edge-ca" } else { NAME };
        let before = place.object(resource, name).unwrap()["metadata"]["uid"].clone();
        api.delete(resource, &place.namespace, name, None).unwrap();
        let at = Instant::now();
        api.eventually(&format!("{} is back", resource.plural()), seconds(20), |api| {
            let object = api.get(resource, &place.namespace, name)?.unwrap_or_default();
            Ok((object["metadata"]["uid"].is_string() && object["metadata"]["uid"] != before).then_some(()))
        })
        .unwrap();
        println!("{} back after {:.0?}", resource.plural(), at.elapsed());
    }
    place.wait_for_proxies(1, seconds(60)).unwrap();
}

#[test]
fn replicas_belong_to_the_scaler() {
    let sluice = sluice().unwrap();
    let place = Place::new(&sluice, "replicas", &Fleet::fixed(1)).unwrap();
    assert_eq!(replicas(&place), (1, vec!["sluice-scaler".to_owned()]));
    let generation = |deployment: &Value| deployment["metadata"]["generation"].as_u64().unwrap();
    let before = generation(&place.object(Resource::DEPLOYMENTS, NAME).unwrap());

    // Hand-made scaling of the Deployment does not last: one change by hand, one back.
    sluice.shell.run(&format!("kubectl scale deployment/{NAME} --replicas=3 --namespace {}", place.namespace)).unwrap();
    place
        .api()
        .eventually("spec.replicas is restored", seconds(60), |_| {
            let deployment = place.object(Resource::DEPLOYMENTS, NAME)?;
            let restored = deployment["spec"]["replicas"] == 1 && generation(&deployment) >= before + 2;
            Ok(restored.then_some(()))
        })
        .unwrap();
    place.wait_for_proxies(1, seconds(60)).unwrap();
    assert_eq!(replicas(&place), (1, vec!["sluice-scaler".to_owned()]));

    // `kubectl scale` of the fleet is for mode External, and there it is what counts.
    place.patch_fleet(&json!({"scaling": {"mode": "External", "replicas": 1, "maxReplicas": 4}})).unwrap();
    assert_eq!(replicas(&place).0, 1);
    let at = Instant::now();
    sluice
        .shell
        .run(&format!("kubectl scale gatewayfleet/{FLEET} --replicas=3 --namespace {}", place.namespace))
        .unwrap();
    place.wait_for_proxies(3, seconds(60)).unwrap();
    println!("scaled to 3 by /scale in {:.1?}", at.elapsed());
    assert_eq!(replicas(&place), (3, vec!["sluice-scaler".to_owned()]));
    let scale = format!("{}/scale", Resource::GATEWAY_FLEETS.named(&place.namespace, FLEET));
    let scale = api_value(&place, &scale, |scale| scale["status"]["replicas"] == 3);
    let selector = scale["status"]["selector"].as_str().unwrap();
    assert_eq!(place.api().list(Resource::PODS, &place.namespace, selector).unwrap().len(), 3, "{selector}");
}

#[test]
fn proxies_may_do_nothing_but_serve() {
    let sluice = sluice().unwrap();
    let place = Place::new(&sluice, "bounds", &Fleet::fixed(1)).unwrap();
    let pods = place.proxies().unwrap();
    let [pod] = &pods[..] else { panic!("{:?}", names(&pods)) };
    let (spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
    assert_eq!(spec["automountServiceAccountToken"], false, "{spec:#}");
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{spec:#}");
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{spec:#}");
    let context = &container["securityContext"];
    assert_eq!(context["readOnlyRootFilesystem"], true, "{context:#}");
    assert_eq!(context["allowPrivilegeEscalation"], false, "{context:#}");
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{context:#}");
    // The one token is for the operator alone, and short-lived.
    let volumes = spec["volumes"].as_array().unwrap();
    let tokens: Vec<_> = volumes
        .iter()
        .flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten())
        .filter_map(|source| source.get("serviceAccountToken"))
        .map(|token| (token["audience"].clone(), token["expirationSeconds"].clone()))
        .collect();
    assert_eq!(tokens, [(json!("sluice"), json!(600))], "{volumes:#?}");
    assert_eq!(volumes.iter().filter(|volume| !volume["secret"].is_null()).count(), 0, "{volumes:#?}");
}

/// `spec.replicas` of the Deployment, and the field managers that own it.
fn replicas(place: &Place<'_>) -> (u64, Vec<String>) {
    let deployment = place.object(Resource::DEPLOYMENTS, NAME).unwrap();
    let managed = deployment["metadata"]["managedFields"].as_array().unwrap();
    let owns = |entry: &&Value| !entry["fieldsV1"]["f:spec"]["f:replicas"].is_null();
    let managers = managed.iter().filter(owns).map(|entry| entry["manager"].as_str().unwrap().to_owned());
    (deployment["spec"]["replicas"].as_u64().unwrap(), managers.collect())
}

/// What is at a path, as soon as it is as wanted.
fn api_value(place: &Place<'_>, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    place
        .api()
        .eventually(path, seconds(20), |api| Ok(Some(api.send(http::Method::GET, path, None)??).filter(&wanted)))
        .unwrap()
}
