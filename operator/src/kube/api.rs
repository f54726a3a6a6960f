//! A request to the API server under a deadline, and the class of its error.

use std::time::Duration;

use crate::kube::not_leading::is_not_leading;

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The API server was silent until the deadline.
    #[error("no answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// The API server refused the request, or was not reached.
    #[error(transparent)]
    Failed(#[from] kube::Error),
}

/// The class of an error, whatever the request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The request was not sent: this operator does not hold the lease, and its process ends in a moment.
    NotLeading,
    /// A right is missing, or an admission policy is in the way: 403.
    Forbidden,
    /// The object, or its kind, is not there: 404.
    NotFound,
    /// The object was changed, made or deleted by somebody else meanwhile: 409.
    Conflict,
    /// The content is refused: 400, 422.
    Invalid,
    /// The API server fails, or the way to it: 429, 5xx, or no connection. It is not the request's fault.
    Unavailable,
    /// The API server is silent.
    NoAnswer,
    /// Anything else.
    Other,
}

/// Sends a request, and gives it up at the deadline.
pub(crate) async fn request<T>(
    deadline: Duration,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, RequestError> {
    match tokio::time::timeout(deadline, request).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(RequestError::NoAnswer(deadline)),
    }
}

impl RequestError {
    /// The class of this error.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::NoAnswer(_) => Class::NoAnswer,
            Self::Failed(error) => class(error),
        }
    }

    /// The API server's own words where it has any, and the error's where it has not.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Failed(kube::Error::Api(status)) => status.message.clone(),
            error => error.to_string(),
        }
    }

    /// The HTTP status of the API server's answer; `None`: there is no answer.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Failed(kube::Error::Api(status)) => Some(status.code),
            Self::Failed(_) | Self::NoAnswer(_) => None,
        }
    }
}

/// The class of an error of kube's client.
pub(crate) fn class(error: &kube::Error) -> Class {
    match error {
        kube::Error::Api(status) => match status.code {
            403 => Class::Forbidden,
            404 => Class::NotFound,
            409 => Class::Conflict,
            400 | 422 => Class::Invalid,
            429 | 500.. => Class::Unavailable,
            _ => Class::Other,
        },
        error if is_not_leading(error) => Class::NotLeading,
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => Class::Unavailable,
        _ => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;

    use super::*;
    use crate::{
        kube::testing::{Answer, api_server},
        leader::fencing::NotLeading,
    };

    const DEADLINE: Duration = Duration::from_secs(5);

    /// The error of a request that is answered by this status; `None`: not at all.
    async fn error(code: Option<u16>) -> RequestError {
        let (client, _asked) = api_server(move |_| code.map_or(Answer::Silence, Answer::status));
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        request(DEADLINE, api.get("a")).await.expect_err("no answer is good")
    }

    #[tokio::test]
    async fn errors_have_a_class() {
        let cases = [
            (403, Class::Forbidden),
            (404, Class::NotFound),
            (409, Class::Conflict),
            (400, Class::Invalid),
            (422, Class::Invalid),
            (429, Class::Unavailable),
            (500, Class::Unavailable),
            (503, Class::Unavailable),
            (401, Class::Other),
            (410, Class::Other),
        ];
        for (code, expect) in cases {
            let error = error(Some(code)).await;
            assert_eq!((error.class(), error.code()), (expect, Some(code)));
            assert_eq!(error.message(), "m");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_api_server_is_given_up_at_the_deadline() {
        let began = tokio::time::Instant::now();
        let error = error(None).await;
        assert_eq!(began.elapsed(), DEADLINE);
        assert_eq!((error.class(), error.code()), (Class::NoAnswer, None));
        assert_eq!(error.to_string(), "no answer within 5 s");
    }

    #[test]
    fn a_write_without_the_lease_is_no_outage() {
        assert_eq!(class(&kube::Error::Service(NotLeading.into())), Class::NotLeading);
        assert_eq!(class(&kube::Error::Service("connection refused".into())), Class::Unavailable);
        assert_eq!(class(&kube::Error::LinesCodecMaxLineLengthExceeded), Class::Other);
    }
}
