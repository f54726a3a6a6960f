//! Identity in a cluster: operators prove themselves to proxies by certificates of an authority of their own, and
//! proxies to operators by a token once, and then by a client certificate.
//!
//! ```text
//!  Secret ──► Authorities ──bundle──► ConfigMap of each fleet ──► proxies
//!               │   │
//!               │   └─signs──► this replica's server certificate ──► push/
//!               └─signs──► a proxy's client certificate ◄── Enroll{token, csr}: TokenReview
//! ```
//!
//! - [`authority`]: what is signed with, and when that changes (pure). [`certificate`]: what is signed.
//! - [`secret`]: where it is kept. [`review`]: who holds a token. [`pods`]: which pods live, by whose end certificates end.

pub mod authority;
pub mod certificate;
pub mod pods;
pub mod review;
pub mod secret;
mod x509;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::Client;
use planner::FleetRef;
use rustls::ServerConfig;
use tokio::sync::watch;
use transport::mtls;

use self::{
    authority::{Authorities, Authority},
    certificate::{CertificateError, Peer, Signed},
    pods::Pods,
    review::ReviewError,
    secret::Store,
};
use crate::{
    kube::names,
    leader::election::{LeaderState, LeaderWatch},
};

/// How often the Secret is read, before there is an authority and after. A change has a day of overlap.
const FIRST_READ_INTERVAL: Duration = Duration::from_secs(1);
const READ_INTERVAL: Duration = Duration::from_secs(30);

/// The identity of one operator: its certificate, and the authorities by which it knows proxies.
#[derive(Clone)]
pub struct Identity {
    /// The authorities that proxies trust operators by, in PEM: `ca.crt` of each fleet's ConfigMap. Empty until there
    /// is an authority.
    pub bundle: watch::Receiver<Arc<str>>,
    /// The pods that certificates may name. Until it is told what there is, any.
    pub pods: Pods,
    current: watch::Receiver<Option<Arc<Current>>>,
    client: Client,
}

/// The authorities and the certificate in force.
struct Current {
    authorities: Authorities,
    tls: Arc<ServerConfig>,
    /// When the server certificate was made, and ends.
    made: Timestamp,
    until: Timestamp,
}

/// Why a proxy gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// No authority yet.
    #[error("this operator has no certificate authority yet; see its log")]
    NoAuthority,
    /// The token does not do.
    #[error(transparent)]
    Review(#[from] ReviewError),
    /// No proxy of a fleet.
    #[error("service account {0:?} in namespace {1:?} is of no GatewayFleet there")]
    NotOfFleet(String, String),
    /// The request does not do.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The outcome of an enrolment.
#[derive(Debug)]
pub struct Enrolled {
    /// The proxy that enrolled.
    pub peer: Peer,
    /// Its certificate.
    pub signed: Signed,
    /// The authorities that operators are trusted by, DER.
    pub authorities: Vec<Vec<u8>>,
}

/// Follows the Secret `namespace/secret`, which the leader fills and changes, and serves under the name of `service`.
/// To be called within a runtime.
pub fn start(client: Client, namespace: &str, secret: &str, service: &str, lead: LeaderWatch) -> Identity {
    let (bundles, bundle) = watch::channel(Arc::from(""));
    let (currents, current) = watch::channel(None);
    let store = Store::new(client.clone(), namespace, secret);
    tokio::spawn(follow(store, server_names(namespace, service), lead, currents, bundles));
    Identity { bundle, pods: Pods::default(), current, client }
}

fn server_names(namespace: &str, service: &str) -> Vec<String> {
    let full = format!("{service}.{namespace}.svc");
    vec![full.clone(), format!("{full}.cluster.local"), service.to_owned()]
}

impl Identity {
    /// The TLS configuration to serve with now; `None` until there is an authority.
    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.current.borrow().as_ref().map(|current| Arc::clone(&current.tls))
    }

    /// Gives a proxy of one of the fleets its certificate.
    pub(crate) async fn enroll<'a>(
        &self,
        token: String,
        request: &[u8],
        fleets: impl Iterator<Item = &'a FleetRef>,
    ) -> Result<Enrolled, EnrollError> {
        // Before the API server is asked: what is not well-formed costs it nothing.
        let key = certificate::public_key(request)?;
        let holder = review::review(&self.client, token).await?;
        let mut fleets = fleets.filter(|fleet| fleet.namespace == holder.namespace);
        let Some(fleet) = fleets.find(|fleet| names::fleet_object(&fleet.name) == holder.service_account) else {
            return Err(EnrollError::NotOfFleet(holder.service_account, holder.namespace));
        };
        let peer = Peer { fleet: fleet.clone(), pod: holder.pod, uid: holder.uid };
        let current = self.current.borrow().clone().ok_or(EnrollError::NoAuthority)?;
        let now = Timestamp::now();
        let authority = current.authorities.signer(now).ok_or(EnrollError::NoAuthority)?;
        let signed = certificate::proxy(authority, &peer, &key, now)?;
        let authorities = current.authorities.certificates().map(|c| c.to_vec()).collect();
        Ok(Enrolled { peer, signed, authorities })
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lives = self.current.borrow().as_ref().map(|current| current.authorities.lives());
        f.debug_struct("Identity").field("authorities", &lives).finish_non_exhaustive()
    }
}

/// Why nothing is served yet, or what is served grows old.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Secret(#[from] secret::SecretError),
    #[error("no server certificate can be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] mtls::ConfigError),
}

async fn follow(
    store: Store,
    names: Vec<String>,
    mut lead: LeaderWatch,
    currents: watch::Sender<Option<Arc<Current>>>,
    bundles: watch::Sender<Arc<str>>,
) {
    let mut complained = None;
    while !currents.is_closed() {
        let leads = matches!(*lead.borrow_and_update(), LeaderState::Leader { .. });
        let now = Timestamp::now();
        let result = match if leads { store.keep(now).await.map(Some) } else { store.read().await } {
            Ok(Some(authorities)) => take(&authorities, &names, &currents, &bundles, now),
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        let complaint = result.err().map(|error| error.to_string());
        if complaint != complained {
            match &complaint {
                Some(complaint) => tracing::error!("identity of the control channel: {complaint}"),
                None => tracing::info!("identity of the control channel: as it should be again"),
            }
        }
        complained = complaint;
        let soon = currents.borrow().is_none() || complained.is_some();
        let turned = async {
            if lead.changed().await.is_err() {
                std::future::pending::<()>().await; // it stays what it is
            }
        };
        tokio::select! {
            () = tokio::time::sleep(if soon { FIRST_READ_INTERVAL } else { READ_INTERVAL }) => {}
            () = turned => {}
        }
    }
}

/// Puts the authorities in force, unless they are, with a server certificate that is not old.
fn take(
    authorities: &Authorities,
    names: &[String],
    currents: &watch::Sender<Option<Arc<Current>>>,
    bundles: &watch::Sender<Arc<str>>,
    now: Timestamp,
) -> Result<(), FollowError> {
    let Some(signer) = authorities.signer(now) else { return Ok(()) };
    let fresh = |current: &Arc<Current>| {
        let age = current.made.duration_until(now);
        current.authorities == *authorities && age < current.made.duration_until(current.until) * 2 / 3
    };
    if currents.borrow().as_ref().is_some_and(fresh) {
        return Ok(());
    }
    let current = serve_with(authorities, signer, names, now)?;
    bundles.send_if_modified(|bundle| {
        let new = authorities.bundle();
        let differs = **bundle != *new;
        *bundle = new.into();
        differs
    });
    currents.send_replace(Some(Arc::new(current)));
    Ok(())
}

fn serve_with(
    authorities: &Authorities,
    signer: &Authority,
    names: &[String],
    now: Timestamp,
) -> Result<Current, FollowError> {
    let (signed, key) = certificate::server(signer, names, now)?;
    let Signed { certificate, until } = signed;
    tracing::info!(%until, names = names.join(" "), "server certificate of the control channel made");
    let tls = mtls::server(authorities.certificates().cloned(), certificate, key)?;
    Ok(Current { authorities: authorities.clone(), tls: Arc::new(tls), made: now, until })
}

#[cfg(test)]
pub(crate) mod tests;
