//! One gateway does what its manifests say.

use std::time::Duration;

use e2e::{
    echo::Echo,
    harness::{
        Gateway, eventually, free_port, http,
        manifests::{Fleet, HOST, route, route_with, tls_secret, token_bucket},
    },
    load::{Plan, run},
};

use crate::{assert_clean, at, serves};

#[test]
fn requests_go_where_the_manifests_say() {
    let (a, b) = (Echo::start("a").unwrap(), Echo::start("b").unwrap());
    let port = free_port().unwrap();
    let rewrite = "matches: [{path: {type: PathPrefix, value: /v1/stock}}]\n    filters:\n    \
         - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /stock}}}\n    \
         - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-from, value: sluice}]}}";
    let gateway = Gateway::start(&[
        ("fleet.yaml", Fleet::single(port).yaml()),
        ("orders.yaml", route("orders", "/orders", a.addr)),
        ("stock.yaml", route_with("stock", rewrite, b.addr)),
        ("limited.yaml", route("limited", "/limited", a.addr)),
        ("policy.yaml", token_bucket("limited", "limited", 1, 2)),
    ])
    .unwrap();
    let get = |host: &str, path: &str| http::get(at(port), host, path).unwrap();
    eventually("routes are served", Duration::from_secs(10), || (get(HOST, "/orders").status == 200).then_some(()))
        .unwrap();

    let orders = get(HOST, "/orders/7?x=1");
    assert_eq!((orders.header("x-upstream"), &orders.json()["path"]), ("a", &"/orders/7?x=1".into()));
    let stock = get(HOST, "/v1/stock/7").json();
    assert_eq!((&stock["name"], &stock["path"]), (&"b".into(), &"/stock/7".into()));
    assert_eq!(stock["headers"]["x-from"], "sluice");
    assert!(stock["headers"]["x-request-id"].is_string(), "{stock}");
    assert_eq!(stock["headers"]["x-forwarded-for"], "127.0.0.1");
    assert_eq!(get(HOST, "/nothing").status, 404);
    assert_eq!(get("other.example", "/orders").status, 404);

    assert_eq!((get(HOST, "/limited").status, get(HOST, "/limited").status), (200, 200));
    let limited = get(HOST, "/limited");
    assert_eq!(limited.status, 429);
    assert_eq!(limited.header("retry-after"), "1");
    assert!(!limited.header("ratelimit").is_empty() && !limited.header("ratelimit-policy").is_empty());

    let programmed = eventually("the routes are programmed", Duration::from_secs(15), || {
        let condition = gateway.condition("apiroutes", "shop", "orders", "Programmed")?;
        (condition.status == "True").then_some(condition)
    });
    assert_eq!(programmed.unwrap().reason, "Programmed");
}

#[test]
fn every_protocol_passes_unbroken() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let h2c = route("h2c", "/", echo.addr)
        .replace("api.shop", "h2c.shop")
        .replace("\"}", "\", appProtocol: kubernetes.io/h2c}");
    let manifests =
        [("fleet.yaml", Fleet::single(port).yaml()), ("all.yaml", route("all", "/", echo.addr)), ("h2c.yaml", h2c)];
    let _gateway = Gateway::start(&manifests).unwrap();
    serves(port, "/");
    for (host, version) in [(HOST, "HTTP/1.1"), ("h2c.shop.example", "HTTP/2.0")] {
        assert_eq!(http::get(at(port), host, "/").unwrap().json()["version"], version);
        let mut plan = Plan::new(at(port), host).mixed().step(500.0, Duration::from_secs(3));
        // A WebSocket needs an upstream that speaks HTTP/1.1.
        plan.ws = if host == HOST { 4 } else { 0 };
        plan.paths = ["/a", "/bytes/300000", "/stream/3/5", "/trailers", "/delay/10"].map(str::to_owned).to_vec();
        let report = run(plan.clone()).unwrap();
        assert_clean(&report);
        assert!(plan.ws == 0 || report.ws.messages > 50, "{report}");
        // And bodies towards the upstream.
        (plan.body, plan.ws, plan.paths) = (200_000, 0, vec!["/upload".to_owned()]);
        (plan.steps[0].rate, plan.steps[0].duration) = (100.0, Duration::from_secs(2));
        assert_clean(&run(plan).unwrap());
    }
}

#[test]
fn a_service_and_its_endpoints_are_a_backend() {
    let (a, b) = (Echo::start("a").unwrap(), Echo::start("b").unwrap());
    let port = free_port().unwrap();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: orders, namespace: shop}\n\
                   spec: {ports: [{name: http, port: 80, targetPort: 8080}]}\n";
    let slice = |upstream: &Echo| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: orders-{0}, namespace: shop, labels: {{kubernetes.io/service-name: orders}}}}\n\
             ports: [{{name: http, port: {1}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n",
            upstream.name(),
            upstream.addr.port()
        )
    };
    let by_service =
        route("orders", "/orders", a.addr).replace(&format!("address: \"{}\"", a.addr), "name: orders, port: 80");
    let gateway = Gateway::start(&[
        ("fleet.yaml", Fleet::single(port).yaml()),
        ("orders.yaml", by_service),
        // Several documents in one file.
        ("service.yaml", format!("{service}---\n{}", slice(&a))),
        ("more.yaml", slice(&b)),
    ])
    .unwrap();
    serves(port, "/orders");
    let names = || -> std::collections::BTreeSet<String> {
        (0..20).map(|_| http::get(at(port), HOST, "/orders").unwrap().header("x-upstream").to_owned()).collect()
    };
    assert_eq!(names().len(), 2, "both endpoints are used");
    gateway.remove("more.yaml").unwrap();
    eventually("only the endpoint that is left", Duration::from_secs(10), || {
        (names().into_iter().collect::<Vec<_>>() == ["a"]).then_some(())
    })
    .unwrap();
}

#[test]
fn tls_is_served_on_both_protocols() {
    let echo = Echo::start("a").unwrap();
    let (port, https) = (free_port().unwrap(), free_port().unwrap());
    let certificate = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let (chain, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
    let fleet = Fleet { https: Some((https, "shop-tls".to_owned())), ..Fleet::single(port) };
    let manifests = [
        ("fleet.yaml", fleet.yaml()),
        ("secret.yaml", tls_secret("shop-tls", &chain, &key)),
        ("all.yaml", route("all", "/", echo.addr)),
    ];
    let gateway = Gateway::start(&manifests).unwrap();
    serves(port, "/");
    let ca = gateway.state_dir().join("ca-of-the-test.pem");
    std::fs::write(&ca, chain).unwrap();
    let mut plan = Plan::new(at(https), HOST).mixed().step(300.0, Duration::from_secs(3));
    (plan.tls, plan.ws) = (Some(ca), 2);
    let report = run(plan).unwrap();
    assert_clean(&report);
    assert!(report.ws.messages > 20, "{report}");
}
