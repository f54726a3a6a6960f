//! A hostname belongs to one namespace: whatever another one claims, edits, deletes or waits for, it receives no request for
//! it. Not what the holder's rules do not match (a certificate authority's challenge), not on another listener, not in the
//! moment between delete and re-create, not after the operator was killed, and not below a wildcard.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use e2e::{
    echo::Echo,
    harness::{Gateway, eventually, free_port, http, manifests::Fleet, pause},
};

use crate::{at, bound, long};

const HOST: &str = "api.shop.example";
const CHALLENGE: &str = "/.well-known/acme-challenge/token";
/// A change is live.
const LIVE: Duration = Duration::from_secs(1);

/// A route of all of a prefix; `more` is a line of its spec.
fn route(namespace: &str, name: &str, hostnames: &str, prefix: &str, backend: SocketAddr, more: &str) -> String {
    format!(
        "apiVersion: sluice.dev/v1alpha1\n\
         kind: ApiRoute\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  \
           hostnames: [{hostnames}]\n  \
           {more}\n  \
           rules: [{{matches: [{{path: {{value: {prefix}}}}}], backendRefs: [{{address: \"{backend}\"}}]}}]\n"
    )
}

fn only(listener: &str) -> String {
    format!("parentRefs: [{{name: default, namespace: sluice-system, sectionName: {listener}}}]")
}

/// Two tenants on a fleet with two ports.
struct Tenants {
    gateway: Gateway,
    ports: [u16; 2],
    shop: Echo,
    evil: Echo,
}

impl Tenants {
    fn new() -> Self {
        let ports = [free_port().unwrap(), free_port().unwrap()];
        let (shop, evil) = (Echo::start("shop").unwrap(), Echo::start("evil").unwrap());
        let second = format!(
            "  - {{name: more, protocol: HTTP, port: {}, allowedRoutes: {{namespaces: {{from: All}}}}}}\n  scaling:\n",
            ports[1]
        );
        let fleet = Fleet::single(ports[0]).yaml().replacen("  scaling:\n", &second, 1);
        let orders = route("shop", "orders", HOST, "/orders", shop.addr, &only("http"));
        let gateway = Gateway::start(&[("fleet.yaml", fleet), ("orders.yaml", orders)]).unwrap();
        let tenants = Self { gateway, ports, shop, evil };
        tenants.until(0, HOST, "/orders", 200);
        // What it once was it stays, whatever others do.
        let programmed = || tenants.condition("shop", "orders", "Programmed", "True");
        eventually("the holder is told that it is served", bound(LIVE), programmed).unwrap();
        tenants
    }

    fn evil(&self, name: &str, hostnames: &str, more: &str) {
        let text = route("evil", name, hostnames, "/", self.evil.addr, more);
        self.gateway.write(&format!("evil-{name}.yaml"), &text).unwrap();
    }

    fn orders(&self) {
        let text = route("shop", "orders", HOST, "/orders", self.shop.addr, &only("http"));
        self.gateway.write("orders.yaml", &text).unwrap();
    }

    fn status(&self, port: usize, host: &str, path: &str) -> u16 {
        http::get(at(self.ports[port]), host, path).map_or(0, |answer| answer.status)
    }

    #[track_caller]
    fn until(&self, port: usize, host: &str, path: &str, status: u16) {
        let is = || (self.status(port, host, path) == status).then_some(());
        eventually(&format!("{host}{path} is answered {status}"), Duration::from_secs(10), is).unwrap();
    }

    #[track_caller]
    fn served_by(&self, host: &str, tenant: &str) {
        let is = || {
            let answer = http::get(at(self.ports[0]), host, "/").ok()?;
            (answer.header("x-upstream") == tenant).then_some(())
        };
        eventually(&format!("{host} is served by {tenant}"), bound(LIVE), is).unwrap();
    }

    /// Asks for the host in every way there is, and counts what is received by the other tenant.
    #[track_caller]
    fn nothing_is_stolen(&self, when: &str) {
        let before = self.evil.requests();
        let mut asked = 0;
        for port in [0, 1] {
            for host in [HOST.to_owned(), HOST.to_uppercase(), format!("{HOST}."), format!("{HOST}:{}", self.ports[0])]
            {
                for path in ["/orders", "/orders/7", "/", CHALLENGE] {
                    let status = self.status(port, &host, path);
                    assert!(matches!(status, 200 | 404 | 503), "{when}: {host}{path} is answered {status}");
                    asked += 1;
                }
            }
        }
        let stolen = self.evil.requests() - before;
        println!("{when}: {stolen} of {asked} requests reached the other tenant (goal 0)");
        assert_eq!(stolen, 0, "{when}");
    }

    /// A condition's reason and message, when it has this status.
    fn condition(&self, namespace: &str, name: &str, kind: &str, status: &str) -> Option<(String, String)> {
        let condition = self.gateway.condition("apiroutes", namespace, name, kind)?;
        (condition.status == status).then_some((condition.reason, condition.message))
    }
}

#[test]
fn a_hostname_is_its_holders_alone() {
    let mut tenants = Tenants::new();
    let at = Instant::now();
    tenants.evil("any", "", "");
    tenants.evil("wildcard", "\"*.shop.example\"", "");
    tenants.evil("same", HOST, &only("more"));
    tenants.until(0, "www.shop.example", "/", 200);
    tenants.until(1, "other.test", "/", 200);
    println!("the other tenant's routes are live after {:.0?}", at.elapsed());
    tenants.nothing_is_stolen("with an any-host route, a wildcard and the same host on the other listener");

    // Both are told.
    let told = |namespace, name, kind, status, part: &'static str| {
        let found = || tenants.condition(namespace, name, kind, status).filter(|(_, message)| message.contains(part));
        eventually(&format!("{namespace}/{name} is told"), bound(LIVE), found).unwrap()
    };
    let (reason, message) = told("evil", "same", "Programmed", "False", "ApiRoute shop/orders came first");
    println!("{reason}: {message}");
    assert_eq!(reason, "Conflicted");
    let (reason, message) = told("shop", "orders", "Contested", "True", "ApiRoute evil/same claims host");
    println!("{reason}: {message}");
    assert_eq!(reason, "HostnamesClaimed");
    let own = tenants.gateway.condition("apiroutes", "shop", "orders", "Programmed").unwrap();
    assert_eq!(own.status, "True", "the holder's own state is harmed: {own:?}");

    // Below a wildcard its holder decides.
    tenants.evil("below", "x.team.example", "");
    let wildcard = route("shop", "team", "\"*.team.example\"", "/", tenants.shop.addr, "");
    tenants.gateway.write("team.yaml", &wildcard).unwrap();
    // Until then the other tenant's any-host route answers for it; of two that come at once, neither is late.
    tenants.served_by("y.team.example", "shop");
    tenants.evil("late", "login.team.example", "");
    let found = || tenants.condition("evil", "late", "Programmed", "False");
    eventually("what lies below is not had", bound(LIVE), found).unwrap();
    tenants.served_by("login.team.example", "shop");
    let delegates = "delegates: [{namespaces: [evil], hostnames: [login.team.example]}]";
    let wildcard = route("shop", "team", "\"*.team.example\"", "/", tenants.shop.addr, delegates);
    tenants.gateway.write("team.yaml", &wildcard).unwrap();
    tenants.served_by("login.team.example", "evil");

    // Deleted and made anew, with the operator killed in the midst: whoever waits gets nothing.
    tenants.evil("same", HOST, "");
    for round in 0..if long() { 20 } else { 3 } {
        tenants.gateway.remove("orders.yaml").unwrap();
        tenants.until(0, HOST, "/orders", 404);
        tenants.nothing_is_stolen(&format!("deleted ({round})"));
        if round == 1 {
            tenants.gateway.kill_operator().unwrap();
            tenants.gateway.start_operator().unwrap();
            pause(Duration::from_secs(1));
            tenants.nothing_is_stolen("deleted, and the operator was killed");
        }
        tenants.orders();
        tenants.until(0, HOST, "/orders", 200);
        tenants.nothing_is_stolen(&format!("made anew ({round})"));
    }
}
