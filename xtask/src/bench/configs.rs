//! Configurations of the subjects: as their manuals tune them for one worker, without access log, with kept upstream connections.

use std::{fmt::Write as _, net::SocketAddr};

use serde_json::{Value, json};

use super::scenario::{Kind, Limit, Scenario};

/// The part that is the same for every subject.
pub(super) struct Setup<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) listen: SocketAddr,
    pub(super) upstream: SocketAddr,
    /// Folder of `cert.pem`, `key.pem` and `both.pem`, as the subject sees it.
    pub(super) folder: &'a str,
}

impl Setup<'_> {
    fn prefixes(&self) -> impl Iterator<Item = String> {
        (0..self.scenario.routes).map(|i| format!("/r{i:05}/"))
    }

    fn is_http2(&self) -> bool {
        self.scenario.kind == Kind::Http2
    }
}

/// nginx.conf.
pub(super) fn nginx(setup: &Setup<'_>) -> String {
    let Setup { scenario, listen, upstream, folder } = setup;
    let (tls, certificate) = match scenario.tls {
        true => (
            " ssl",
            format!(
                "ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; ssl_protocols TLSv1.3; \
                 ssl_session_tickets off;"
            ),
        ),
        false => ("", String::new()),
    };
    let (zone, limit) = match scenario.limit {
        Limit::None | Limit::OursOnly => ("", ""),
        Limit::Wide => (
            "limit_req_zone $binary_remote_addr zone=l:10m rate=1000000r/s;",
            "limit_req zone=l burst=1000000 nodelay;",
        ),
        Limit::Shut => ("limit_req_zone $binary_remote_addr zone=l:10m rate=1r/m;", "limit_req zone=l;"),
    };
    let http2 = if setup.is_http2() { "http2 on; http2_max_concurrent_streams 128;" } else { "" };
    let mut conf = format!(
        "user root; worker_processes 1; worker_rlimit_nofile 16384; daemon off; error_log stderr crit; pid {folder}/nginx.pid;\n\
         events {{ worker_connections 16384; multi_accept on; }}\n\
         http {{\n  access_log off; tcp_nodelay on; keepalive_timeout 1h; keepalive_requests 1000000000; {zone}\n  \
         limit_req_status 429;\n  \
         upstream u {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 1h; }}\n  \
         proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffer_size 16k; proxy_buffers 8 16k; \
         proxy_max_temp_file_size 0;\n  \
         server {{\n    listen {listen}{tls} backlog=4096; {http2} server_name bench.example; {certificate} {limit}\n"
    );
    for prefix in setup.prefixes() {
        let _ = writeln!(conf, "    location {prefix} {{ proxy_pass http://u; }}");
    }
    conf + "  }\n}\n"
}

/// haproxy.cfg, and the map of routes.
pub(super) fn haproxy(setup: &Setup<'_>) -> (String, String) {
    let Setup { scenario, listen, upstream, folder } = setup;
    let alpn = if setup.is_http2() { "h2,http/1.1" } else { "http/1.1" };
    let tls = match scenario.tls {
        true => format!(" ssl crt {folder}/both.pem alpn {alpn} ssl-min-ver TLSv1.3 no-tls-tickets curves X25519"),
        false => String::new(),
    };
    let most = match scenario.limit {
        Limit::None | Limit::OursOnly => None,
        Limit::Wide => Some(1_000_000_000),
        Limit::Shut => Some(0),
    };
    let limit = most.map_or_else(String::new, |most| {
        format!(
            "  stick-table type ip size 100k expire 1m store http_req_rate(10s)\n  http-request track-sc0 src\n  \
             http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {most} }}\n"
        )
    });
    let conf = format!(
        "global\n  nbthread 1\n  maxconn 4000\n  tune.h2.max-concurrent-streams 128\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  timeout http-request 10s\n  http-reuse always\n\
         frontend f\n  bind {listen} backlog 4096{tls}\n{limit}  use_backend %[path,map_beg({folder}/routes.map)]\n\
         backend u\n  server s {upstream} pool-max-conn -1\n"
    );
    let map = setup.prefixes().map(|prefix| format!("{prefix} u\n")).collect();
    (conf, map)
}

/// envoy.json.
pub(super) fn envoy(setup: &Setup<'_>) -> Value {
    const TYPE: &str = "type.googleapis.com/envoy";
    let Setup { scenario, listen, upstream, folder } = setup;
    let address =
        |at: &SocketAddr| json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
    let routes: Vec<Value> =
        setup.prefixes().map(|prefix| json!({"match": {"prefix": prefix}, "route": {"cluster": "u"}})).collect();
    let mut filters = vec![];
    let bucket = match scenario.limit {
        Limit::None | Limit::OursOnly => None,
        Limit::Wide => Some((1_000_000_000, "1s")),
        Limit::Shut => Some((1, "3600s")),
    };
    if let Some((tokens, interval)) = bucket {
        let percent = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
        filters.push(json!({"name": "limit", "typed_config": {
            "@type": format!("{TYPE}.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"),
            "stat_prefix": "limit",
            "token_bucket": {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": interval},
            "filter_enabled": percent, "filter_enforced": percent,
        }}));
    }
    filters.push(json!({"name": "router", "typed_config": {"@type": format!("{TYPE}.extensions.filters.http.router.v3.Router")}}));
    let manager = json!({
        "@type": format!("{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "http2_protocol_options": {"max_concurrent_streams": 128},
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": filters,
    });
    let mut chain = json!({"filters": [{"name": "http", "typed_config": manager}]});
    if scenario.tls {
        let file = |name: &str| json!({"filename": format!("{folder}/{name}")});
        let alpn = if setup.is_http2() { json!(["h2", "http/1.1"]) } else { json!(["http/1.1"]) };
        chain["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
            "disable_stateless_session_resumption": true,
            "common_tls_context": {
                "alpn_protocols": alpn,
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "ecdh_curves": ["X25519"]},
                "tls_certificates": [{"certificate_chain": file("cert.pem"), "private_key": file("key.pem")}],
            },
        }});
    }
    let endpoint = json!({"endpoint": {"address": address(upstream)}});
    json!({"static_resources": {
        "listeners": [{"name": "in", "address": address(listen), "filter_chains": [chain]}],
        "clusters": [{
            "name": "u", "type": "STATIC", "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [{"max_connections": 16384, "max_pending_requests": 16384, "max_requests": 16384}]},
            "load_assignment": {"cluster_name": "u", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }],
    }})
}

/// Our manifests, one document after the other: every feature that is on by default, and a rate limit on the route.
pub(super) fn sluice(setup: &Setup<'_>, certificate: Option<(&str, &str)>) -> String {
    let Setup { scenario, listen, upstream, .. } = setup;
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "sluice.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "bench"}, "spec": spec});
    let mut listener = json!({"name": "in", "protocol": "HTTP", "port": listen.port()});
    let mut documents = vec![];
    if let (true, Some((chain, key))) = (scenario.tls, certificate) {
        listener["protocol"] = "HTTPS".into();
        listener["tls"] = json!({"certificateRefs": [{"name": "cert"}]});
        documents.push(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "cert", "namespace": "bench"},
            "stringData": {"tls.crt": chain, "tls.key": key},
        }));
    }
    documents.push(object(
        "GatewayFleet",
        "default",
        json!({
            "listeners": [listener],
            "scaling": {"minReplicas": 1, "maxReplicas": 1},
            "connection": {"maxAge": "1h"},
            "template": {"workers": 1},
        }),
    ));
    for i in 0..scenario.routes {
        documents.push(object(
            "ApiRoute",
            &format!("r{i:05}"),
            json!({
                "hostnames": ["bench.example"],
                "rules": [{
                    "name": "all",
                    "matches": [{"path": {"type": "PathPrefix", "value": format!("/r{i:05}")}}],
                    "backendRefs": [{"address": upstream.to_string()}],
                }],
            }),
        ));
    }
    let bucket = match scenario.limit {
        Limit::None => None,
        Limit::OursOnly | Limit::Wide => Some(json!({"rate": 1_000_000, "per": "1s"})),
        Limit::Shut => Some(json!({"rate": 1, "per": "1h", "burst": 1})),
    };
    if let Some(bucket) = bucket {
        let last = format!("r{:05}", scenario.routes - 1);
        documents.push(object(
            "RatePolicy",
            "limit",
            json!({
                "targetRefs": [{"group": "sluice.dev", "kind": "ApiRoute", "name": last}],
                "limits": [{"name": "per-client", "key": [{"type": "ClientIP"}], "tokenBucket": bucket}],
            }),
        ));
    }
    documents.iter().map(|document| format!("---\n{document}\n")).collect()
}
