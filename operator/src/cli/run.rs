//! `run`: the operator in a cluster.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{core::v1::ObjectReference, networking::v1::NetworkPolicyPeer};
use kube::Client;
use planner::Cluster;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use super::Failure;
use crate::{
    admin::{self, Admin, Readiness, view},
    cli::log,
    default_fleet,
    events::recorder::{self, EventRecorder},
    fleet::kube::{KubeFleet, Settings},
    identity::{self, Identity},
    leader::{
        election::{self, Candidate, LeadError, LeaderState, LeaderWatch, LeaseValidity},
        fencing,
    },
    push::{self, Registry},
    reason,
    reconcile::{Context, Reconciler, event::Event},
    source,
    state::{
        certificates::Certificates,
        configmap::ConfigMapStore,
        store::{ClusterStore, StateStore},
    },
    status,
};

/// Runs the operator in a cluster: objects come from the API server, proxies are pods
///
/// It watches GatewayFleets, ApiRoutes, their policies and Consumers of all namespaces, runs a Deployment of proxies for each
/// GatewayFleet, pushes configuration to them, sets how many there are, and writes what came of each object into its
/// status. Of several operators one leads; the others watch, and take over within 15 s when it is gone, at once when it is
/// ended by SIGTERM. Proxies serve on while there is none.
///
/// The cluster is the one it runs in, else the one that $KUBECONFIG names. Definitions and permissions come with the
/// chart; /readyz on the admin port says what is missing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Namespace of this operator: its Lease, Secret and ConfigMap are here.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    namespace: String,
    /// A namespace where GatewayFleets may be; may be repeated. The operator then needs the rights to run them in these
    /// alone, and refuses others; without it, it needs them everywhere.
    #[arg(long, value_name = "NAMESPACE", env = "SLUICE_FLEET_NAMESPACES", value_delimiter = ',')]
    fleet_namespace: Vec<String>,
    /// This operator's ServiceAccount, which messages name that say which right it lacks.
    #[arg(long, value_name = "NAME", env = "SLUICE_SERVICE_ACCOUNT", default_value = "sluice-operator")]
    service_account: String,
    /// Name of this operator's pod, by which it runs for the lease and signs Events.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pod_name: String,
    /// This operator's address, to which others send proxies while it leads; without it, proxies find it by trying.
    #[arg(long, value_name = "IP", env = "POD_IP")]
    pod_ip: Option<IpAddr>,
    /// Image of proxies.
    #[arg(long, value_name = "IMAGE", env = "SLUICE_PROXY_IMAGE")]
    proxy_image: String,
    /// When nodes fetch that image.
    #[arg(long, value_name = "POLICY", env = "SLUICE_PROXY_IMAGE_PULL_POLICY", default_value = "IfNotPresent",
        value_parser = ["Always", "IfNotPresent", "Never"])]
    proxy_image_pull_policy: String,
    /// A Secret to fetch it with, in the namespace of each fleet; may be repeated.
    #[arg(long, value_name = "NAME", env = "SLUICE_PROXY_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    proxy_image_pull_secret: Vec<String>,
    /// Who may reach the metrics of proxies: `from` of a NetworkPolicy, as JSON; nobody unless set.
    #[arg(long, value_name = "JSON", env = "SLUICE_PROXY_METRICS_FROM", default_value = "[]")]
    proxy_metrics_from: Peers,
    /// Where proxies are taken, over TLS.
    #[arg(long, value_name = "IP:PORT", env = "SLUICE_CONTROL_LISTEN", default_value = "[::]:9443")]
    control_listen: SocketAddr,
    /// The Service, in the operator's namespace, by whose port 9443 proxies reach it.
    #[arg(long, value_name = "NAME", env = "SLUICE_CONTROL_SERVICE", default_value = "sluice-operator")]
    control_service: String,
    /// Where /metrics, /healthz and /readyz are served, and for clients on loopback /debug.
    #[arg(long, value_name = "IP:PORT", env = "SLUICE_ADMIN", default_value = "[::]:9090")]
    admin: SocketAddr,
    /// The Lease that decides who leads.
    #[arg(long, value_name = "NAME", env = "SLUICE_LEASE", default_value = "sluice-operator")]
    lease: String,
    /// The Secret with the authority that operators and proxies know each other by; the leader fills it.
    #[arg(long, value_name = "NAME", env = "SLUICE_CA_SECRET", default_value = "sluice-control-ca")]
    ca_secret: String,
    /// The ConfigMap with what the next leader must know of objects that are broken now.
    #[arg(long, value_name = "NAME", env = "SLUICE_MEMORY_CONFIGMAP", default_value = "sluice-memory")]
    memory_configmap: String,
    /// The Secret with the certificates that were accepted last: one that is broken or gone serves on.
    #[arg(long, value_name = "NAME", env = "SLUICE_CERTIFICATES_SECRET", default_value = "sluice-certificates")]
    certificates_secret: String,
    /// A ConfigMap whose key fleet.yaml holds a GatewayFleet, which the leader applies and the ConfigMap owns.
    #[arg(long, value_name = "NAME", env = "SLUICE_DEFAULT_FLEET_CONFIGMAP")]
    default_fleet_configmap: Option<String>,
}

/// Some of the peers of a NetworkPolicy.
#[derive(Clone, Debug)]
struct Peers(Vec<NetworkPolicyPeer>);

impl FromStr for Peers {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text).map(Self)
    }
}

const EXAMPLES: &str = "Example, against the cluster that $KUBECONFIG names:
  sluice-operator run --namespace sluice-system --pod-name me --proxy-image registry.example/sluice-proxy:1.0";

/// Events that wait for the loop. When it is full, whoever has more waits.
const EVENT_QUEUE_LEN: usize = 1024;
/// Port of the Service by which proxies reach operators.
const CONTROL_PORT: u16 = 9443;
/// Giving up the lease takes a request or two, of a few milliseconds each; the API server may be slow.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(6);

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    log::init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(operate(args));
    // What still waits for an answer of the API server is waited for by nobody.
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

/// Runs until told to end, or until it can't go on.
async fn operate(args: Args) -> Result<(), Failure> {
    // Open before anything else: who looks sees what is waited for.
    let listener = admin::bind_anywhere(args.admin).await?;
    let (told, stop) = watch::channel(Stop::No);
    tokio::spawn(signals(told));
    let mut killed = stop.clone();
    tokio::select! {
        done = lead_or_stand_by(args, listener, stop) => done,
        _ = killed.wait_for(|stop| *stop == Stop::AtOnce) => Err("told twice to end".into()),
    }
}

/// Whether the operator was told to end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    No,
    /// As it should.
    Told,
    /// Without further ado.
    AtOnce,
}

async fn lead_or_stand_by(args: Args, admin: TcpListener, mut stop: watch::Receiver<Stop>) -> Result<(), Failure> {
    let config = kube::Config::infer().await.map(source::kube::patient).map_err(|error| {
        format!("no cluster: this is no pod with a service account, and $KUBECONFIG does not help: {error}")
    })?;
    let (server, validity) = (config.cluster_url.to_string(), LeaseValidity::default());
    // What only reads, or is guarded otherwise, may go on whoever leads; all else ends with the term.
    let (client, fenced) = (Client::try_from(config.clone())?, fencing::client(config.clone(), validity.clone())?);
    let (told, lead) = watch::channel(LeaderState::Standby { holder: None });
    let identity =
        identity::start(client.clone(), &args.namespace, &args.ca_secret, &args.control_service, lead.clone());
    let (progress, synced) = source::kube::progress();
    let view = view::Shared::default();
    let readiness = Readiness::Cluster { progress: synced.clone(), authorities: identity.bundle.clone() };
    let (as_defined, default_fleet) = watch::channel(default_fleet::State::default());
    let shown = default_fleet.clone();
    tokio::spawn(admin::serve(admin, Admin { view: view.clone(), readiness, default_fleet: shown }));
    let Args { namespace, pod_name, .. } = &args;
    tracing::info!(server, namespace, pod = pod_name, "operator started");

    let (sender, events) = mpsc::channel(EVENT_QUEUE_LEN);
    let watching = Client::try_from(config)?;
    let cluster = Cluster {
        operator_namespace: namespace.clone(),
        fleet_namespaces: fleet_namespaces(&args),
        service_account: args.service_account.clone(),
        ..Cluster::default()
    };
    let (tell_in_force, in_force) = watch::channel(None);
    let lists = source::kube::Lists::default();
    let source = tokio::spawn(source::kube::run(watching, lists.clone(), cluster, sender.clone(), progress, in_force));
    let store = ClusterStore {
        objects: ConfigMapStore::start(fenced.clone(), namespace, &args.memory_configmap),
        certificates: Certificates::start(fenced.clone(), namespace, &args.certificates_secret),
    };
    let wake = sender.clone();
    // A full queue is enough: the loop looks at every fleet in each reconciliation.
    let wake = Arc::new(move || drop(wake.try_send(Event::FleetChanged)));
    let recorder = EventRecorder::start(fenced.clone(), pod_name);
    let starting = async {
        let settings = proxies(&args, &identity, recorder.clone());
        let recall = async {
            let persisted = store.load().await;
            let secrets = source::in_force::secrets(&persisted.objects);
            let in_force = source::InForce { world: 0, secrets, ..source::InForce::default() };
            tell_in_force.send_replace(Some(in_force));
            persisted
        };
        tokio::join!(KubeFleet::start(fenced.clone(), settings, wake), recall, is_synced(synced))
    };
    // Whoever runs for the lease knows everything, so that it can act at once.
    let (fleet, persisted, ()) = tokio::select! {
        started = starting => started,
        _ = stop.wait_for(|stop| *stop != Stop::No) => return Ok(()),
    };

    let registry = Arc::new(Registry::default());
    let parts = Context {
        events,
        fleet,
        registry: Arc::clone(&registry),
        persisted,
        store: StateStore::Cluster(Box::new(store)),
        lead: lead.clone(),
        recorder: recorder.clone(),
        statuses: status::Writer::to_api(fenced.clone(), lists, status::API),
        view,
        in_force: Some(tell_in_force),
        default_fleet,
    };
    let serving = push::serve_tls(args.control_listen, identity, lead.clone(), registry, sender.clone());
    let mut operator = tokio::spawn(Reconciler::new(parts).run());
    if let Some(name) = args.default_fleet_configmap.clone() {
        let follow =
            default_fleet::Follow { namespace: namespace.clone(), name, events: recorder.clone(), state: as_defined };
        tokio::spawn(follow.run(fenced, lead.clone()));
    }
    tokio::spawn(announce(lead, namespace.clone(), args.lease.clone(), pod_name.clone(), recorder));
    let (ends, ended) = watch::channel(false);
    let mut leading = tokio::spawn(election::run(client, candidate(&args), told, validity, ended));

    let done: Result<(), Failure> = tokio::select! {
        done = &mut operator => done.map(drop).map_err(|error| format!("the loop failed: {error}").into()),
        lost = &mut leading => return Err(why(lost)),
        error = unless(&stop, serving) => Err(error.err().map_or_else(|| "the push server ended".into(), Failure::from)),
        error = unless(&stop, source) => Err(format!("the watches ended: {error:?}").into()),
        () = tell(stop.clone(), sender) => Err("the loop does not end".into()),
    };
    // Whatever the reason: another may lead at once.
    ends.send_replace(true);
    let _ = tokio::time::timeout(RELEASE_TIMEOUT, leading).await;
    done
}

/// Where fleets may be run; `None`: everywhere.
fn fleet_namespaces(args: &Args) -> Option<Arc<BTreeSet<String>>> {
    let named: BTreeSet<String> = args.fleet_namespace.iter().filter(|name| !name.is_empty()).cloned().collect();
    (!named.is_empty()).then(|| Arc::new(named))
}

/// The settings that pods of proxies are made of.
fn proxies(args: &Args, identity: &Identity, recorder: EventRecorder) -> Settings {
    Settings {
        image: args.proxy_image.clone(),
        image_pull_policy: args.proxy_image_pull_policy.clone(),
        image_pull_secrets: args.proxy_image_pull_secret.clone(),
        namespaces: fleet_namespaces(args),
        control: format!("https://{}.{}.svc:{CONTROL_PORT}", args.control_service, args.namespace),
        ca: identity.bundle.clone(),
        metrics_from: args.proxy_metrics_from.0.clone(),
        pods: identity.pods.clone(),
        recorder,
    }
}

fn candidate(args: &Args) -> Candidate {
    // A container that starts again in its pod is another contender.
    let started = jiff::Timestamp::now().as_millisecond();
    Candidate {
        namespace: args.namespace.clone(),
        name: args.lease.clone(),
        identity: format!("{}_{started:x}", args.pod_name),
        address: args.pod_ip.map(|ip| SocketAddr::new(ip, args.control_listen.port()).to_string()),
    }
}

async fn is_synced(mut progress: watch::Receiver<source::kube::Progress>) {
    let mut said = String::new();
    while !progress.borrow_and_update().synced {
        let now = progress.borrow().to_string();
        if now != said {
            tracing::info!("{now}");
            said = now;
        }
        if progress.changed().await.is_err() {
            // The watches ended, which ends the operator.
            return std::future::pending().await;
        }
    }
}

fn why(ended: Result<Result<(), LeadError>, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Ok(())) => "the election ended".into(),
        Ok(Err(lost)) => lost.into(),
        Err(error) => format!("the election failed: {error}").into(),
    }
}

/// How a part ended by itself. Once the operator was told to end, parts do: that is no news.
async fn unless<T>(stop: &watch::Receiver<Stop>, part: impl Future<Output = T>) -> T {
    let ended = part.await;
    match *stop.borrow() {
        Stop::No => ended,
        Stop::Told | Stop::AtOnce => std::future::pending().await,
    }
}

/// Says in an Event when this operator begins to lead.
async fn announce(mut lead: LeaderWatch, namespace: String, lease: String, pod: String, recorder: EventRecorder) {
    let began = lead.wait_for(|lead| matches!(lead, LeaderState::Leader { .. })).await;
    let Ok(LeaderState::Leader { epoch }) = began.map(|lead| lead.clone()) else { return };
    let regarding = ObjectReference {
        api_version: Some("coordination.k8s.io/v1".into()),
        kind: Some("Lease".into()),
        namespace: Some(namespace),
        name: Some(lease),
        ..ObjectReference::default()
    };
    let note = format!("{pod} leads, with epoch {epoch}");
    recorder.publish(recorder::Event {
        regarding,
        warning: false,
        reason: reason::BECAME_LEADER,
        action: "Lead",
        note,
    });
}

/// Passes the wish to end on to the loop, which then ends within seconds.
async fn tell(mut stop: watch::Receiver<Stop>, events: mpsc::Sender<Event>) {
    if stop.wait_for(|stop| *stop != Stop::No).await.is_err() {
        return std::future::pending().await;
    }
    tracing::info!("ending: proxies go on, another operator takes over");
    // The loop is gone only when the operator ends anyway.
    let _ = events.send(Event::Shutdown).await;
    tokio::time::sleep(2 * RELEASE_TIMEOUT).await;
}

async fn signals(told: watch::Sender<Stop>) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals can't be received: end this operator with kill -9");
        return std::future::pending().await;
    };
    for next in [Stop::Told, Stop::AtOnce] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.send_replace(next);
    }
}
