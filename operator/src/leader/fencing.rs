//! A client of the API server whose writes end with the lease: whoever holds it, nothing is written once another operator
//! may lead. So no part that writes can forget to ask.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use hyper::{Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use tower::{BoxError, Layer, Service};

pub use crate::kube::not_leading::{NotLeading, is_not_leading};
use crate::{admin::metrics, leader::election::LeaseValidity};

/// A client that reads at any time and writes only during the term.
pub fn client(config: kube::Config, validity: LeaseValidity) -> Result<kube::Client, kube::Error> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&Fence { validity }).build())
}

#[derive(Clone, Debug)]
struct Fence {
    validity: LeaseValidity,
}

impl<S> Layer<S> for Fence {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced { inner, validity: self.validity.clone() }
    }
}

#[derive(Clone, Debug)]
struct Fenced<S> {
    inner: S,
    validity: LeaseValidity,
}

impl<S, B> Service<Request<Body>> for Fenced<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return Box::pin(self.inner.call(request));
        }
        if !self.validity.holds() {
            return Box::pin(async { Err(NotLeading.into()) });
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = match &answer {
                Ok(good) if good.status().is_success() => return answer,
                Ok(answer) => answer.status().as_str().to_owned(),
                Err(_) => "none".to_owned(),
            };
            metrics::get().api_write_errors.with_label_values(&[&code]).inc();
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use hyper::{body::Incoming, server::conn::http1};
    use hyper_util::rt::TokioIo;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::PostParams;
    use tokio::{net::TcpListener, sync::mpsc};
    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::source::kube::patient;

    #[tokio::test]
    async fn writes_end_with_the_term() {
        let validity = LeaseValidity::default();
        let inner = service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(())) });
        let send = async |method: Method| {
            let request = Request::builder().method(method).body(Body::empty()).unwrap();
            Fence { validity: validity.clone() }.layer(inner).oneshot(request).await
        };
        assert!(send(Method::GET).await.is_ok());
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            validity.set(None);
            assert!(send(method.clone()).await.unwrap_err().is::<NotLeading>());
            validity.set(Some(Instant::now() + Duration::from_secs(60)));
            assert!(send(method.clone()).await.is_ok());
            validity.set(Some(Instant::now()));
            assert!(send(method).await.unwrap_err().is::<NotLeading>(), "an old term");
        }
    }

    /// What is beneath the fence does not ask it: so nothing there may send again.
    #[tokio::test]
    async fn a_write_that_is_refused_for_now_is_sent_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let (told, mut requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let told = told.clone();
                let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
                    told.send(request.method().clone()).unwrap();
                    let answer = Response::builder().status(503).body(String::new());
                    async move { answer }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), answer));
            }
        });
        let validity = LeaseValidity::default();
        validity.set(Some(Instant::now() + Duration::from_secs(60)));
        let client = client(patient(kube::Config::new(at.parse().unwrap())), validity).unwrap();
        let api: kube::Api<ConfigMap> = kube::Api::namespaced(client, "ns");
        let write = async { api.create(&PostParams::default(), &ConfigMap::default()).await };
        let error = tokio::time::timeout(Duration::from_secs(20), write).await.expect("an answer").unwrap_err();
        assert!(matches!(error, kube::Error::Api(status) if status.code == 503));
        assert_eq!(requests.recv().await, Some(Method::POST));
        assert!(requests.try_recv().is_err(), "nor in secret");
    }
}
