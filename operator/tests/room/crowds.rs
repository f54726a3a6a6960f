//! Objects that one tenant has too many of.

/// What an object is.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Form {
    First,
    /// As good as the first.
    Other,
    /// What only a plan refuses.
    Broken,
}

impl Form {
    fn generation(self) -> u8 {
        match self {
            Self::First => 1,
            Self::Other => 2,
            Self::Broken => 3,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::First => "{\"value\":\"/\"}",
            Self::Other => "{\"value\":\"/other\"}",
            Self::Broken => "{\"type\":\"RegularExpression\",\"value\":\"/(\"}",
        }
    }
}

/// Objects of one kind.
pub(crate) struct Crowd {
    pub(crate) what: &'static str,
    pub(crate) plural: &'static str,
    /// Their namespaces.
    pub(crate) tenants: usize,
    pub(crate) count: usize,
    /// How many of them there are where that is to be quick.
    pub(crate) quick: usize,
    /// The one of this number, of this namespace.
    pub(crate) make: fn(usize, &str, Form) -> String,
}

impl Crowd {
    pub(crate) fn namespace(&self, i: usize) -> String {
        format!("crowd-{:02}", i % self.tenants)
    }

    /// Whether they have more than one form.
    pub(crate) fn changes(&self) -> bool {
        self.plural == "apiroutes"
    }
}

pub(crate) fn name(i: usize) -> String {
    format!("crowd-{i:06}")
}

pub(crate) const CROWDS: &[Crowd] = &[
    Crowd {
        what: "routes of half a megabyte",
        plural: "apiroutes",
        tenants: 1,
        count: 600,
        quick: 25,
        make: |i, namespace, form| large(namespace, &name(i), 4000, form),
    },
    Crowd {
        what: "small routes",
        plural: "apiroutes",
        tenants: 1,
        count: 100_000,
        quick: 0,
        make: |i, namespace, form| {
            let rules = format!("{{\"matches\":[{{\"path\":{}}}],{BACKEND}}}", form.path());
            route(namespace, &name(i), form, &[format!("{}.example", name(i))], &rules)
        },
    },
    Crowd {
        what: "routes of 60 expressions",
        plural: "apiroutes",
        tenants: 1,
        count: 400,
        quick: 0,
        make: |i, namespace, form| {
            let rule = |r: usize| {
                let path = format!("/{}-{i}-{r}/(.*/)*(a|b|c)*.*(a|b)[a-c]{{12}}", form.generation());
                let path = format!("{{\"type\":\"RegularExpression\",\"value\":\"{path}\"}}");
                format!("{{\"matches\":[{{\"path\":{path}}}],{BACKEND}}}")
            };
            route(namespace, &name(i), form, &[], &list((0..60).map(rule)))
        },
    },
    Crowd {
        what: "wide routes",
        plural: "apiroutes",
        tenants: 40,
        count: 4000,
        quick: 0,
        make: |i, namespace, form| {
            let hosts: Vec<String> = (0..16).map(|h| format!("h{h}-{i}.example")).collect();
            let matching = |r: usize, m: usize| match (r, m) {
                (0, 0) => format!("{{\"path\":{}}}", form.path()),
                _ => format!("{{\"path\":{{\"value\":\"/{r}/{m}\"}}}}"),
            };
            let rule = |r: usize| format!("{{\"matches\":[{}],{BACKEND}}}", list((0..8).map(|m| matching(r, m))));
            route(namespace, &name(i), form, &hosts, &list((0..32).map(rule)))
        },
    },
    Crowd {
        what: "slices of 1 MB",
        plural: "endpointslices",
        tenants: 1,
        count: 500,
        quick: 0,
        make: |i, namespace, _| slice(namespace, &name(i)),
    },
    Crowd {
        what: "services of 1 MB",
        plural: "services",
        tenants: 1,
        count: 500,
        quick: 0,
        make: |i, namespace, _| service(namespace, &name(i)),
    },
];

const BACKEND: &str = "\"backendRefs\":[{\"name\":\"nothing\",\"port\":80}]";

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

fn metadata(namespace: &str, name: &str, generation: u8, more: &str) -> String {
    format!(
        "{{\"name\":\"{name}\",\"namespace\":\"{namespace}\",\"uid\":\"{name}\",\"resourceVersion\":\"1\",\
         \"generation\":{generation},\"creationTimestamp\":\"2026-01-02T03:04:05Z\"{more}}}"
    )
}

fn route(namespace: &str, name: &str, form: Form, hosts: &[String], rules: &str) -> String {
    let hosts = list(hosts.iter().map(|host| format!("\"{host}\"")));
    let metadata = metadata(namespace, name, form.generation(), "");
    format!(
        "{{\"apiVersion\":\"sluice.dev/v1alpha1\",\"kind\":\"ApiRoute\",\"metadata\":{metadata},\"spec\":{{\"parentRefs\":\
         [{{\"name\":\"default\",\"namespace\":\"sluice-system\"}}],\"hostnames\":[{hosts}],\"rules\":[{rules}]}}}}"
    )
}

/// A route of 128 matches, with values of headers of this size.
pub(crate) fn large(namespace: &str, name: &str, value: usize, form: Form) -> String {
    let value = "v".repeat(value);
    let path = form.path();
    let matching = |r: usize, m: usize| {
        let header = format!("{{\"name\":\"x-{r}-{m}\",\"value\":\"{value}\"}}");
        format!("{{\"path\":{path},\"headers\":[{header}]}}")
    };
    let rule = |r: usize| format!("{{\"matches\":[{}],{BACKEND}}}", list((0..2).map(|m| matching(r, m))));
    route(namespace, name, form, &[format!("{name}.example")], &list((0..64).map(rule)))
}

/// A megabyte of addresses, each of which is short.
fn slice(namespace: &str, name: &str) -> String {
    let addresses = |e: usize| list((0..100).map(|a| format!("\"10.{}.{}.{a}\"", e / 250, e % 250)));
    let endpoints = list((0..1000).map(|e| format!("{{\"addresses\":[{}]}}", addresses(e))));
    let metadata = metadata(namespace, name, 1, ",\"labels\":{\"kubernetes.io/service-name\":\"a\"}");
    format!(
        "{{\"addressType\":\"IPv4\",\"metadata\":{metadata},\"ports\":[{{\"port\":80}}],\"endpoints\":[{endpoints}]}}"
    )
}

/// A megabyte of ports.
fn service(namespace: &str, name: &str) -> String {
    let ports = list((1..20_000).map(|p| format!("{{\"name\":\"p{p}\",\"port\":{p},\"protocol\":\"TCP\"}}")));
    format!("{{\"metadata\":{},\"spec\":{{\"ports\":[{ports}]}}}}", metadata(namespace, name, 1, ""))
}

/// The fleet that serves them all.
pub(crate) fn fleet() -> String {
    let metadata = metadata("sluice-system", "default", 1, "");
    format!(
        "{{\"apiVersion\":\"sluice.dev/v1alpha1\",\"kind\":\"GatewayFleet\",\"metadata\":{metadata},\"spec\":{{\"listeners\":\
         [{{\"name\":\"http\",\"protocol\":\"HTTP\",\"port\":8080,\"allowedRoutes\":{{\"namespaces\":{{\"from\":\"All\"}}}}}}],\
         \"scaling\":{{\"minReplicas\":1,\"maxReplicas\":4}}}}}}"
    )
}
