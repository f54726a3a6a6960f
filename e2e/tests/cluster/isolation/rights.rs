//! What strangers may do in a cluster: a tenant with the right to edit its namespace, and whoever got hold of the operator's
//! own token. The kind of harm: rights that are wider than the job, or that lead to wider ones. Each forbidden action is sent
//! to the real API server, as the one who would do it, and denied by it, by RBAC or by an admission policy of the chart; each
//! has a twin nearby that is allowed, so that it is not denied for another reason.

#![allow(clippy::needless_pass_by_value)] // JSON, where it is written

use e2e::cluster::{FLEET, Fleet, HOST, OPERATOR, Place, RELEASE, Resource, SYSTEM, Sluice, sluice};
use http::Method;
use serde_json::{Value, json};

use crate::seconds;

/// What somebody tries: method, path and body.
struct Action {
    what: String,
    method: Method,
    path: String,
    body: Option<Value>,
}

fn action(what: &str, method: Method, path: String, body: Option<Value>) -> Action {
    Action { what: what.to_owned(), method, path, body }
}

fn get(what: &str, path: String) -> Action {
    action(what, Method::GET, path, None)
}

/// Nothing that is allowed by mistake has consequences.
fn dry(path: &str) -> String {
    format!("{path}{}dryRun=All", if path.contains('?') { "&" } else { "?" })
}

fn create(what: &str, resource: Resource, namespace: &str, body: Value) -> Action {
    action(what, Method::POST, dry(&resource.all(namespace)), Some(body))
}

fn patch(what: &str, resource: Resource, namespace: &str, name: &str, body: Value) -> Action {
    action(what, Method::PATCH, dry(&resource.named(namespace, name)), Some(body))
}

fn delete(what: &str, resource: Resource, namespace: &str, name: &str) -> Action {
    action(what, Method::DELETE, dry(&resource.named(namespace, name)), Some(json!({})))
}

const OWN: [(&str, &str); 2] = [("app.kubernetes.io/managed-by", "sluice-operator"), ("sluice.dev/fleet", "f")];

/// The labels of a fleet's objects.
fn own() -> Value {
    OWN.into_iter()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect::<serde_json::Map<String, Value>>()
        .into()
}

fn deployment(labels: Value, change: impl FnOnce(&mut Value)) -> Value {
    let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let mut spec = json!({
        "serviceAccountName": "sluice-f", "automountServiceAccountToken": false, "securityContext": {"runAsNonRoot": true},
        "containers": [{"name": "proxy", "image": "x", "securityContext": context}],
    });
    change(&mut spec);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "sluice-f", "labels": labels},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}},
    })
}

fn service(labels: Value, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "sluice-f", "labels": labels}, "spec": spec})
}

fn named(kind: &str, version: &str, labels: Value) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": "sluice-f", "labels": labels}})
}

/// What the operator's account may not, with fleets everywhere: `victim` has objects of others, and `place` a fleet.
fn not_for_the_operator(victim: &str) -> Vec<Action> {
    let anything = || json!({"metadata": {"annotations": {"taken": "yes"}}});
    let labelled = || json!({"metadata": {"labels": own()}});
    let none = || json!({});
    let rule = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "all"}, "rules": [rule]});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": SYSTEM}],
    });
    let admission = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let in_pods =
        |what: &str, change: fn(&mut Value)| create(what, Resource::DEPLOYMENTS, victim, deployment(own(), change));
    let selector = json!({"sluice.dev/fleet": "f"});
    let ports = json!([{"port": 80}]);
    vec![
        get("reads all Secrets", Resource::SECRETS.all("")),
        get("reads the Secrets of a tenant", Resource::SECRETS.all(victim)),
        get("reads a Secret of a tenant", Resource::SECRETS.named(victim, "tenants")),
        get("reads Secrets of kube-system", Resource::SECRETS.all("kube-system")),
        get("reads a tenant's log", format!("{}/log", Resource::PODS.named(victim, "load"))),
        get("reads a kubelet through the API server", "/api/v1/nodes/node/proxy/pods".into()),
        action("makes a node", Method::POST, "/api/v1/nodes".into(), Some(named("Node", "v1", own()))),
        action(
            "runs a program in a pod",
            Method::POST,
            format!("{}/exec?command=id", Resource::PODS.named(victim, "load")),
            None,
        ),
        create("makes a Secret", Resource::SECRETS, victim, named("Secret", "v1", own())),
        patch("changes its authority's Secret elsewhere", Resource::SECRETS, victim, "tenants", anything()),
        delete("deletes a Secret", Resource::SECRETS, victim, "tenants"),
        create("makes a pod", Resource::PODS, victim, named("Pod", "v1", own())),
        delete("deletes a pod", Resource::PODS, victim, "load"),
        patch("marks a pod that is no proxy", Resource::PODS, victim, "load", anything()),
        patch("makes a pod its own", Resource::PODS, victim, "load", labelled()),
        create("makes a Deployment that is no fleet's", Resource::DEPLOYMENTS, victim, deployment(none(), |_| {})),
        patch("changes a tenant's Deployment", Resource::DEPLOYMENTS, victim, "tenants", anything()),
        patch("makes a tenant's Deployment its own", Resource::DEPLOYMENTS, victim, "tenants", labelled()),
        delete("deletes a tenant's Deployment", Resource::DEPLOYMENTS, victim, "tenants"),
        in_pods("runs a pod as another account", |pod| pod["serviceAccountName"] = "default".into()),
        in_pods("runs a pod with its node's network", |pod| pod["hostNetwork"] = true.into()),
        in_pods("runs a pod with its node's processes", |pod| pod["hostPID"] = true.into()),
        in_pods("mounts its node's files", |pod| pod["volumes"] = json!([{"name": "v", "hostPath": {"path": "/"}}])),
        in_pods("mounts a Secret", |pod| pod["volumes"] = json!([{"name": "v", "secret": {"secretName": "tenants"}}])),
        in_pods("mounts a Secret with others", |pod| {
            pod["volumes"] = json!([{"name": "v", "projected": {"sources": [{"secret": {"name": "tenants"}}]}}]);
        }),
        in_pods("mounts a token for the API server", |pod| {
            pod["volumes"] =
                json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]);
        }),
        in_pods("gets a token for the API server", |pod| pod["automountServiceAccountToken"] = true.into()),
        in_pods("reads a Secret into a variable", |pod| {
            pod["containers"][0]["env"] =
                json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "tenants", "key": "a"}}}]);
        }),
        in_pods("reads a Secret into variables", |pod| {
            pod["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "tenants"}}]);
        }),
        in_pods("runs something before", |pod| pod["initContainers"] = json!([{"name": "i", "image": "x"}])),
        in_pods("runs a privileged pod", |pod| {
            pod["containers"][0]["securityContext"] = json!({"privileged": true});
        }),
        in_pods("runs a pod that may get privileges", |pod| pod["containers"][0]["securityContext"] = json!({})),
        in_pods("runs a pod as root", |pod| pod["securityContext"] = json!({})),
        create(
            "makes a Service that is no fleet's",
            Resource::SERVICES,
            victim,
            service(none(), json!({"selector": selector, "ports": ports})),
        ),
        create(
            "makes a Service of others' pods",
            Resource::SERVICES,
            victim,
            service(own(), json!({"selector": {"app": "tenants"}, "ports": ports})),
        ),
        create(
            "takes an address that is not its own",
            Resource::SERVICES,
            victim,
            service(own(), json!({"selector": selector, "ports": ports, "externalIPs": ["203.0.113.1"]})),
        ),
        patch("changes a tenant's Service", Resource::SERVICES, victim, "tenants", anything()),
        delete("deletes a tenant's Service", Resource::SERVICES, victim, "tenants"),
        patch("changes the API server's Service", Resource::SERVICES, "default", "kubernetes", anything()),
        create(
            "makes an account that is no fleet's",
            Resource::SERVICE_ACCOUNTS,
            victim,
            named("ServiceAccount", "v1", none()),
        ),
        patch("changes an account", Resource::SERVICE_ACCOUNTS, victim, "default", anything()),
        action(
            "takes a token of its own account",
            Method::POST,
            format!("{}/token", Resource::SERVICE_ACCOUNTS.named(SYSTEM, OPERATOR)),
            Some(token.clone()),
        ),
        action(
            "takes a token of another account",
            Method::POST,
            format!("{}/token", Resource::SERVICE_ACCOUNTS.named(victim, "default")),
            Some(token),
        ),
        patch("changes what trusts the cluster", Resource::CONFIG_MAPS, victim, "kube-root-ca.crt", anything()),
        patch("changes the name server", Resource::CONFIG_MAPS, "kube-system", "coredns", anything()),
        create("makes a ConfigMap that is no fleet's", Resource::CONFIG_MAPS, victim, named("ConfigMap", "v1", none())),
        create("makes a NetworkPolicy that is no fleet's", Resource::NETWORK_POLICIES, victim, {
            let mut policy = named("NetworkPolicy", "networking.k8s.io/v1", none());
            policy["spec"] = json!({"podSelector": {}});
            policy
        }),
        patch("changes a tenant's route", Resource::API_ROUTES, victim, "tenants", anything()),
        delete("deletes a tenant's route", Resource::API_ROUTES, victim, "tenants"),
        create(
            "makes a GatewayFleet",
            Resource::GATEWAY_FLEETS,
            victim,
            json!({
                "apiVersion": "sluice.dev/v1alpha1", "kind": "GatewayFleet", "metadata": {"name": "f"},
                "spec": {"listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]},
            }),
        ),
        create("gives itself all rights", Resource::CLUSTER_ROLES, "", role),
        create("binds itself to all rights", Resource::CLUSTER_ROLE_BINDINGS, "", binding),
        patch("widens its own role", Resource::CLUSTER_ROLES, "", OPERATOR, anything()),
        action(
            "takes away what confines it",
            Method::DELETE,
            dry(&format!("{admission}/{OPERATOR}-objects")),
            Some(json!({})),
        ),
        patch("changes a definition", Resource::CRDS, "", "apiroutes.sluice.dev", anything()),
        patch("labels a namespace", Resource::NAMESPACES, "", victim, anything()),
        patch("takes another's Lease", Resource::LEASES, "kube-system", "kube-controller-manager", anything()),
    ]
}

/// What whoever has the right to edit a namespace may not: `own` is that namespace, `other` another's.
fn not_for_a_tenant(own: &str, other: &str) -> Vec<Action> {
    let anything = || json!({"metadata": {"annotations": {"taken": "yes"}}});
    let fleet = |namespace: &str| {
        create(
            "makes a GatewayFleet",
            Resource::GATEWAY_FLEETS,
            namespace,
            json!({
                "apiVersion": "sluice.dev/v1alpha1", "kind": "GatewayFleet", "metadata": {"name": "f"},
                "spec": {"listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]},
            }),
        )
    };
    let status = json!({"status": {"conditions": []}});
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "x"}});
    let token =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["sluice"]}});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
        "rules": [{"apiGroups": ["sluice.dev"], "resources": ["gatewayfleets"], "verbs": ["*"]}],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [],
        "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "tenants"}},
    });
    vec![
        fleet(own),
        fleet(SYSTEM),
        patch("changes the fleet of all", Resource::GATEWAY_FLEETS, SYSTEM, "default", anything()),
        delete("deletes the fleet of all", Resource::GATEWAY_FLEETS, SYSTEM, "default"),
        action(
            "says that its route is served",
            Method::PATCH,
            dry(&format!("{}/status", Resource::API_ROUTES.named(own, "tenants"))),
            Some(status.clone()),
        ),
        action(
            "says that the fleet is Ready",
            Method::PATCH,
            dry(&format!("{}/status", Resource::GATEWAY_FLEETS.named(SYSTEM, "default"))),
            Some(status),
        ),
        create(
            "makes another's route",
            Resource::API_ROUTES,
            other,
            json!({
                "apiVersion": "sluice.dev/v1alpha1", "kind": "ApiRoute", "metadata": {"name": "r"},
                "spec": {"hostnames": [HOST], "rules": [{"backendRefs": [{"name": "a", "port": 80}]}]},
            }),
        ),
        patch("changes another's route", Resource::API_ROUTES, other, "tenants", anything()),
        delete("deletes another's route", Resource::API_ROUTES, other, "tenants"),
        get("reads another's routes", Resource::API_ROUTES.all(other)),
        get("reads another's Secrets", Resource::SECRETS.all(other)),
        get("reads the authority's key", Resource::SECRETS.named(SYSTEM, &format!("{RELEASE}-control-ca"))),
        patch("makes an authority of its own", Resource::SECRETS, SYSTEM, &format!("{RELEASE}-control-ca"), anything()),
        patch(
            "changes what the operator remembers",
            Resource::CONFIG_MAPS,
            SYSTEM,
            &format!("{RELEASE}-memory"),
            anything(),
        ),
        patch("changes what proxies trust", Resource::CONFIG_MAPS, SYSTEM, "sluice-default-ca", anything()),
        patch("takes the Lease", Resource::LEASES, SYSTEM, OPERATOR, anything()),
        patch("changes the operator", Resource::DEPLOYMENTS, SYSTEM, OPERATOR, anything()),
        patch("changes the proxies", Resource::DEPLOYMENTS, SYSTEM, "sluice-default", anything()),
        create(
            "makes a pod beside the operator",
            Resource::PODS,
            SYSTEM,
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
                "spec": {"serviceAccountName": OPERATOR, "containers": [{"name": "c", "image": "x"}]},
            }),
        ),
        action(
            "takes a token of a proxy",
            Method::POST,
            format!("{}/token", Resource::SERVICE_ACCOUNTS.named(SYSTEM, "sluice-default")),
            Some(token.clone()),
        ),
        action(
            "takes a token of the operator",
            Method::POST,
            format!("{}/token", Resource::SERVICE_ACCOUNTS.named(SYSTEM, OPERATOR)),
            Some(token),
        ),
        action(
            "asks who holds a token",
            Method::POST,
            "/apis/authentication.k8s.io/v1/tokenreviews".into(),
            Some(review),
        ),
        create("gives itself fleets", Resource::ROLES, own, role),
        create("makes endpoints by hand", Resource::ENDPOINT_SLICES, own, slice),
        patch("labels its namespace", Resource::NAMESPACES, "", own, anything()),
        patch("changes a definition", Resource::CRDS, "", "apiroutes.sluice.dev", anything()),
        patch("widens a role", Resource::CLUSTER_ROLES, "", OPERATOR, anything()),
        create(
            "permits itself another's Secrets",
            Resource::REFERENCE_GRANTS,
            other,
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ReferenceGrant", "metadata": {"name": "g"},
                "spec": {"from": [], "to": []},
            }),
        ),
    ]
}

/// Sends each as a user: every one is denied.
#[track_caller]
fn all_denied(sluice: &Sluice, user: &str, actions: Vec<Action>) -> usize {
    let mut wrong = vec![];
    let count = actions.len();
    for Action { what, method, path, body } in actions {
        match sluice.api.send_as(Some(user), method.clone(), &path, body.as_ref()) {
            Ok(Err(refusal)) if refusal.code == 403 => {}
            Ok(Err(refusal)) => wrong.push(format!("{what}: {method} {path}: {refusal}")),
            Ok(Ok(_)) => wrong.push(format!("{what}: {method} {path}: allowed")),
            Err(error) => wrong.push(format!("{what}: {method} {path}: {error:#}")),
        }
    }
    assert!(wrong.is_empty(), "{user} is not denied:\n{}", wrong.join("\n"));
    count
}

/// Sends each as a user: every one is allowed.
#[track_caller]
fn all_allowed(sluice: &Sluice, user: &str, actions: Vec<Action>) {
    for Action { what, method, path, body } in actions {
        let answer = sluice.api.send_as(Some(user), method, &path, body.as_ref()).unwrap();
        assert!(answer.is_ok(), "{what}: {:?}", answer.err());
    }
}

/// A namespace with objects of a tenant, all named `tenants`.
fn furnish(place: &Place<'_>) {
    place.forbid_certificates().unwrap();
    let namespace = &place.namespace;
    place.apply(&place.upstream_yaml("tenants")).unwrap();
    let route = place.route_yaml("tenants", "/", "");
    place.apply(&route).unwrap();
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: tenants, namespace: {namespace}}}\nstringData: {{a: b}}\n"
    );
    place.apply(&secret).unwrap();
}

/// As the chart comes: also what would be a fleet's is denied in a namespace that no value names.
pub(crate) fn all_denied_by_default(place: &Place<'_>) -> usize {
    furnish(place);
    let namespace = &place.namespace;
    let mut actions = not_for_the_operator(namespace);
    actions.extend([
        create("makes a fleet's Deployment", Resource::DEPLOYMENTS, namespace, deployment(own(), |_| {})),
        create("makes a fleet's account", Resource::SERVICE_ACCOUNTS, namespace, named("ServiceAccount", "v1", own())),
        create("makes a fleet's ConfigMap", Resource::CONFIG_MAPS, namespace, named("ConfigMap", "v1", own())),
        get("reads ConfigMaps", Resource::CONFIG_MAPS.all(namespace)),
        get("reads pods", Resource::PODS.all(namespace)),
        get("reads all Deployments", Resource::DEPLOYMENTS.all("")),
    ]);
    all_denied(place.sluice(), &operator(), actions)
}

fn operator() -> String {
    format!("system:serviceaccount:{SYSTEM}:{OPERATOR}")
}

/// An account of a place with the right to edit its namespace, as the README has it for tenants.
pub(crate) fn tenant(place: &Place<'_>) -> String {
    let namespace = &place.namespace;
    place
        .apply(&format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: tenant, namespace: {namespace}}}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: tenant, namespace: {namespace}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}}\n\
             subjects: [{{kind: ServiceAccount, name: tenant, namespace: {namespace}}}]\n"
        ))
        .unwrap();
    let user = format!("system:serviceaccount:{namespace}:tenant");
    // The controller that adds the chart's roles to `edit` takes a moment.
    let route = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ApiRoute", "metadata": {"name": "may"},
        "spec": {"rules": [{"backendRefs": [{"name": "a", "port": 80}]}]},
    });
    let may = |api: &e2e::cluster::Api| {
        let path = dry(&Resource::API_ROUTES.all(namespace));
        Ok(api.send_as(Some(&user), Method::POST, &path, Some(&route))?.is_ok().then_some(()))
    };
    place.api().eventually("a tenant may write routes", seconds(20), may).unwrap();
    user
}

/// With fleets everywhere, which gives the operator the most.
#[test]
fn whoever_has_the_operators_token_gets_no_further() {
    let sluice = sluice().unwrap();
    let victim = Place::bare(&sluice, "victim").unwrap();
    furnish(&victim);
    let namespace = &victim.namespace;
    let selector = json!({"selector": {"sluice.dev/fleet": "f"}, "ports": [{"port": 80}]});
    all_allowed(
        &sluice,
        &operator(),
        vec![
            create("a fleet's Deployment", Resource::DEPLOYMENTS, namespace, deployment(own(), |_| {})),
            create("a fleet's Service", Resource::SERVICES, namespace, service(own(), selector)),
            create("a fleet's account", Resource::SERVICE_ACCOUNTS, namespace, named("ServiceAccount", "v1", own())),
            get("Secrets of its own namespace", Resource::SECRETS.all(SYSTEM)),
            get("every route", Resource::API_ROUTES.all("")),
        ],
    );
    let denied = all_denied(&sluice, &operator(), not_for_the_operator(namespace));
    println!("{denied} actions of the operator's account are denied; goal: every one of 40 or more");
    assert!(denied >= 40);
}

#[test]
fn a_tenant_keeps_to_its_namespace() {
    let sluice = sluice().unwrap();
    let (tenant, other) = (Place::bare(&sluice, "tenant").unwrap(), Place::bare(&sluice, "other").unwrap());
    furnish(&tenant);
    furnish(&other);
    let (namespace, user) = (&tenant.namespace, self::tenant(&tenant));
    all_allowed(
        &sluice,
        &user,
        vec![
            get("its routes", Resource::API_ROUTES.all(namespace)),
            get("its fleets", Resource::GATEWAY_FLEETS.all(namespace)),
            delete("a route of its own", Resource::API_ROUTES, namespace, "tenants"),
        ],
    );
    let denied = all_denied(&sluice, &user, not_for_a_tenant(namespace, &other.namespace));
    println!("{denied} actions of a tenant are denied; goal: every one");
}

/// A fleet's certificate in a namespace that the operator has no right to read: that fleet says so, with the Role to apply;
/// what is pasted from there helps, and what is taken away again affects nobody else.
#[test]
fn secrets_are_read_by_grant() {
    let sluice = sluice().unwrap();
    let place = Place::new(&sluice, "ungranted", &Fleet::fixed(1)).unwrap();
    place.forbid_certificates().unwrap();
    let secret = {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": place.namespace},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()},
        })
    };
    place.api().apply(Resource::SECRETS, &secret, "e2e").unwrap();
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    place.until("/", 200, "", seconds(20)).unwrap();
    place
        .patch_fleet(&json!({"listeners": [
            {"name": "http", "protocol": "HTTP", "port": 80},
            {"name": "https", "protocol": "HTTPS", "port": 443, "tls": {"certificateRefs": [{"name": "cert"}]}},
        ]}))
        .unwrap();
    let at = std::time::Instant::now();
    let told = place.until_condition(Resource::GATEWAY_FLEETS, FLEET, ("ResolvedRefs", "False"), seconds(10)).unwrap();
    println!("a namespace without grant is told after {:.1?}; goal: 1 s", at.elapsed());
    assert_eq!(told.reason, "RefNotPermitted", "{told:?}");
    assert_eq!(place.get("/").unwrap().status, 200, "what does not need it serves on");
    let said = sluice.api.get(Resource::GATEWAY_FLEETS, SYSTEM, "default").unwrap().unwrap();
    assert_eq!(e2e::cluster::condition(&said, "ResolvedRefs").unwrap().status, "True", "nobody else's affair");

    // Pasted as it stands there.
    let command = told.message.split_once("permits that by: ").unwrap().1;
    place.shell().run(command).unwrap();
    let at = std::time::Instant::now();
    for condition in ["ResolvedRefs", "Programmed"] {
        place.until_condition(Resource::GATEWAY_FLEETS, FLEET, (condition, "True"), seconds(30)).unwrap();
    }
    println!("the certificate is served {:.1?} after the grant; goal: 5 s", at.elapsed());
}
