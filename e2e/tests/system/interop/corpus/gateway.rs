//! The gateway: one fleet whose ports are told apart by what their upstream speaks, with the same rules and policies on all.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use e2e::harness::{self, eventually, free_port, manifests::tls_secret};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore},
};

use super::{HOST, Way, client::Io};
use crate::{at, serves};

/// The rules of both routes: a name, what it matches, and what else it has. Each has a policy of its own, with its name.
const RULES: [(&str, &str, &str); 12] = [
    ("all", "{path: {type: PathPrefix, value: /}}", ""),
    ("admin", "{path: {type: PathPrefix, value: /admin}}", ""),
    ("cafe", "{path: {type: Exact, value: /menu/caf%c3%a9}}", ""),
    ("posts", "{path: {type: PathPrefix, value: /m}, method: POST}", ""),
    ("marked", "{path: {type: PathPrefix, value: /m}, headers: [{name: x-kind, value: marked}]}", ""),
    ("queried", "{path: {type: PathPrefix, value: /m}, queryParams: [{name: kind, value: a}]}", ""),
    ("numbers", "{path: {type: RegularExpression, value: '/n/[0-9]+'}}", ""),
    ("limited", "{path: {type: PathPrefix, value: /limited}}", ""),
    ("slow", "{path: {type: PathPrefix, value: /slow}}", "timeouts: {backendRequest: 100ms}"),
    (
        "rewritten",
        "{path: {type: PathPrefix, value: /v1}}",
        "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}}]",
    ),
    (
        "moved",
        "{path: {type: PathPrefix, value: /moved}}",
        "filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.example, statusCode: 308}}]",
    ),
    ("down", "{path: {type: PathPrefix, value: /down}}", ""),
];

/// The gateway, and where it listens.
pub(super) struct Gateway {
    gateway: harness::Gateway,
    /// By way: without TLS and with it, to HTTP/1.1 and to HTTP/2.
    ports: [u16; 4],
    connectors: [TlsConnector; 2],
}

impl Gateway {
    pub(super) fn start((one, two): (SocketAddr, SocketAddr)) -> Self {
        let ports = [(); 4].map(|()| free_port().unwrap());
        let certificate = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let (chain, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
        let mut routes = String::new();
        for (name, listeners, upstream, protocol) in
            [("one", "one", one, ""), ("two", "two", two, ", appProtocol: kubernetes.io/h2c")]
        {
            let of = |host: &str, rules: &str| {
                format!(
                    "---\napiVersion: sluice.dev/v1alpha1\nkind: ApiRoute\n\
                     metadata: {{name: {host}-{name}, namespace: shop}}\nspec:\n  parentRefs:\n  \
                     - {{name: default, namespace: sluice-system, sectionName: {listeners}}}\n  \
                     - {{name: default, namespace: sluice-system, sectionName: {listeners}-tls}}\n{rules}"
                )
            };
            let rule = |(rule, matches, more): &(&str, &str, &str)| {
                // Nobody listens on the port of a service that is not there.
                let address = if *rule == "down" { "127.0.0.1:1".to_owned() } else { upstream.to_string() };
                let backends = format!("backendRefs: [{{address: \"{address}\"{protocol}}}]");
                let backends = if *rule == "moved" { String::new() } else { backends };
                format!("  - name: {rule}\n    matches: [{matches}]\n    {more}\n    {backends}\n")
            };
            let rules: String = RULES.iter().map(rule).collect();
            routes += &of("shop", &format!("  hostnames: [{HOST}]\n  rules:\n{rules}"));
            // Every other host.
            let any = rule(&("any", "{path: {type: PathPrefix, value: /any}}", ""));
            routes += &of("any", &format!("  rules:\n{any}"));
        }
        let policies: String =
            RULES.iter().map(|(rule, ..)| policy("shop", rule)).chain([policy("any", "any")]).collect();
        let manifests = [
            ("fleet.yaml", fleet(ports, "")),
            ("secret.yaml", tls_secret("shop-tls", &chain, &key)),
            ("routes.yaml", routes),
            ("policies.yaml", policies),
        ];
        let gateway = harness::Gateway::start(&manifests).unwrap();
        for route in ["shop-one", "shop-two", "any-one", "any-two"] {
            let accepted = || gateway.condition("apiroutes", "shop", route, "Accepted");
            let accepted = eventually("a verdict on the route", Duration::from_secs(10), accepted).unwrap();
            assert_eq!(accepted.status, "True", "{route}: {}", accepted.message);
        }
        ports.iter().take(2).for_each(|port| serves(*port, "/"));
        for port in &ports[..2] {
            let limited = || {
                harness::http::get(at(*port), HOST, "/limited").is_ok_and(|answer| answer.status == 429).then_some(())
            };
            eventually("the limit is used up", Duration::from_secs(10), limited).unwrap();
        }
        let mut roots = RootCertStore::empty();
        roots.add(certificate.cert.der().clone()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connectors = [&b"http/1.1"[..], b"h2"].map(|protocol| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            TlsConnector::from(Arc::new(config))
        });
        Self { gateway, ports, connectors }
    }

    /// From now on, paths are read so.
    pub(super) fn read_paths(&self, paths: &str) {
        let proxy = self.gateway.proxies().remove(0);
        let before = self.gateway.revision(&proxy).unwrap();
        self.gateway.write("fleet.yaml", &fleet(self.ports, paths)).unwrap();
        let changed = || (self.gateway.revision(&proxy).unwrap() != before).then_some(());
        eventually("paths are read otherwise", Duration::from_secs(10), changed).unwrap();
    }

    /// A connection of its own.
    pub(super) async fn connect(&self, way: Way) -> Box<dyn Io> {
        let port = self.ports[usize::from(way.upstream == 2) + 2 * usize::from(way.tls)];
        let stream = TcpStream::connect(at(port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        if !way.tls {
            return Box::new(stream);
        }
        let name = ServerName::try_from(HOST).unwrap();
        Box::new(self.connectors[usize::from(way.client == 2)].connect(name, stream).await.unwrap())
    }
}

fn fleet([one, two, one_tls, two_tls]: [u16; 4], paths: &str) -> String {
    let all = "allowedRoutes: {namespaces: {from: All}}";
    let tls = "tls: {certificateRefs: [{name: shop-tls}]}";
    let paths = if paths.is_empty() { String::new() } else { format!("  paths: {{{paths}}}\n") };
    format!(
        "apiVersion: sluice.dev/v1alpha1\n\
         kind: GatewayFleet\n\
         metadata: {{name: default, namespace: sluice-system}}\n\
         spec:\n  \
           listeners:\n  \
           - {{name: one, protocol: HTTP, port: {one}, {all}}}\n  \
           - {{name: two, protocol: HTTP, port: {two}, {all}}}\n  \
           - {{name: one-tls, protocol: HTTPS, port: {one_tls}, {tls}, {all}}}\n  \
           - {{name: two-tls, protocol: HTTPS, port: {two_tls}, {tls}, {all}}}\n  \
           scaling:\n    \
             minReplicas: 1\n    \
             maxReplicas: 1\n    \
             targets: [{{type: CPU, averageUtilization: 90}}]\n  \
           template: {{workers: 1}}\n{paths}"
    )
}

/// A limit of one rule that is never reached; but for one, which is reached with the first request of a day.
fn policy(route: &str, rule: &str) -> String {
    let rate = if rule == "limited" { "rate: 1, per: 24h, burst: 1" } else { "rate: 1000000, per: 1s, burst: 1000000" };
    let target = |way: &str| format!("{{group: sluice.dev, kind: ApiRoute, name: {route}-{way}, sectionName: {rule}}}");
    format!(
        "---\napiVersion: sluice.dev/v1alpha1\nkind: RatePolicy\nmetadata: {{name: {rule}, namespace: shop}}\n\
         spec:\n  targetRefs: [{}, {}]\n  limits:\n  - {{name: {rule}, tokenBucket: {{{rate}}}}}\n",
        target("one"),
        target("two"),
    )
}
