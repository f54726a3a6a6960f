//! The holder of a service account token, by a TokenReview of the API server.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};

/// The audience of tokens for operators.
pub const AUDIENCE: &str = "sluice";
/// Names of the facts that a token bound to a pod brings.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// A pod that showed its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its name.
    pub pod: String,
    /// Which of that name.
    pub uid: String,
}

/// Why a token does not do. Never says anything of the token itself.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The API server did not answer.
    #[error("the API server does not review the token: {0}; the operator needs `create` on `tokenreviews`")]
    Api(#[from] Box<kube::Error>),
    /// The API server refuses the token.
    #[error("the API server refuses the token{0}")]
    Refused(String),
    /// The token is for another audience.
    #[error("the token is not for audience {AUDIENCE:?}, but for {0:?}; set `audience` of the projected token")]
    Audience(Vec<String>),
    /// The token is a user's.
    #[error("the token is of {0:?}, which is no service account")]
    User(String),
    /// The token is bound to no pod.
    #[error("the token of {0:?} is not bound to a pod; take a projected service account token")]
    Unbound(String),
}

/// Asks the API server.
pub async fn review(client: &Client, token: String) -> Result<Holder, ReviewError> {
    let spec = TokenReviewSpec { token, audiences: Some(vec![AUDIENCE.to_owned()]) };
    let review = TokenReview { spec, ..TokenReview::default() };
    let answer = Api::<TokenReview>::all(client.clone()).create(&PostParams::default(), &review).await;
    holder(answer.map_err(Box::new)?.status.unwrap_or_default())
}

fn holder(status: TokenReviewStatus) -> Result<Holder, ReviewError> {
    if status.authenticated != Some(true) {
        // Such as "token has expired", or "pod not found".
        let why = status.error.filter(|error| !error.is_empty()).map(|error| format!(": {error}"));
        return Err(ReviewError::Refused(why.unwrap_or_default()));
    }
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(ReviewError::Audience(audiences));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    let Some((namespace, service_account)) = account else { return Err(ReviewError::User(name)) };
    let extra = user.extra.unwrap_or_default();
    let fact = |key: &str| match extra.get(key).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Some(value.clone()),
        _ => None,
    };
    let (Some(pod), Some(uid)) = (fact(POD_NAME), fact(POD_UID)) else { return Err(ReviewError::Unbound(name)) };
    Ok(Holder { namespace: namespace.to_owned(), service_account: service_account.to_owned(), pod, uid })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn status() -> TokenReviewStatus {
        let extra = [(POD_NAME, "sluice-eu-0"), (POD_UID, "1-2")];
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![AUDIENCE.into()]),
            error: None,
            user: Some(UserInfo {
                username: Some("system:serviceaccount:shop:sluice-eu".into()),
                extra: Some(extra.map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).into()),
                ..UserInfo::default()
            }),
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut TokenReviewStatus), expect: &str) {
        let mut status = status();
        change(&mut status);
        let error = holder(status).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }

    #[test]
    fn a_pod_of_a_service_account() {
        let expect = Holder {
            namespace: "shop".into(),
            service_account: "sluice-eu".into(),
            pod: "sluice-eu-0".into(),
            uid: "1-2".into(),
        };
        assert_eq!(holder(status()).unwrap(), expect);
    }

    #[test]
    fn whatever_is_missing_is_named() {
        refused(|s| s.authenticated = None, "refuses the token");
        refused(|s| (s.authenticated, s.error) = (Some(false), Some("expired".into())), "the token: expired");
        // An API server that knows nothing of audiences: the token may be for anyone.
        refused(|s| s.audiences = None, "not for audience \"sluice\", but for []");
        refused(|s| s.audiences = Some(vec!["other".into()]), "[\"other\"]");
        refused(|s| s.user.as_mut().unwrap().username = Some("admin".into()), "no service account");
        refused(|s| s.user.as_mut().unwrap().extra = None, "not bound to a pod");
        refused(|s| drop(s.user.as_mut().unwrap().extra.as_mut().unwrap().remove(POD_UID)), "not bound to a pod");
    }
}
