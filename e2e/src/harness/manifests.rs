//! Manifests for tests, as text: what a user would write.

use std::{fmt::Write as _, net::SocketAddr};

/// The host that [`route`]s are for.
pub const HOST: &str = "api.shop.example";

const ALL_NAMESPACES: &str = "allowedRoutes: {namespaces: {from: All}}";

/// A fleet with one HTTP port, in `sluice-system`, named `default`. `targets` are YAML flow mappings.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The port.
    pub port: u16,
    /// A further port for HTTPS, and the name of its Secret.
    pub https: Option<(u16, String)>,
    /// Bounds of the number of replicas.
    pub replicas: (u32, u32),
    /// The targets that scale it, as YAML flow mappings.
    pub targets: Vec<String>,
    /// `scaleDown.stabilizationWindowSeconds`.
    pub scale_down_window: u32,
    /// Further lines of `spec`, indented by two spaces.
    pub more: String,
}

impl Fleet {
    /// A fleet of one proxy that never scales.
    pub fn single(port: u16) -> Fleet {
        Fleet::fixed(port, 1)
    }

    /// A fixed number of proxies.
    pub fn fixed(port: u16, replicas: u32) -> Fleet {
        let targets = vec!["{type: CPU, averageUtilization: 90}".to_owned()];
        Fleet { port, https: None, replicas: (replicas, replicas), targets, scale_down_window: 5, more: String::new() }
    }

    /// The manifest.
    pub fn yaml(&self) -> String {
        let (min, max) = self.replicas;
        let targets = self.targets.iter().fold(String::new(), |mut text, target| {
            let _ = writeln!(text, "    - {target}");
            text
        });
        let https = self.https.as_ref().map_or(String::new(), |(port, secret)| {
            let tls = format!("{{certificateRefs: [{{name: {secret}}}]}}");
            format!("  - {{name: https, protocol: HTTPS, port: {port}, tls: {tls}, {ALL_NAMESPACES}}}\n")
        });
        format!(
            "apiVersion: sluice.dev/v1alpha1\n\
             kind: GatewayFleet\n\
             metadata: {{name: default, namespace: sluice-system}}\n\
             spec:\n  \
               listeners:\n  \
               - {{name: http, protocol: HTTP, port: {}, {ALL_NAMESPACES}}}\n{https}  \
               scaling:\n    \
                 minReplicas: {min}\n    \
                 maxReplicas: {max}\n    \
                 targets:\n{targets}    \
                 behavior: {{scaleDown: {{stabilizationWindowSeconds: {}}}}}\n  \
               drain: {{minDrain: 1s, timeout: 30s}}\n  \
               template: {{workers: 1}}\n{}",
            self.port, self.scale_down_window, self.more
        )
    }
}

/// A route of [`HOST`] in the namespace `shop`: a path prefix to one backend. The rule is called `all`.
pub fn route(name: &str, prefix: &str, backend: SocketAddr) -> String {
    route_with(name, &format!("matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}]"), backend)
}

/// A route of [`HOST`] in the namespace `shop` whose rule `all` starts with the given lines (at 4 spaces).
pub fn route_with(name: &str, rule: &str, backend: SocketAddr) -> String {
    format!(
        "apiVersion: sluice.dev/v1alpha1\n\
         kind: ApiRoute\n\
         metadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  \
           hostnames: [{HOST}]\n  \
           rules:\n  \
           - name: all\n    {rule}\n    \
             backendRefs: [{{address: \"{backend}\"}}]\n"
    )
}

/// A policy of the namespace `shop` on one route: a token bucket over all its requests.
pub fn token_bucket(name: &str, route: &str, rate: u32, burst: u32) -> String {
    format!(
        "apiVersion: sluice.dev/v1alpha1\n\
         kind: RatePolicy\n\
         metadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  \
           targetRefs: [{{group: sluice.dev, kind: ApiRoute, name: {route}}}]\n  \
           limits:\n  \
           - {{name: all, tokenBucket: {{rate: {rate}, per: 1s, burst: {burst}}}}}\n"
    )
}

/// A TLS Secret of the namespace `sluice-system`.
pub fn tls_secret(name: &str, certificate: &str, key: &str) -> String {
    let indent = |pem: &str| pem.lines().fold(String::new(), |text, line| format!("{text}    {line}\n"));
    format!(
        "apiVersion: v1\n\
         kind: Secret\n\
         metadata: {{name: {name}, namespace: sluice-system}}\n\
         type: kubernetes.io/tls\n\
         stringData:\n  \
           tls.crt: |\n{}  \
           tls.key: |\n{}",
        indent(certificate),
        indent(key)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_where_yaml_wants_them() {
        let fleet = Fleet { https: Some((8443, "tls".to_owned())), more: "  x: y\n".to_owned(), ..Fleet::single(8080) };
        let expected = "\
apiVersion: sluice.dev/v1alpha1
kind: GatewayFleet
metadata: {name: default, namespace: sluice-system}
spec:
  listeners:
  - {name: http, protocol: HTTP, port: 8080, allowedRoutes: {namespaces: {from: All}}}
  - {name: https, protocol: HTTPS, port: 8443, tls: {certificateRefs: [{name: tls}]}, allowedRoutes: {namespaces: {from: All}}}
  scaling:
    minReplicas: 1
    maxReplicas: 1
    targets:
    - {type: CPU, averageUtilization: 90}
    behavior: {scaleDown: {stabilizationWindowSeconds: 5}}
  drain: {minDrain: 1s, timeout: 30s}
  template: {workers: 1}
  x: y
";
        assert_eq!(fleet.yaml(), expected);
        let expected = "\
apiVersion: sluice.dev/v1alpha1
kind: ApiRoute
metadata: {name: a, namespace: shop}
spec:
  hostnames: [api.shop.example]
  rules:
  - name: all
    matches: [{path: {type: PathPrefix, value: /a}}]
    backendRefs: [{address: \"127.0.0.1:9000\"}]
";
        assert_eq!(route("a", "/a", ([127, 0, 0, 1], 9000).into()), expected);
        let expected = "\
apiVersion: v1
kind: Secret
metadata: {name: t, namespace: sluice-system}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    a
    b
  tls.key: |
    c
";
        assert_eq!(tls_secret("t", "a\nb\n", "c\n"), expected);
    }
}
