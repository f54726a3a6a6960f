//! What passes the schema and is wrong all the same gets its condition, and only that rule fails.

use std::time::{Duration, Instant};

use e2e::cluster::{FLEET, Fleet, HOST, Place, Resource, UPSTREAM, grants, sluice};

use crate::{assert_median, bound, rounds, seconds};

const TOLD: Duration = Duration::from_secs(5);

/// A route with a rule that works, `/NAME/good`, and one that does not, `/NAME/bad` with these lines.
struct Wrong {
    name: &'static str,
    rule: &'static str,
    condition: &'static str,
    reason: &'static str,
    /// What the message names.
    says: &'static str,
    /// What a request for the bad rule gets.
    status: u16,
}

const WRONG: &[Wrong] = &[
    Wrong {
        name: "no-service",
        rule: "backendRefs: [{name: missing, port: 80}]",
        condition: "ResolvedRefs",
        reason: "BackendNotFound",
        says: "spec.rules[1].backendRefs[0]",
        status: 500,
    },
    Wrong {
        name: "no-port",
        rule: "backendRefs: [{name: echo, port: 81}]",
        condition: "ResolvedRefs",
        reason: "BackendNotFound",
        says: "spec.rules[1].backendRefs[0]",
        status: 500,
    },
    Wrong {
        name: "no-grant",
        rule: "backendRefs: [{name: echo, namespace: e2e-other, port: 80}]",
        condition: "ResolvedRefs",
        reason: "RefNotPermitted",
        says: "spec.rules[1].backendRefs[0]",
        status: 500,
    },
    Wrong {
        name: "address",
        rule: "backendRefs: [{address: \"10.0.0.1:80\"}]",
        condition: "ResolvedRefs",
        reason: "RefNotPermitted",
        says: "allowedAddresses",
        status: 500,
    },
    Wrong {
        name: "regex",
        rule: "matches: [{path: {type: RegularExpression, value: \"/regex/(bad\"}}]\nbackendRefs: [{name: echo, port: 80}]",
        condition: "Accepted",
        reason: "InvalidRegex",
        says: "spec.rules[1].matches[0].path.value",
        status: 404,
    },
];

impl Wrong {
    fn yaml(&self, namespace: &str) -> String {
        let Wrong { name, rule, .. } = self;
        let matched = format!("matches: [{{path: {{type: PathPrefix, value: /{name}/bad}}}}]\n");
        let rule = if rule.contains("matches:") { (*rule).to_owned() } else { matched + rule };
        let rule: String = rule.lines().map(|line| format!("    {line}\n")).collect();
        format!(
            "apiVersion: sluice.dev/v1alpha1\n\
             kind: ApiRoute\n\
             metadata: {{name: {name}, namespace: {namespace}}}\n\
             spec:\n  \
               parentRefs: [{{name: {FLEET}, namespace: {namespace}}}]\n  \
               hostnames: [{HOST}]\n  \
               rules:\n  \
               - name: good\n    \
                 matches: [{{path: {{type: PathPrefix, value: /{name}/good}}}}]\n    \
                 backendRefs: [{{name: {UPSTREAM}, port: 80}}]\n  \
               - name: bad\n{rule}"
        )
    }
}

#[test]
fn what_is_wrong_is_told_and_only_that_rule_fails() {
    let sluice = sluice().unwrap();
    grants::absent(&sluice.shell).unwrap();
    let place = Place::new(&sluice, "wrong", &Fleet::fixed(1)).unwrap();
    let other = Place::new(&sluice, "other", &Fleet::fixed(1)).unwrap();

    for wrong in WRONG {
        let mut times = vec![];
        while times.len() < rounds() {
            place.api().delete(Resource::API_ROUTES, &place.namespace, wrong.name, None).unwrap();
            let at = Instant::now();
            place.apply(&wrong.yaml(&place.namespace)).unwrap();
            let expect = (wrong.condition, "False");
            let told = place.until_condition(Resource::API_ROUTES, wrong.name, expect, TOLD * 10).unwrap();
            times.push(at.elapsed());
            println!("{:<12} {:>6.0?}  {}: {}", wrong.name, at.elapsed(), told.reason, told.message);
            assert_eq!(told.reason, wrong.reason, "{}: {told:?}", wrong.name);
            assert!(told.message.contains(wrong.says), "{}: {told:?}", wrong.name);
        }
        assert_median(TOLD, &times);
        place.until(&format!("/{}/good", wrong.name), 200, "", bound(TOLD)).unwrap();
        assert_eq!(place.get(&format!("/{}/bad", wrong.name)).unwrap().status, wrong.status, "{}", wrong.name);
    }

    // The reference becomes permitted with a grant, whose definition was not there when the operator started.
    let _installed = grants::installed(&sluice.shell).unwrap();
    let at = Instant::now();
    let grant = format!(
        "apiVersion: gateway.networking.k8s.io/v1\n\
         kind: ReferenceGrant\n\
         metadata: {{name: from-wrong, namespace: {}}}\n\
         spec:\n  \
           from: [{{group: sluice.dev, kind: ApiRoute, namespace: {}}}]\n  \
           to: [{{group: \"\", kind: Service}}]\n",
        other.namespace, place.namespace
    );
    place.api().eventually("the grant is taken", seconds(20), |_| place.apply(&grant).map(Some)).unwrap();
    place.until("/no-grant/bad", 200, "", seconds(60)).unwrap();
    let permitted =
        place.until_condition(Resource::API_ROUTES, "no-grant", ("ResolvedRefs", "True"), seconds(20)).unwrap();
    println!("granted after {:.1?}: {}", at.elapsed(), permitted.reason);
    place.api().delete(Resource::REFERENCE_GRANTS, &other.namespace, "from-wrong", None).unwrap();
    place.until("/no-grant/bad", 500, "", bound(TOLD)).unwrap();

    // The address is allowed by the fleet.
    place.patch_fleet(&serde_json::json!({"backends": {"allowedAddresses": ["10.0.0.0/8"]}})).unwrap();
    place.until_condition(Resource::API_ROUTES, "address", ("ResolvedRefs", "True"), bound(TOLD)).unwrap();

    // A host of another namespace's route stays that one's.
    let taken = other
        .route_yaml("taken", "/", "")
        .replace(&format!("namespace: {}}}]", other.namespace), &format!("namespace: {}}}]", place.namespace));
    let at = Instant::now();
    other.apply(&taken).unwrap();
    let told = other.until_condition(Resource::API_ROUTES, "taken", ("Programmed", "False"), bound(TOLD)).unwrap();
    println!("taken        {:>6.0?}  {}: {}", at.elapsed(), told.reason, told.message);
    assert_eq!(told.reason, "Conflicted", "{told:?}");
    assert!(told.message.contains("spec.hostnames[0]") && told.message.contains(&place.namespace), "{told:?}");
    assert_eq!(place.get("/no-service/good").unwrap().status, 200);
}

#[test]
fn what_fleets_and_policies_miss_is_told() {
    let sluice = sluice().unwrap();
    let place = Place::new(&sluice, "missing", &Fleet::fixed(1)).unwrap();
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    place.until("/", 200, "", seconds(20)).unwrap();

    // A policy whose target is not there, beside one that has its own.
    let policy = |name: &str, target: &str| {
        format!(
            "apiVersion: sluice.dev/v1alpha1\n\
             kind: RatePolicy\n\
             metadata: {{name: {name}, namespace: {}}}\n\
             spec:\n  \
               targetRefs: [{{group: sluice.dev, kind: ApiRoute, name: {target}}}]\n  \
               limits: [{{name: all, tokenBucket: {{rate: 100, per: 1s, burst: 100}}}}]\n",
            place.namespace
        )
    };
    place.apply(&policy("fits", "all")).unwrap();
    let at = Instant::now();
    place.apply(&policy("misses", "missing")).unwrap();
    let told = place.until_condition(Resource::RATE_POLICIES, "misses", ("Accepted", "False"), bound(TOLD)).unwrap();
    println!("no target    {:>6.0?}  {}: {}", at.elapsed(), told.reason, told.message);
    assert_eq!(told.reason, "TargetNotFound", "{told:?}");
    assert!(told.message.contains("spec.targetRefs[0]"), "{told:?}");
    place.until_condition(Resource::RATE_POLICIES, "fits", ("Programmed", "True"), bound(TOLD)).unwrap();

    // A listener without its Secret: the others serve.
    let at = Instant::now();
    place
        .patch_fleet(&serde_json::json!({"listeners": [
            {"name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}},
            {"name": "https", "protocol": "HTTPS", "port": 443, "tls": {"certificateRefs": [{"name": "missing"}]}},
        ]}))
        .unwrap();
    let told = place.until_condition(Resource::GATEWAY_FLEETS, FLEET, ("Programmed", "False"), bound(TOLD)).unwrap();
    println!("no secret    {:>6.0?}  {}: {}", at.elapsed(), told.reason, told.message);
    assert!(told.message.contains("spec.listeners[1].tls"), "{told:?}");
    for _ in 0..20 {
        assert_eq!(place.get("/").unwrap().status, 200);
    }
}
