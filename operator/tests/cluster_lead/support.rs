//! A namespace, contenders for a lease, and waiting.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, PostParams},
};
use operator::leader::election::{self, Candidate, LeadError, LeaderState, LeaderWatch, LeaseValidity};
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Longer than anything here takes.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A namespace of one test.
pub(crate) struct Space {
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) client: Client,
}

impl Space {
    /// Runs a test with a namespace that is made for it, and removed.
    pub(crate) async fn with(what: &str, test: impl AsyncFnOnce(&Self)) {
        let config = Config::infer().await.expect("KUBECONFIG names a cluster");
        let client = Client::try_from(config.clone()).unwrap();
        let name = format!("lead-test-{what}-{}", std::process::id());
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        let space = Self { name, config, client };
        let tested = AssertUnwindSafe(test(&space)).catch_unwind().await;
        namespaces.delete(&space.name, &DeleteParams::background()).await.unwrap();
        if let Err(panic) = tested {
            resume_unwind(panic);
        }
    }
}

/// One that runs for the lease `sluice-operator`.
pub(crate) struct Contender {
    pub(crate) address: String,
    pub(crate) lead: LeaderWatch,
    pub(crate) validity: LeaseValidity,
    pub(crate) ends: watch::Sender<bool>,
    pub(crate) task: JoinHandle<Result<(), LeadError>>,
}

impl Contender {
    pub(crate) fn start(space: &Space, name: &str) -> Self {
        let (told, lead) = watch::channel(LeaderState::Standby { holder: None });
        let (ends, ended) = watch::channel(false);
        let (validity, address) = (LeaseValidity::default(), format!("{name}:9443"));
        let candidate = Candidate {
            namespace: space.name.clone(),
            name: "sluice-operator".into(),
            identity: name.into(),
            address: Some(address.clone()),
        };
        let task = tokio::spawn(election::run(space.client.clone(), candidate, told, validity.clone(), ended));
        Self { address, lead, validity, ends, task }
    }

    pub(crate) fn epoch(&self) -> Option<u64> {
        match *self.lead.borrow() {
            LeaderState::Leader { epoch } => Some(epoch),
            LeaderState::Standby { .. } => None,
        }
    }
}

/// Looks all the time that no two lead.
pub(crate) struct NeverTwo {
    stop: watch::Sender<bool>,
    task: JoinHandle<u64>,
}

pub(crate) fn never_two(terms: Vec<LeaseValidity>) -> NeverTwo {
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(async move {
        let mut looks = 0;
        while !*stopped.borrow() {
            assert!(terms.iter().filter(|validity| validity.holds()).count() <= 1, "two lead");
            looks += 1;
            sleep(Duration::from_millis(5)).await;
        }
        looks
    });
    NeverTwo { stop, task }
}

impl NeverTwo {
    pub(crate) async fn finish(self) {
        self.stop.send_replace(true);
        assert!(self.task.await.unwrap() > 100, "looked");
    }
}

#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let start = Instant::now();
    async move {
        while !holds() {
            assert!(start.elapsed() < WAIT_TIMEOUT, "{what}: not within {WAIT_TIMEOUT:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The same for what has to be asked for.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(start.elapsed() < WAIT_TIMEOUT, "{what}: not within {WAIT_TIMEOUT:?}");
        sleep(Duration::from_millis(100)).await;
    }
}
