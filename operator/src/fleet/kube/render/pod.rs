//! The pods of a fleet. Whatever changes here replaces every pod, so only what a proxy can't take up while it runs is in
//! it: no listeners, no replicas, no certificates.

use std::collections::BTreeMap;

use crds::{
    GatewayFleetSpec,
    fleet::{Resources, Template},
};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
        HTTPGetAction, LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, Probe,
        ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccountTokenProjection,
        TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use planner::{
    FleetPlan,
    fleet::{DEFAULT_CPU_REQUEST, DEFAULT_MEMORY_LIMIT, DEFAULT_MEMORY_REQUEST},
    quantity,
};

use super::{ChildKind, Settings};
use crate::fleet::kube::labels;

/// The port that tells the kubelet whether a proxy is ready, and clients within its pod everything.
const ADMIN_PORT: i32 = 9091;
/// The port of metrics, and of liveness.
pub(super) const METRICS_PORT: i32 = 9092;
/// The key of the trust bundle in its ConfigMap, and so its file.
pub(super) const CA_FILE: &str = "ca.crt";
/// The audience of proxies' tokens.
const AUDIENCE: &str = "sluice";
/// As short as Kubernetes allows.
const TOKEN_SECONDS: i64 = 600;
/// The user of the image; as a number, so that the kubelet sees that it is not root.
const USER: i64 = 65532;
/// After `drain.timeout` a proxy cuts what is left, and ends: it needs a moment for that.
const AFTER_DRAIN_SECONDS: i64 = 15;
/// As many workers as `spec.template.workers` may ask for.
const MAX_WORKERS: u32 = 128;

const CA_FOLDER: &str = "/var/run/sluice-ca";
const TOKEN_FOLDER: &str = "/var/run/secrets/sluice";
const STATE_FOLDER: &str = "/var/lib/sluice";

pub(super) fn spec(plan: &FleetPlan, spec: &GatewayFleetSpec, settings: &Settings) -> PodSpec {
    let template = &spec.template;
    let pull_secret = |name: &String| LocalObjectReference { name: name.clone() };
    PodSpec {
        service_account_name: Some(ChildKind::ServiceAccount.name(&plan.fleet)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(whole_seconds(spec) + AFTER_DRAIN_SECONDS),
        image_pull_secrets: some(settings.image_pull_secrets.iter().map(pull_secret).collect()),
        node_selector: (!template.node_selector.is_empty()).then(|| template.node_selector.clone()),
        tolerations: some(template.tolerations.clone()),
        affinity: template.affinity.clone(),
        priority_class_name: template.priority_class_name.clone(),
        topology_spread_constraints: some(spread(plan, template)),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            // So that the token and the state folder are the proxy's.
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(plan, template, settings)],
        volumes: Some(volumes(plan)),
        ..PodSpec::default()
    }
}

fn whole_seconds(spec: &GatewayFleetSpec) -> i64 {
    i64::try_from(spec.drain.timeout.std().as_millis().div_ceil(1000)).unwrap_or(i64::MAX / 2)
}

fn container(plan: &FleetPlan, template: &Template, settings: &Settings) -> Container {
    let resources = resources(&template.resources);
    let workers = template.workers.unwrap_or_else(|| workers(&resources));
    let args = [
        ("--control", settings.control.clone()),
        ("--token-file", format!("{TOKEN_FOLDER}/token")),
        ("--ca-file", format!("{CA_FOLDER}/{CA_FILE}")),
        ("--name", "$(POD_NAME)".into()),
        ("--fleet", plan.fleet.to_string()),
        ("--admin", format!("[::]:{ADMIN_PORT}")),
        ("--metrics", format!("[::]:{METRICS_PORT}")),
        ("--workers", workers.to_string()),
        ("--state", STATE_FOLDER.into()),
    ];
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    Container {
        name: "proxy".into(),
        image: Some(settings.image.clone()),
        image_pull_policy: Some(settings.image_pull_policy.clone()),
        // The first process of the container is a keeper: while a proxy that crashed is started again, its ports stay open.
        args: Some(
            std::iter::once("--keep".to_owned())
                .chain(args.into_iter().flat_map(|(option, value)| [option.to_owned(), value]))
                .collect(),
        ),
        env: Some(vec![EnvVar {
            name: "POD_NAME".into(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector { api_version: None, field_path: "metadata.name".into() }),
                ..EnvVarSource::default()
            }),
            value: None,
        }]),
        ports: Some(vec![port("admin", ADMIN_PORT), port("metrics", METRICS_PORT)]),
        // A minute to open its ports; then once a second, until it has a configuration. One that takes none from
        // the operator is alive all the same: a restart would not help it.
        // While its keeper starts it again it answers none for a fraction of a second: of these, several have to fail.
        startup_probe: Some(probe("metrics", "/healthz", 1, 60)),
        readiness_probe: Some(probe("admin", "/readyz?wait&exclude=drain", 2, 3)),
        liveness_probe: Some(probe("metrics", "/healthz", 10, 6)),
        resources: Some(resources),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        // Why a proxy crashed is then in its pod's status, and from there in the fleet's.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(vec![
            mount("state", STATE_FOLDER, false),
            mount("token", TOKEN_FOLDER, true),
            mount("ca", CA_FOLDER, true),
        ]),
        ..Container::default()
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: number,
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}

fn probe(port: &str, path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String(port.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        // A proxy under full load answers late, and is the last that should be taken out for it.
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn volumes(plan: &FleetPlan) -> Vec<Volume> {
    let token = ServiceAccountTokenProjection {
        audience: Some(AUDIENCE.into()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: "token".into(),
        user: None,
    };
    vec![
        Volume {
            name: "state".into(),
            // In memory: it has private keys. As large as a configuration may be, twice: it is written beside the old.
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".into()),
                size_limit: Some(Quantity("128Mi".into())),
                mode: None,
            }),
            ..Volume::default()
        },
        Volume {
            name: "token".into(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![VolumeProjection {
                    service_account_token: Some(token),
                    ..VolumeProjection::default()
                }]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "ca".into(),
            config_map: Some(ConfigMapVolumeSource {
                name: ChildKind::ConfigMap.name(&plan.fleet),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
    ]
}

/// The resources of a pod, with our defaults for those that the user neither requests nor limits.
fn resources(users: &Resources) -> ResourceRequirements {
    let quantities = |map: &BTreeMap<String, String>| -> BTreeMap<String, Quantity> {
        map.iter().map(|(key, value)| (key.clone(), Quantity(value.clone()))).collect()
    };
    let (mut requests, mut limits) = (quantities(&users.requests), quantities(&users.limits));
    let is_named = |key: &str| users.requests.contains_key(key) || users.limits.contains_key(key);
    if !is_named("cpu") {
        requests.insert("cpu".into(), Quantity(DEFAULT_CPU_REQUEST.into()));
    }
    if !is_named("memory") {
        requests.insert("memory".into(), Quantity(DEFAULT_MEMORY_REQUEST.into()));
        limits.insert("memory".into(), Quantity(DEFAULT_MEMORY_LIMIT.into()));
    }
    ResourceRequirements {
        requests: (!requests.is_empty()).then_some(requests),
        limits: (!limits.is_empty()).then_some(limits),
        claims: None,
    }
}

/// The number of workers: one for each CPU of the limit, else of the request; 1500m are 2.
fn workers(resources: &ResourceRequirements) -> u32 {
    let cpu = |map: &Option<BTreeMap<String, Quantity>>| quantity::positive(&map.as_ref()?.get("cpu")?.0);
    let cpus = cpu(&resources.limits).or_else(|| cpu(&resources.requests)).unwrap_or(1.0);
    (cpus.ceil() as u32).clamp(1, MAX_WORKERS)
}

/// Over zones and nodes, unless the user says how. Without selector a constraint means the fleet's own pods.
fn spread(plan: &FleetPlan, template: &Template) -> Vec<TopologySpreadConstraint> {
    let own = || LabelSelector { match_labels: Some(labels::selector(&plan.fleet.name)), match_expressions: None };
    let over = |key: &str| TopologySpreadConstraint {
        topology_key: key.into(),
        max_skew: 1,
        when_unsatisfiable: "ScheduleAnyway".into(),
        // Of each template by itself: while one replaces another the old pods do not count.
        match_label_keys: Some(vec!["pod-template-hash".into()]),
        ..TopologySpreadConstraint::default()
    };
    let mut constraints = template
        .topology_spread_constraints
        .clone()
        .unwrap_or_else(|| vec![over("topology.kubernetes.io/zone"), over("kubernetes.io/hostname")]);
    for constraint in &mut constraints {
        constraint.label_selector.get_or_insert_with(own);
    }
    constraints
}

/// An empty list is left out.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
