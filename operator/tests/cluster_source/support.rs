//! What the tests share: objects of a namespace of their own, and a source that is followed.

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use crds::Kind;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use operator::{
    reconcile::event::Event,
    source::{
        InForce, Observed,
        kube::{Lists, Progress, patient, progress, run},
    },
};
use planner::ObjectRef;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout_at},
};

const GRANTS: &str = "referencegrants.gateway.networking.k8s.io";

pub(crate) fn id(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind, namespace: namespace.into(), name: name.into() }
}

/// The resource of an object.
fn resource(object: &Value) -> ApiResource {
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    if kind == "RatePolicy" {
        resource.plural = "ratepolicies".into();
    }
    resource
}

/// The API server.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) client: Client,
}

impl Cluster {
    /// Runs a test with a namespace that is made for it, and removed.
    pub(crate) async fn with_namespace(name: &str, test: impl AsyncFnOnce(&Cluster, &str) + 'static) {
        let config = patient(Config::infer().await.expect("KUBECONFIG names a cluster"));
        let cluster = Cluster { client: Client::try_from(config.clone()).unwrap(), config };
        let namespace = format!("source-test-{name}-{}", std::process::id());
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        cluster.create("", &object).await;
        let tested = {
            let (cluster, namespace) = (cluster.clone(), namespace.clone());
            tokio::task::LocalSet::new()
                .run_until(
                    async move { tokio::task::spawn_local(async move { test(&cluster, &namespace).await }).await },
                )
                .await
        };
        cluster.delete("", &object).await;
        if let Err(error) = tested {
            resume_unwind(error.into_panic());
        }
    }

    fn api(&self, namespace: &str, object: &Value) -> Api<DynamicObject> {
        match namespace {
            "" => Api::all_with(self.client.clone(), &resource(object)),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource(object)),
        }
    }

    pub(crate) async fn create(&self, namespace: &str, object: &Value) {
        let typed = serde_json::from_value(object.clone()).unwrap();
        self.api(namespace, object).create(&PostParams::default(), &typed).await.unwrap();
    }

    pub(crate) async fn apply(&self, namespace: &str, object: &Value) {
        let params = PatchParams::apply("source-test").force();
        self.api(namespace, object).patch(name(object), &params, &Patch::Apply(object)).await.unwrap();
    }

    pub(crate) async fn read(&self, namespace: &str, object: &Value) -> DynamicObject {
        self.api(namespace, object).get(name(object)).await.unwrap()
    }

    pub(crate) async fn patch_status(&self, namespace: &str, object: &Value, patch: Value) {
        let (api, params) = (self.api(namespace, object), PatchParams::default());
        api.patch_status(name(object), &params, &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn annotate(&self, namespace: &str, object: &Value, value: &str) {
        let patch = json!({"metadata": {"annotations": {"source-test": value}}});
        let (api, params) = (self.api(namespace, object), PatchParams::default());
        api.patch(name(object), &params, &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn delete(&self, namespace: &str, object: &Value) {
        self.api(namespace, object).delete(name(object), &DeleteParams::default()).await.unwrap();
    }

    /// Installs the definition of ReferenceGrant, serving these versions only.
    pub(crate) async fn install_grants(&self, versions: &[&str]) {
        let mut definition = grants_definition();
        for version in definition["spec"]["versions"].as_array_mut().unwrap() {
            version["served"] = json!(versions.contains(&version["name"].as_str().unwrap()));
        }
        self.apply("", &definition).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        let group = format!("/apis/gateway.networking.k8s.io/{}/referencegrants", versions[0]);
        loop {
            let request = hyper::Request::get(&group).body(vec![]).unwrap();
            if self.client.request::<Value>(request).await.is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "the definition is not served");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Removes it, with every grant.
    pub(crate) async fn remove_grants(&self) {
        let api = self.api("", &json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}));
        let deadline = Instant::now() + Duration::from_secs(20);
        while api.get_opt(GRANTS).await.unwrap().is_some() {
            let _ = api.delete(GRANTS, &DeleteParams::default()).await;
            assert!(Instant::now() < deadline, "the definition stays");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// The definition, from the Go module that e2e/cluster/gateway-api pins.
fn grants_definition() -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/cluster/gateway-api");
    let said = std::process::Command::new("go")
        .args(["mod", "download", "-json", "sigs.k8s.io/gateway-api"])
        .current_dir(folder)
        .output()
        .expect("Go is installed");
    let module: Value = serde_json::from_slice(&said.stdout).expect("what `go mod download` says");
    let file = format!(
        "{}/config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml",
        module["Dir"].as_str().unwrap()
    );
    let mut definition: Value = serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    definition.as_object_mut().unwrap().remove("status");
    definition
}

/// A source that is followed.
pub(crate) struct Follow {
    events: mpsc::Receiver<Event>,
    world: Option<Arc<Observed>>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) in_force: watch::Sender<Option<InForce>>,
    _source: Aborted,
}

struct Aborted(JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where the operator of these tests would be.
pub(crate) fn here() -> planner::Cluster {
    planner::Cluster { operator_namespace: "sluice-system".into(), ..planner::Cluster::default() }
}

impl Follow {
    pub(crate) fn start(client: Client) -> Self {
        let (sender, events) = mpsc::channel(64);
        let (told, progress) = progress();
        let (in_force, known) = watch::channel(Some(InForce::default()));
        let source = Aborted(tokio::spawn(run(client, Lists::default(), here(), sender, told, known)));
        Self { events, world: None, progress, in_force, _source: source }
    }

    /// The next world, if it comes in time.
    pub(crate) async fn next_before(&mut self, deadline: Instant) -> Option<Arc<Observed>> {
        match timeout_at(deadline, self.events.recv()).await {
            Ok(Some(Event::WorldChanged(latest))) => {
                let observed = latest.take().unwrap();
                self.world = Some(Arc::clone(&observed));
                Some(observed)
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        }
    }

    /// The last world, or the first that fits.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        within: Duration,
        fits: impl Fn(&Observed) -> bool,
    ) -> Arc<Observed> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(world) = self.world.as_ref().filter(|world| fits(world)) {
                return Arc::clone(world);
            }
            if self.next_before(deadline).await.is_none() {
                panic!("no world with {what} within {within:?}; {}", *self.progress.borrow());
            }
        }
    }
}

/// A connection to the API server that can be cut.
pub(crate) struct Cable {
    from: std::net::SocketAddr,
    to: String,
    tasks: JoinSet<()>,
}

impl Cable {
    pub(crate) async fn to(config: &Config) -> Self {
        let url = &config.cluster_url;
        let to = format!("{}:{}", url.host().unwrap(), url.port_u16().unwrap_or(443));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut cable = Self { from: listener.local_addr().unwrap(), to, tasks: JoinSet::new() };
        cable.serve(listener);
        cable
    }

    pub(crate) fn client(&self, config: &Config) -> Client {
        let mut config = config.clone();
        config.tls_server_name.get_or_insert_with(|| config.cluster_url.host().unwrap().to_owned());
        config.cluster_url = format!("https://{}", self.from).parse().unwrap();
        Client::try_from(config).unwrap()
    }

    fn serve(&mut self, listener: TcpListener) {
        let to = self.to.clone();
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let to = to.clone();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
    }

    /// Every connection ends, and none can be made.
    pub(crate) async fn cut(&mut self) {
        self.tasks.shutdown().await;
    }

    pub(crate) async fn mend(&mut self) {
        let listener = TcpListener::bind(self.from).await.unwrap();
        self.serve(listener);
    }
}
