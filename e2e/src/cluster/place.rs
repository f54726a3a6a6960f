//! A namespace for one test: a fleet, an upstream, and a pod to send from.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    Agent, Api, Condition, Resource, Shell, Sluice,
    agent::{PORT, RemoteLoad},
    condition,
    release::{OPERATOR, OURS, SYSTEM},
};
use crate::{
    agent::{Probe, Until},
    harness::http::Answer,
};

/// The host of the routes that tests write.
pub const HOST: &str = "api.shop.example";
/// The name of the fleet of a place.
pub const FLEET: &str = "edge";
/// The Service and Deployment of its upstream, at port 80.
pub const UPSTREAM: &str = "echo";
/// The field manager of what tests write.
const MANAGER: &str = "e2e";
/// The pod that sends.
const AGENT: &str = "load";
/// The Role and RoleBinding that permit the operator to read certificates.
const CERTIFICATES: &str = "sluice-operator-certificates";
const IMAGE: &str = "localhost/sluice-e2e:dev";

/// A namespace with a fleet named `edge`, an upstream named `echo`, and an agent; dropping it deletes all.
pub struct Place<'a> {
    sluice: &'a Sluice,
    /// The namespace's name.
    pub namespace: String,
    /// The agent in it.
    pub agent: Agent<'a>,
}

/// The settings of a place's fleet.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// Bounds of the number of replicas.
    pub replicas: (u32, u32),
    /// Requests a second for each replica.
    pub rate: u32,
    /// Further lines of `spec`, at two spaces.
    pub more: String,
}

impl Fleet {
    /// A fixed number of proxies.
    pub fn fixed(replicas: u32) -> Fleet {
        Fleet { replicas: (replicas, replicas), rate: 100_000, more: String::new() }
    }

    /// The manifest.
    pub fn yaml(&self, namespace: &str) -> String {
        let (min, max) = self.replicas;
        format!(
            "apiVersion: sluice.dev/v1alpha1\n\
             kind: GatewayFleet\n\
             metadata: {{name: {FLEET}, namespace: {namespace}}}\n\
             spec:\n  \
               listeners:\n  \
               - {{name: http, protocol: HTTP, port: 80, allowedRoutes: {{namespaces: {{from: All}}}}}}\n  \
               service: {{type: ClusterIP}}\n  \
               scaling:\n    \
                 minReplicas: {min}\n    \
                 maxReplicas: {max}\n    \
                 targets:\n    \
                 - {{type: RequestRate, averageValue: \"{}\"}}\n    \
                 behavior: {{scaleDown: {{stabilizationWindowSeconds: 5}}}}\n  \
               drain: {{minDrain: 3s, timeout: 30s}}\n{}",
            self.rate, self.more
        ) + if self.more.contains("template:") {
            ""
        } else {
            "  template: {workers: 1, resources: {requests: {cpu: 50m, memory: 32Mi}}}\n"
        }
    }
}

impl<'a> Place<'a> {
    /// A new place, ready to be used.
    pub fn new(sluice: &'a Sluice, name: &str, fleet: &Fleet) -> anyhow::Result<Place<'a>> {
        let started = Instant::now();
        let place = Place::begin(sluice, name)?;
        place.apply(&place.upstream_yaml(UPSTREAM))?;
        place.apply(&fleet.yaml(&place.namespace))?;
        place.pod_is_ready(AGENT)?;
        place.deployment_is_ready(UPSTREAM)?;
        place.wait_for_proxies(fleet.replicas.0 as usize, Duration::from_secs(90))?;
        sluice.fleet_is_programmed(&place.namespace, FLEET)?;
        println!("{} is ready after {:.1?}", place.namespace, started.elapsed());
        Ok(place)
    }

    /// A new place with nothing but an agent.
    pub fn bare(sluice: &'a Sluice, name: &str) -> anyhow::Result<Place<'a>> {
        let place = Place::begin(sluice, name)?;
        place.pod_is_ready(AGENT)?;
        Ok(place)
    }

    fn begin(sluice: &'a Sluice, name: &str) -> anyhow::Result<Place<'a>> {
        let namespace = format!("e2e-{name}");
        sluice.gone(&namespace)?;
        let agent = Agent::new(&sluice.api, &namespace, AGENT);
        let place = Place { sluice, namespace, agent };
        place.apply(&format!(
            "apiVersion: v1\n\
             kind: Namespace\n\
             metadata: {{name: {namespace}, labels: {{{OURS}: \"\"}}}}\n\
             ---\n\
             apiVersion: v1\n\
             kind: Pod\n\
             metadata: {{name: {AGENT}, namespace: {namespace}}}\n\
             spec:\n  \
               terminationGracePeriodSeconds: 1\n  \
               containers:\n  \
               - name: load\n    \
                 image: {IMAGE}\n    \
                 command: [sluice-load, agent, --listen, \"0.0.0.0:{PORT}\"]\n    \
                 readinessProbe: {{tcpSocket: {{port: {PORT}}}, periodSeconds: 1}}\n",
            namespace = place.namespace
        ))?;
        place.permit_certificates()?;
        Ok(place)
    }

    /// The operator may read the Secrets of this namespace, as the chart's README has it.
    fn permit_certificates(&self) -> anyhow::Result<()> {
        let namespace = &self.namespace;
        self.apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1\n\
             kind: Role\n\
             metadata: {{name: {CERTIFICATES}, namespace: {namespace}}}\n\
             rules: [{{apiGroups: [\"\"], resources: [secrets], verbs: [get, list, watch]}}]\n\
             ---\n\
             apiVersion: rbac.authorization.k8s.io/v1\n\
             kind: RoleBinding\n\
             metadata: {{name: {CERTIFICATES}, namespace: {namespace}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {CERTIFICATES}}}\n\
             subjects: [{{kind: ServiceAccount, name: {OPERATOR}, namespace: {SYSTEM}}}]\n"
        ))
    }

    /// Forbids the operator to read certificates.
    pub fn forbid_certificates(&self) -> anyhow::Result<()> {
        self.api().delete(Resource::ROLE_BINDINGS, &self.namespace, CERTIFICATES, None)?;
        self.api().delete(Resource::ROLES, &self.namespace, CERTIFICATES, None)
    }

    /// The manifest of a Deployment and Service that answer with this name.
    pub fn upstream_yaml(&self, name: &str) -> String {
        let namespace = &self.namespace;
        format!(
            "apiVersion: apps/v1\n\
             kind: Deployment\n\
             metadata: {{name: {name}, namespace: {namespace}}}\n\
             spec:\n  \
               selector: {{matchLabels: {{app: {name}}}}}\n  \
               template:\n    \
                 metadata: {{labels: {{app: {name}}}}}\n    \
                 spec:\n      \
                   terminationGracePeriodSeconds: 1\n      \
                   containers:\n      \
                   - name: echo\n        \
                     image: {IMAGE}\n        \
                     command: [sluice-echo, --listen, \"0.0.0.0:8080\", --name, {name}]\n        \
                     readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}\n\
             ---\n\
             apiVersion: v1\n\
             kind: Service\n\
             metadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n"
        )
    }

    /// The manifest of a route of [`HOST`] to the upstream: a path prefix. `rule` are further lines of its rule `all`.
    pub fn route_yaml(&self, name: &str, prefix: &str, rule: &str) -> String {
        let namespace = &self.namespace;
        let rule: String = rule.lines().map(|line| format!("    {line}\n")).collect();
        format!(
            "apiVersion: sluice.dev/v1alpha1\n\
             kind: ApiRoute\n\
             metadata: {{name: {name}, namespace: {namespace}}}\n\
             spec:\n  \
               parentRefs: [{{name: {FLEET}, namespace: {namespace}}}]\n  \
               hostnames: [{HOST}]\n  \
               rules:\n  \
               - name: all\n    \
                 matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}]\n{rule}    \
                 backendRefs: [{{name: {UPSTREAM}, port: 80}}]\n"
        )
    }

    /// The manifest of a route whose requests reach the upstream as `path`, which its answer tells.
    pub fn rewrite_yaml(&self, name: &str, prefix: &str, path: &str) -> String {
        let rewrite = format!("{{path: {{type: ReplaceFullPath, replaceFullPath: {path}}}}}");
        self.route_yaml(name, prefix, &format!("filters:\n- {{type: URLRewrite, urlRewrite: {rewrite}}}"))
    }

    /// Server-side apply.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        self.sluice.api.apply_all(manifest, MANAGER)
    }

    /// The installation that it is a place of.
    pub fn sluice(&self) -> &'a Sluice {
        self.sluice
    }

    /// The API server.
    pub fn api(&self) -> &'a Api {
        &self.sluice.api
    }

    /// The shell of a user.
    pub fn shell(&self) -> &'a Shell {
        &self.sluice.shell
    }

    /// The address where clients in the cluster reach the fleet.
    pub fn target(&self) -> String {
        format!("sluice-{FLEET}.{}.svc:80", self.namespace)
    }

    /// A GET of any place that the agent reaches.
    pub fn request(&self, target: &str, host: &str, path: &str) -> anyhow::Result<Answer> {
        self.agent.request(&Probe { target: target.to_owned(), host: host.to_owned(), ..self.probe(path) })
    }

    /// A GET of [`HOST`] through the fleet's Service.
    pub fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.agent.request(&self.probe(path))
    }

    /// Waits until a GET of [`HOST`] has this status, and a body that contains this.
    pub fn until(&self, path: &str, status: u16, contains: &str, within: Duration) -> anyhow::Result<Answer> {
        self.until_at(&self.target(), path, status, contains, within)
    }

    /// Waits for an answer of one target, such as a single proxy.
    pub fn until_at(
        &self,
        target: &str,
        path: &str,
        status: u16,
        contains: &str,
        within: Duration,
    ) -> anyhow::Result<Answer> {
        let within_ms = u64::try_from(within.as_millis())?;
        let probe = Probe { target: target.to_owned(), ..self.probe(path) };
        self.agent.until(&Until { probe, status, contains: contains.to_owned(), within_ms })
    }

    /// The address of each proxy by itself, without the Service: its listener of port 80.
    pub fn proxy_targets(&self) -> anyhow::Result<Vec<String>> {
        let service = self.object(Resource::SERVICES, &format!("sluice-{FLEET}"))?;
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let port = ports.filter(|port| port["port"] == 80).find_map(|port| port["targetPort"].as_u64());
        let port = port.context("the Service has no port 80 with a number behind it")?;
        let address = |pod: &Value| Some(format!("{}:{port}", pod["status"]["podIP"].as_str()?));
        self.proxies()?.iter().map(|pod| address(pod).context("a proxy without address")).collect()
    }

    fn probe(&self, path: &str) -> Probe {
        Probe {
            target: self.target(),
            method: "GET".to_owned(),
            host: HOST.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
        }
    }

    /// Starts a load on the fleet's Service: `clients` are flags of `sluice-load`.
    pub fn load(&self, clients: &str) -> anyhow::Result<RemoteLoad<'a>> {
        self.agent.load(&format!("--target {} --host {HOST} {clients}", self.target()))
    }

    /// The fleet as it is.
    pub fn fleet(&self) -> anyhow::Result<Value> {
        self.object(Resource::GATEWAY_FLEETS, FLEET)
    }

    /// An object of this namespace.
    pub fn object(&self, resource: Resource, name: &str) -> anyhow::Result<Value> {
        let found = self.api().get(resource, &self.namespace, name)?;
        found.with_context(|| format!("{} {}/{name} is not there", resource.plural(), self.namespace))
    }

    /// A condition of an object of this namespace.
    pub fn condition(&self, resource: Resource, name: &str, kind: &str) -> anyhow::Result<Option<Condition>> {
        Ok(condition(&self.object(resource, name)?, kind))
    }

    /// Waits until a condition has this status and is about the object as it is now.
    pub fn until_condition(
        &self,
        resource: Resource,
        name: &str,
        (kind, status): (&str, &str),
        within: Duration,
    ) -> anyhow::Result<Condition> {
        let mut last = None;
        let what = format!("{} {name}: {kind} is {status}", resource.plural());
        let found = self.api().eventually(&what, within, |_| {
            last = self.condition(resource, name, kind)?;
            Ok(last.clone().filter(|condition| condition.status == status && condition.current))
        });
        found.with_context(|| format!("last seen: {last:?}"))
    }

    /// Waits until all of the fleet's proxies run a route. That one of them serves it says nothing of the others: what load
    /// comes to those is answered 404.
    pub fn until_programmed(&self, route: &str, within: Duration) -> anyhow::Result<()> {
        self.until_condition(Resource::API_ROUTES, route, ("Programmed", "True"), within).map(drop)
    }

    /// The fleet's pods, without those that leave.
    pub fn proxies(&self) -> anyhow::Result<Vec<Value>> {
        let pods = self.all_proxies()?;
        Ok(pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect())
    }

    /// The fleet's pods.
    pub fn all_proxies(&self) -> anyhow::Result<Vec<Value>> {
        let labels = format!("app.kubernetes.io/name=sluice-proxy,sluice.dev/fleet={FLEET}");
        self.api().list(Resource::PODS, &self.namespace, &labels)
    }

    /// Waits until exactly this many proxies are there, all Ready, and none is leaving.
    pub fn wait_for_proxies(&self, count: usize, within: Duration) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let mut seen = (0, 0);
        let found = self.api().eventually(&format!("{count} proxies, all ready"), within, |_| {
            let pods = self.all_proxies()?;
            seen = (pods.len(), pods.iter().filter(|pod| is_ready(pod)).count());
            Ok((seen == (count, count)).then(|| started.elapsed()))
        });
        found.with_context(|| format!("there are {}, {} of them ready", seen.0, seen.1))
    }

    /// Waits until a pod is Ready.
    pub fn pod_is_ready(&self, name: &str) -> anyhow::Result<()> {
        self.api().eventually(&format!("pod {}/{name} is ready", self.namespace), Duration::from_secs(60), |api| {
            Ok(api.get(Resource::PODS, &self.namespace, name)?.filter(is_ready).map(|_| ()))
        })
    }

    /// Waits until a Deployment has all its replicas.
    pub fn deployment_is_ready(&self, name: &str) -> anyhow::Result<()> {
        let what = format!("deployment {}/{name} is ready", self.namespace);
        self.api().eventually(&what, Duration::from_secs(60), |_| {
            let object = self.object(Resource::DEPLOYMENTS, name)?;
            let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64);
            let seen = count("/status/observedGeneration") == count("/metadata/generation");
            Ok((seen && count("/status/readyReplicas") == count("/spec/replicas")).then_some(()))
        })
    }

    /// A JSON merge patch of the fleet's `spec`.
    pub fn patch_fleet(&self, spec: &Value) -> anyhow::Result<()> {
        let patch = json!({"spec": spec});
        self.api().patch(Resource::GATEWAY_FLEETS, &self.namespace, FLEET, &patch).map(|_| ())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the cluster says is in {}", self.sluice.dump(&self.namespace).display());
        }
        let _ = self.api().delete(Resource::NAMESPACES, "", &self.namespace, None);
    }
}

/// The names of objects.
pub fn names(objects: &[Value]) -> Vec<String> {
    objects.iter().filter_map(|object| Some(object["metadata"]["name"].as_str()?.to_owned())).collect()
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}
