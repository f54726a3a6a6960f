//! The pods of proxies that there are: a certificate names its pod by uid, and is good for no longer than that pod lives. So
//! what was copied out of a pod is of no use once it is gone, and neither is the name of one that came after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use planner::FleetRef;
use tokio::sync::watch;

use super::certificate::Peer;

/// Namespace and name of a pod.
pub type PodName = (String, String);

/// The pods of proxies, as the API server tells.
#[derive(Clone, Debug)]
pub struct Pods(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    living: Mutex<Living>,
    /// Counts the times that some were no more.
    gone: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Living {
    /// Where it was told what there is.
    known: Known,
    /// The fleet of each pod, and its uid.
    pods: BTreeMap<PodName, (String, String)>,
}

#[derive(Debug)]
enum Known {
    All,
    Namespaces(BTreeSet<String>),
}

impl Default for Known {
    fn default() -> Self {
        Self::Namespaces(BTreeSet::new())
    }
}

/// A pod that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The label that names its fleet.
    pub fleet: String,
    /// Which one of its name it is.
    pub uid: String,
}

impl Default for Pods {
    fn default() -> Self {
        Self(Arc::new(Shared { living: Mutex::default(), gone: watch::Sender::new(0) }))
    }
}

impl Pods {
    /// Takes the whole list of living pods, of a namespace or of all.
    pub fn listed(&self, namespace: Option<&str>, pods: impl Iterator<Item = (PodName, Pod)>) {
        let mut living = self.living();
        match (namespace, &mut living.known) {
            (None, known) => *known = Known::All,
            (Some(namespace), Known::Namespaces(known)) => drop(known.insert(namespace.to_owned())),
            (Some(_), Known::All) => {}
        }
        living.pods.retain(|(of, _), _| namespace.is_some_and(|namespace| of != namespace));
        living.pods.extend(pods.map(|(name, pod)| (name, (pod.fleet, pod.uid))));
        drop(living);
        self.0.gone.send_modify(|times| *times += 1);
    }

    /// Takes a pod that lives, perhaps in the place of another.
    pub fn lives(&self, name: PodName, pod: Pod) {
        let former = self.living().pods.insert(name, (pod.fleet, pod.uid.clone()));
        if former.is_some_and(|(_, uid)| uid != pod.uid) {
            self.0.gone.send_modify(|times| *times += 1);
        }
    }

    /// Takes the end of a pod.
    pub fn ended(&self, name: &PodName) {
        if self.living().pods.remove(name).is_some() {
            self.0.gone.send_modify(|times| *times += 1);
        }
    }

    /// Whether the pod that a certificate names lives. Where the operator may not look, the word of the API server that
    /// permitted the certificate stands until that ends.
    pub fn has(&self, peer: &Peer) -> bool {
        let Peer { fleet: FleetRef { namespace, name }, pod, uid } = peer;
        let living = self.living();
        let is_known = match &living.known {
            Known::All => true,
            Known::Namespaces(known) => known.contains(namespace),
        };
        let found = living.pods.get(&(namespace.clone(), pod.clone()));
        !is_known || found.is_some_and(|(of, found)| found == uid && *of == planner::fleet::label_value(name))
    }

    /// Comes back when the pod is no more.
    pub async fn gone(&self, peer: &Peer) {
        let mut gone = self.0.gone.subscribe();
        // It has its own sender.
        let _ = gone.wait_for(|_| !self.has(peer)).await;
    }

    /// For a moment: never across an await.
    fn living(&self) -> MutexGuard<'_, Living> {
        self.0.living.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn name(namespace: &str) -> PodName {
        (namespace.into(), "f-0".into())
    }

    fn pod(uid: &str) -> Pod {
        Pod { fleet: "f".into(), uid: uid.into() }
    }

    fn peer(namespace: &str, uid: &str) -> Peer {
        let fleet = FleetRef { namespace: namespace.into(), name: "f".into() };
        Peer { fleet, pod: "f-0".into(), uid: uid.into() }
    }

    #[test]
    fn it_is_that_very_pod_or_none() {
        let pods = Pods::default();
        assert!(pods.has(&peer("a", "1")), "nothing is known yet");
        pods.listed(Some("a"), [(name("a"), pod("1"))].into_iter());
        assert!(pods.has(&peer("a", "1")) && !pods.has(&peer("a", "2")) && pods.has(&peer("b", "1")));
        let other = Peer { fleet: FleetRef { namespace: "a".into(), name: "g".into() }, ..peer("a", "1") };
        assert!(!pods.has(&other), "of another fleet");
        // Another of its name: of a StatefulSet, or made by hand.
        pods.lives(name("a"), pod("2"));
        assert!(!pods.has(&peer("a", "1")) && pods.has(&peer("a", "2")));
        pods.ended(&name("a"));
        assert!(!pods.has(&peer("a", "2")));
        // Of one namespace nothing follows for another.
        pods.listed(Some("b"), [(name("b"), pod("1"))].into_iter());
        pods.listed(Some("a"), [].into_iter());
        assert!(pods.has(&peer("b", "1")) && !pods.has(&peer("a", "1")));
        pods.listed(None, [(name("a"), pod("3"))].into_iter());
        assert!(!pods.has(&peer("b", "1")) && pods.has(&peer("a", "3")) && !pods.has(&peer("c", "1")));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told_when_it_is_gone() {
        let pods = Pods::default();
        pods.listed(None, [(name("a"), pod("1"))].into_iter());
        let (waiting, peer) = (pods.clone(), peer("a", "1"));
        let gone = tokio::spawn(async move { waiting.gone(&peer).await });
        pods.lives(name("a"), pod("1"));
        pods.lives(name("b"), pod("1"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!gone.is_finished());
        pods.ended(&name("a"));
        tokio::time::timeout(Duration::from_secs(1), gone).await.unwrap().unwrap();
    }
}
