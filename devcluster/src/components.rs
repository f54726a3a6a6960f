//! What runs on the node, and with which flags. The paths are those of the node: see `node`.

/// The address of the machine on the wire to the node, and the node's. Everything of the cluster is in 10.213.0.0/16.
pub(super) const HOST_ADDRESS: &str = "10.213.255.1";
pub(super) const NODE_ADDRESS: &str = "10.213.255.2";
pub(super) const WIRE_PREFIX: &str = "30";
pub(super) const ALL: &str = "10.213.0.0/16";
pub(super) const PODS: &str = "10.213.0.0/24";
pub(super) const SERVICES: &str = "10.213.64.0/20";
/// The first address of [`SERVICES`]: the API server's.
pub(super) const KUBERNETES_ADDRESS: &str = "10.213.64.1";
pub(super) const DNS_ADDRESS: &str = "10.213.64.10";
pub(super) const NODE_NAME: &str = "sluice";
pub(super) const ZONE: &str = "zone-a";

/// A program that is started again when it ends.
pub(super) struct Component {
    pub(super) name: &'static str,
    pub(super) command: Vec<String>,
    /// A file whose appearance says that the next component may start.
    pub(super) ready: Option<&'static str>,
}

/// In the order in which they start. Those that need the API server wait for it, or are started again until it is there.
pub(super) fn all() -> Vec<Component> {
    vec![
        own("etcd", &["/run/sluice/bin/etcd"], etcd()),
        Component {
            name: "containerd",
            command: words("containerd --config /run/sluice/state/containerd.toml"),
            ready: Some("/run/containerd/containerd.sock"),
        },
        kubernetes("kube-apiserver", apiserver()),
        kubernetes("kube-controller-manager", controller_manager()),
        kubernetes(
            "kube-scheduler",
            words("--kubeconfig=/run/sluice/state/pki/scheduler.kubeconfig --leader-elect=false"),
        ),
        kubernetes("kubelet", kubelet()),
        kubernetes("kube-proxy", proxy()),
    ]
}

fn own(name: &'static str, program: &[&str], flags: Vec<String>) -> Component {
    let command = program.iter().map(|word| (*word).to_owned()).chain(flags).collect();
    Component { name, command, ready: None }
}

fn kubernetes(name: &'static str, flags: Vec<String>) -> Component {
    own(name, &["/run/sluice/bin/kubernetes", name], flags)
}

fn etcd() -> Vec<String> {
    // What is lost with the machine's power is a cluster that nobody wants back: no fsync.
    words(
        "--name=node --data-dir=/var/lib/etcd --unsafe-no-fsync --log-level=warn
         --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379
         --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380
         --initial-cluster=node=http://127.0.0.1:2380",
    )
}

fn apiserver() -> Vec<String> {
    // Logs and exec go to the kubelet by its address: its name means nothing to anyone.
    let fixed = words(
        "--etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --allow-privileged=true
         --kubelet-preferred-address-types=InternalIP
         --tls-cert-file=/run/sluice/state/pki/apiserver.crt --tls-private-key-file=/run/sluice/state/pki/apiserver.key
         --client-ca-file=/run/sluice/state/pki/ca.crt
         --kubelet-certificate-authority=/run/sluice/state/pki/ca.crt
         --kubelet-client-certificate=/run/sluice/state/pki/apiserver-kubelet-client.crt
         --kubelet-client-key=/run/sluice/state/pki/apiserver-kubelet-client.key
         --service-account-issuer=https://kubernetes.default.svc
         --service-account-key-file=/run/sluice/state/pki/sa.pub
         --service-account-signing-key-file=/run/sluice/state/pki/sa.key
         --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction",
    );
    with(fixed, [("--advertise-address", NODE_ADDRESS), ("--service-cluster-ip-range", SERVICES)])
}

fn controller_manager() -> Vec<String> {
    // Its controllers are set up one by one, each with a few requests: at its own pace of 20 a second that takes 5 s.
    let fixed = words(
        "--kubeconfig=/run/sluice/state/pki/controller-manager.kubeconfig --leader-elect=false
         --use-service-account-credentials=true --root-ca-file=/run/sluice/state/pki/ca.crt
         --service-account-private-key-file=/run/sluice/state/pki/sa.key
         --cluster-signing-cert-file=/run/sluice/state/pki/ca.crt
         --cluster-signing-key-file=/run/sluice/state/pki/ca.key
         --allocate-node-cidrs=true --kube-api-qps=200 --kube-api-burst=400",
    );
    with(fixed, [("--cluster-cidr", PODS), ("--service-cluster-ip-range", SERVICES)])
}

fn kubelet() -> Vec<String> {
    let fixed = words(
        "--kubeconfig=/run/sluice/state/pki/node.kubeconfig --config=/run/sluice/state/kubelet.yaml --root-dir=/var/lib/kubelet",
    );
    // EndpointSlices name the zone of the node that a pod is on.
    let label = format!("topology.kubernetes.io/zone={ZONE}");
    with(fixed, [("--hostname-override", NODE_NAME), ("--node-ip", NODE_ADDRESS), ("--node-labels", &label)])
}

fn proxy() -> Vec<String> {
    // The size of the connection table is the machine's: the node may not write it. Not by iptables: while its restore
    // replaces the rules, the kernel lets single packets through that no rule has seen.
    let fixed = words(
        "--kubeconfig=/run/sluice/state/pki/proxy.kubeconfig --proxy-mode=nftables --conntrack-max-per-core=0
         --oom-score-adj=0",
    );
    with(fixed, [("--cluster-cidr", PODS), ("--hostname-override", NODE_NAME)])
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn with<const N: usize>(mut flags: Vec<String>, more: [(&str, &str); N]) -> Vec<String> {
    flags.extend(more.map(|(flag, value)| format!("{flag}={value}")));
    flags
}
