//! The Secret that holds the authorities: `ca.crt`, what is trusted, and `ca.key`, the keys in the same order. All
//! replicas read it; the leader alone writes, and of two that think they lead, the API server lets one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};

use super::authority::{Authorities, ParseError};

const CERTIFICATES: &str = "ca.crt";
const KEYS: &str = "ca.key";
const MANAGER: &str = "sluice-operator";
/// Writes that meet another's are tried again this often in a row.
const MAX_ATTEMPTS: usize = 4;

/// Why there are no authorities, or they are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The Secret can't be read or written.
    #[error("Secret {0} can't be {1}: {2}")]
    Api(String, &'static str, Box<kube::Error>),
    /// The Secret is not there, and making one is not allowed.
    #[error("Secret {0} is not there, and this operator may not create it: create it empty, as the chart does")]
    Missing(String),
    /// The content of the Secret is not usable.
    #[error("Secret {0}: {1}; set its `data` to null, and the operator fills it anew")]
    Content(String, ParseError),
    /// A new one can't be made.
    #[error("no certificate authority can be made: {0}")]
    Make(#[from] rcgen::Error),
    /// Others write it all the time.
    #[error("Secret {0} is changed by someone else all the time")]
    Contended(String),
}

/// Where it is.
#[derive(Clone)]
pub(super) struct Store {
    api: Api<Secret>,
    namespace: String,
    name: String,
}

impl Store {
    pub(super) fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(kube::Error) -> SecretError {
        let name = self.to_string();
        move |error| SecretError::Api(name, what, Box::new(error))
    }

    /// The authorities in the Secret; `None`: none yet.
    pub(super) async fn read(&self) -> Result<Option<Authorities>, SecretError> {
        let secret = self.api.get_opt(&self.name).await.map_err(self.failed("read"))?;
        secret.as_ref().map_or(Ok(None), |secret| self.parse(secret))
    }

    /// Makes the changes that are due at this time, and returns the authorities after them. For the leader.
    pub(super) async fn keep(&self, now: Timestamp) -> Result<Authorities, SecretError> {
        for _ in 0..MAX_ATTEMPTS {
            let secret = self.api.get_opt(&self.name).await.map_err(self.failed("read"))?;
            let found = secret.as_ref().map_or(Ok(None), |secret| self.parse(secret))?.unwrap_or_default();
            let Some(next) = found.changed(now)? else { return Ok(found) };
            let options = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            let found_none = secret.is_none();
            let written = match secret {
                None => self.api.create(&options, &self.filled(Secret::default(), &next)).await,
                // With the version that was read: another's change since then makes it a conflict.
                Some(secret) => self.api.replace(&self.name, &options, &self.filled(secret, &next)).await,
            };
            match written {
                Ok(_) => {
                    let lives = next.lives();
                    tracing::info!(secret = %self, ?lives, "certificate authorities of the control channel changed");
                    return Ok(next);
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(kube::Error::Api(status)) if status.code == 403 && found_none => {
                    return Err(SecretError::Missing(self.to_string()));
                }
                Err(error) => return Err(self.failed("written")(error)),
            }
        }
        Err(SecretError::Contended(self.to_string()))
    }

    /// A Secret without content is one that is to be filled: so that whoever made it removes it too.
    fn parse(&self, secret: &Secret) -> Result<Option<Authorities>, SecretError> {
        let field = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice());
        let wrong = |why| SecretError::Content(self.to_string(), why);
        match (field(CERTIFICATES).unwrap_or_default(), field(KEYS).unwrap_or_default()) {
            ([], []) => Ok(None),
            (certificates, keys) => Authorities::parse(certificates, keys).map(Some).map_err(wrong),
        }
    }

    fn filled(&self, mut secret: Secret, authorities: &Authorities) -> Secret {
        let data = secret.data.get_or_insert_default();
        data.insert(CERTIFICATES.to_owned(), ByteString(authorities.bundle().into_bytes()));
        data.insert(KEYS.to_owned(), ByteString(authorities.keys().into_bytes()));
        if secret.name_any().is_empty() {
            let labels = BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned())]);
            let (name, namespace) = (Some(self.name.clone()), Some(self.namespace.clone()));
            secret.metadata = ObjectMeta { name, namespace, labels: Some(labels), ..ObjectMeta::default() };
        }
        secret
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
