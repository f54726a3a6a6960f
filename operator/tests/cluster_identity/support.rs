//! A namespace with an operator's permissions in it, its pods and tokens, and a proxy as far as the protocol goes.

use std::{future::ready, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Namespace, Pod, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, PostParams},
};
use operator::{
    identity::{self, Identity},
    leader::election,
    push::{self, Offered, Published, Registry},
};
use planner::{FleetRef, Kind, ObjectRef, World, WorldObject};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use snapshot::{
    FORMAT_VERSION, Hash, Snapshot,
    proto::{EnrollRequest, Hello, ProxyMessage, control_client::ControlClient, operator_message, proxy_message},
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

/// Waits no longer than anything here takes: a standby reads the Secret every 30 s.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("within a minute")
}

/// A namespace of one test.
pub(crate) struct Space {
    pub(crate) name: String,
    /// May do everything.
    pub(crate) admin: Client,
    /// May do what an operator needs for identity.
    pub(crate) operator: Client,
}

impl Space {
    pub(crate) async fn new(what: &str) -> Self {
        let config = Config::infer().await.expect("KUBECONFIG names a cluster");
        let admin = Client::try_from(config.clone()).unwrap();
        let name = format!("{what}-{}", std::process::id());
        let namespace: Namespace = parse(json!({"metadata": {"name": name}}));
        Api::all(admin.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let mut config = config;
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{name}:operator"));
        let space = Self { name, admin, operator: Client::try_from(config).unwrap() };
        space.permit().await;
        space
    }

    /// Exactly what the chart has to grant.
    async fn permit(&self) {
        let subject = json!([{"kind": "ServiceAccount", "name": "operator", "namespace": self.name}]);
        let role: Role = parse(json!({"metadata": {"name": "operator"}, "rules": [
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["sluice-control-ca"], "verbs": ["get", "update"]},
        ]}));
        let group = "rbac.authorization.k8s.io";
        let binding: RoleBinding = parse(json!({"metadata": {"name": "operator"}, "subjects": subject,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "operator"}}));
        let reviews: ClusterRole = parse(json!({"metadata": {"name": self.name}, "rules": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        ]}));
        let everywhere: ClusterRoleBinding = parse(json!({"metadata": {"name": self.name}, "subjects": subject,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": self.name}}));
        let (options, client) = (PostParams::default(), &self.admin);
        Api::namespaced(client.clone(), &self.name).create(&options, &role).await.unwrap();
        Api::namespaced(client.clone(), &self.name).create(&options, &binding).await.unwrap();
        Api::all(client.clone()).create(&options, &reviews).await.unwrap();
        Api::all(client.clone()).create(&options, &everywhere).await.unwrap();
    }

    pub(crate) async fn forbid_reviews(&self) {
        let bindings: Api<ClusterRoleBinding> = Api::all(self.admin.clone());
        bindings.delete(&self.name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn delete(self) {
        let options = DeleteParams::background();
        let bindings: Api<ClusterRoleBinding> = Api::all(self.admin.clone());
        let _ = bindings.delete(&self.name, &options).await; // one test has done so itself
        Api::<ClusterRole>::all(self.admin.clone()).delete(&self.name, &options).await.unwrap();
        Api::<Namespace>::all(self.admin.clone()).delete(&self.name, &options).await.unwrap();
    }

    pub(crate) async fn account(&self, name: &str) {
        let account: ServiceAccount = parse(json!({"metadata": {"name": name}, "automountServiceAccountToken": false}));
        Api::namespaced(self.admin.clone(), &self.name).create(&PostParams::default(), &account).await.unwrap();
    }

    /// A pod that no node runs: that it exists is all that its tokens need.
    pub(crate) async fn pod(&self, name: &str, account: &str) {
        let pod: Pod = parse(json!({"metadata": {"name": name}, "spec": {
            "serviceAccountName": account, "nodeSelector": {"none": "none"}, "containers": [{"name": "c", "image": "none"}],
        }}));
        Api::namespaced(self.admin.clone(), &self.name).create(&PostParams::default(), &pod).await.unwrap();
    }

    /// Which of its name a pod is.
    pub(crate) async fn uid(&self, pod: &str) -> String {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), &self.name);
        pods.get(pod).await.unwrap().metadata.uid.unwrap()
    }

    /// A token of a service account, bound to a pod or not.
    pub(crate) async fn token(&self, account: &str, audience: &str, pod: Option<&str>) -> String {
        let bound = pod.map(|pod| json!({"kind": "Pod", "apiVersion": "v1", "name": pod}));
        let request: TokenRequest =
            parse(json!({"spec": {"audiences": [audience], "expirationSeconds": 600, "boundObjectRef": bound}}));
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), &self.name);
        let made: TokenRequest =
            accounts.create_subresource("token", account, &PostParams::default(), &request).await.unwrap();
        made.status.unwrap().token.unwrap()
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// An operator that leads, in this process, with the fleet `f`.
pub(crate) struct Operator {
    identity: Identity,
    namespace: String,
    address: SocketAddr,
    /// Of what its proxies are to run.
    pub(crate) revision: Hash,
}

/// What a proxy has once it has enrolled.
#[derive(Debug)]
pub(crate) struct Enrolled {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Operator {
    pub(crate) async fn start(space: &Space) -> Self {
        let client = space.operator.clone();
        let identity =
            identity::start(client, &space.name, "sluice-control-ca", "sluice-operator", election::sole_leader(1));
        within(identity.bundle.clone().wait_for(|bundle| !bundle.is_empty())).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Arc::new(Registry::default());
        let fleet = FleetRef { namespace: space.name.clone(), name: "f".into() };
        let manifest = json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "GatewayFleet",
            "metadata": {"name": fleet.name, "namespace": fleet.namespace},
            "spec": {"listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]},
        });
        let id = ObjectRef { kind: Kind::GatewayFleet, namespace: fleet.namespace.clone(), name: fleet.name.clone() };
        let current = crds::admit(manifest).map(Arc::new);
        let object = WorldObject {
            current,
            raw: None,
            accepted: None,
            accepted_at: None,
            generation: 1,
            created: None,
            origin: None,
        };
        let plan = planner::plan(&World { objects: [(id, object)].into(), ..World::default() });
        let published = Published::from(plan.fleets[&fleet].snapshot.clone());
        let revision = published.revision;
        registry.planned(Arc::new(plan));
        registry.offer(&fleet, Offered::to_all(Arc::new(published)));
        // Whoever attaches is kept: its outbox is.
        let (sender, mut events) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut all = vec![];
            while let Some(event) = events.recv().await {
                all.push(event);
            }
        });
        tokio::spawn(push::serve_tls_on(listener, identity.clone(), election::sole_leader(1), registry, sender));
        Self { identity, namespace: space.name.clone(), address, revision }
    }

    async fn channel(&self, enrolled: Option<&Enrolled>) -> Channel {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.identity.bundle.borrow().as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match enrolled {
            Some(Enrolled { chain, key }) => config.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = format!("sluice-operator.{}.svc", self.namespace).try_into().unwrap();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut tls = Some(TokioIo::new(connector.connect(name, tcp).await.unwrap()));
        let broken = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let once = tower::service_fn(move |_| ready(tls.take().ok_or_else(broken)));
        tonic::transport::Endpoint::from_static("https://operator").connect_with_connector(once).await.unwrap()
    }

    pub(crate) async fn enroll(&self, token: &str) -> Result<Enrolled, Status> {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec().into();
        let mut client = ControlClient::new(self.channel(None).await);
        let answer = client.enroll(EnrollRequest { token: token.into(), csr }).await?.into_inner();
        let chain = answer.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        Ok(Enrolled { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() })
    }

    /// Attaches as the pod `sluice-f`; gives the revision that is pushed.
    pub(crate) async fn attach(&self, enrolled: &Enrolled) -> Result<Hash, Status> {
        let (out, messages) = mpsc::channel(4);
        let fleet = format!("{}/f", self.namespace);
        let nothing = Snapshot::default();
        let revision = nothing.revision().as_bytes().to_vec().into();
        let hello =
            Hello { format_version: FORMAT_VERSION, proxy: "sluice-f".into(), fleet, revision, ..Hello::default() };
        out.send(ProxyMessage { message: Some(proxy_message::Message::Hello(hello)) }).await.unwrap();
        let channel = self.channel(Some(enrolled)).await;
        let mut inbound = ControlClient::new(channel).attach(ReceiverStream::new(messages)).await?.into_inner();
        match within(inbound.message()).await?.unwrap().message.unwrap() {
            operator_message::Message::Begin(begin) => Ok(Hash::from_slice(&begin.revision).unwrap()),
            other => panic!("{other:?}"),
        }
    }
}
