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
use crate::{
    identity::{EnrollError, Enrolled, Identity, certificate::CertificateError, review::ReviewError},
    log_throttle::LogThrottle,
};

/// Reviews by the API server at one time; more wait.
const MAX_CONCURRENT_REVIEWS: usize = 8;
/// Longest wait for a permit, and for the answer.
const ENROLL_TIMEOUT: Duration = Duration::from_secs(5);
/// A token of a pod has about 1 KiB, a request of a P-256 key 200 bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;
const MAX_CSR_BYTES: usize = 4 << 10;
/// Refusals are logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Where proxies enrol.
pub(super) struct EnrollmentService {
    identity: Identity,
    permits: Semaphore,
    throttle: Mutex<LogThrottle>,
}

impl EnrollmentService {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            permits: Semaphore::new(MAX_CONCURRENT_REVIEWS),
            throttle: Mutex::new(LogThrottle::new(LOG_INTERVAL)),
        }
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
                self.log_refusal(from, &status);
                Err(status)
            }
        }
    }

    async fn admit(&self, request: EnrollRequest, registry: &Registry) -> Result<Enrolled, Status> {
        let EnrollRequest { token, csr } = request;
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES || csr.len() > MAX_CSR_BYTES {
            return Err(Status::invalid_argument("no token, or a token or csr of a size that none has"));
        }
        let Some(plan) = registry.plan() else {
            return Err(Status::unavailable("this operator does not know yet what fleets there are"));
        };
        let enroll = async {
            let _permit = self.permits.acquire().await.map_err(|_| Status::unavailable("the operator ends"))?;
            self.identity.enroll(token, &csr, plan.fleets.keys()).await.map_err(|error| status(&error))
        };
        let late = |_| Status::resource_exhausted("too many enrol at once, or the API server is slow");
        tokio::time::timeout(ENROLL_TIMEOUT, enroll).await.map_err(late)?
    }

    fn log_refusal(&self, from: Option<std::net::SocketAddr>, status: &Status) {
        let due = self.throttle.lock().unwrap_or_else(PoisonError::into_inner).due(Instant::now());
        if let Some(unsaid) = due {
            tracing::warn!(?from, reason = status.message(), unsaid, "a proxy can't enrol");
        }
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
