//! HTTP/2 as its specification has it: every test of h2spec, over TLS and in clear text.

use std::process::Command;

use e2e::{
    echo::Echo,
    harness::{
        Gateway, free_port, go_program,
        manifests::{Fleet, HOST, route, tls_secret},
    },
};

use super::figure;
use crate::serves;

#[test]
fn every_test_of_h2spec_passes() {
    let h2spec = go_program("h2spec", "github.com/summerwind/h2spec/cmd/h2spec").unwrap();
    let echo = Echo::start("a").unwrap();
    let (port, https) = (free_port().unwrap(), free_port().unwrap());
    let certificate = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let (chain, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
    let fleet = Fleet { https: Some((https, "shop-tls".to_owned())), ..Fleet::single(port) };
    let any_host = route("all", "/", echo.addr).replace(&format!("  hostnames: [{HOST}]\n"), "");
    let manifests =
        [("fleet.yaml", fleet.yaml()), ("secret.yaml", tls_secret("shop-tls", &chain, &key)), ("all.yaml", any_host)];
    let _gateway = Gateway::start(&manifests).unwrap();
    serves(port, "/");
    for (how, arguments) in
        [("h2c", vec!["-p", &port.to_string()]), ("TLS", vec!["-p", &https.to_string(), "-t", "-k"])]
    {
        let output = Command::new(&h2spec).args(["-h", "127.0.0.1", "--strict"]).args(&arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let summary = text.lines().last().unwrap_or_default();
        figure(&format!("h2spec by {how}, strict"), summary, "146 passed");
        let failures = text.split_once("Failures:").map_or("", |(_, failures)| failures);
        assert_eq!(summary, "146 tests, 146 passed, 0 skipped, 0 failed", "{failures}");
    }
}
