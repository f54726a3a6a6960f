//! Gives proxies their certificates, under bounds: whoever reaches the port may ask.

use std::{
    sync::Mutex,
    sync::PoisonError,
    time::{Duration, Instant},
};

use bytes::Bytes;
use snapshot::proto::{EnrollRequest, EnrollResponse};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::Registry;
use crate::identity::{EnrollError, Enrolled, Identity, certificate::CertificateError, review::ReviewError};

/// Reviews by the API server at one time; more wait.
const AT_ONCE: usize = 8;
/// Longest wait for one's turn, and for the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A token of a pod has about 1 KiB, a request of a P-256 key 200 bytes.
const MAX_TOKEN: usize = 16 << 10;
const MAX_REQUEST: usize = 4 << 10;
/// Refusals are logged at most this often.
const QUIET: Duration = Duration::from_secs(1);

/// Where proxies enrol.
pub(super) struct Office {
    identity: Identity,
    turns: Semaphore,
    complaints: Mutex<Complaints>,
}

/// Keeps refusals from filling the log.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Office {
    pub(super) fn new(identity: Identity) -> Self {
        Self { identity, turns: Semaphore::new(AT_ONCE), complaints: Mutex::default() }
    }

    pub(super) async fn enroll(
        &self,
        request: Request<EnrollRequest>,
        registry: &Registry,
    ) -> Result<Response<EnrollResponse>, Status> {
        let from = super::tls::address(&request);
        match self.admit(request.into_inner(), registry).await {
            Ok(Enrolled { peer, signed, authorities }) => {
                tracing::info!(pod = peer.pod, fleet = %peer.fleet, until = %signed.until, "proxy enrolled");
                Ok(Response::new(EnrollResponse {
                    chain: vec![Bytes::copy_from_slice(&signed.certificate)],
                    authorities: authorities.into_iter().map(Bytes::from).collect(),
                    not_after_unix_ms: signed.until.as_millisecond().unsigned_abs(),
                }))
            }
            Err(status) => {
                self.complain(from, &status);
                Err(status)
            }
        }
    }

    async fn admit(&self, request: EnrollRequest, registry: &Registry) -> Result<Enrolled, Status> {
        let EnrollRequest { token, csr } = request;
        if token.is_empty() || token.len() > MAX_TOKEN || csr.len() > MAX_REQUEST {
            return Err(Status::invalid_argument("no token, or a token or csr of a size that none has"));
        }
        let Some(plan) = registry.plan() else {
            return Err(Status::unavailable("this operator does not know yet what fleets there are"));
        };
        let enroll = async {
            let _turn = self.turns.acquire().await.map_err(|_| Status::unavailable("the operator ends"))?;
            self.identity.enroll(token, &csr, plan.fleets.keys()).await.map_err(|error| status(&error))
        };
        let late = |_| Status::resource_exhausted("too many enrol at once, or the API server is slow");
        tokio::time::timeout(PATIENCE, enroll).await.map_err(late)?
    }

    fn complain(&self, from: Option<std::net::SocketAddr>, status: &Status) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.last.is_some_and(|last| last.elapsed() < QUIET) {
            complaints.unsaid += 1;
            return;
        }
        complaints.last = Some(Instant::now());
        let unsaid = std::mem::take(&mut complaints.unsaid);
        tracing::warn!(?from, reason = status.message(), unsaid, "a proxy can't enrol");
    }
}

fn status(error: &EnrollError) -> Status {
    let message = error.to_string();
    match error {
        EnrollError::NoAuthority | EnrollError::Review(ReviewError::Api(_)) => Status::unavailable(message),
        EnrollError::Review(_) => Status::unauthenticated(message),
        EnrollError::NotOfFleet(..) => Status::permission_denied(message),
        EnrollError::Certificate(CertificateError::Sign(_)) => Status::internal(message),
        EnrollError::Certificate(_) => Status::invalid_argument(message),
    }
}
