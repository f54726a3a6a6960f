//! Where the operator listens, and how it is dialled: over a Unix socket on one machine, over TLS in a cluster.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tonic::transport::{Channel, Endpoint};

use super::{error::DialError, identity::Cluster};

/// The value of `--control`.
#[derive(Clone, Debug)]
pub enum Address {
    /// A Unix socket.
    Unix(Box<Endpoint>),
    /// A Service, by name and port.
    Tls(String, u16),
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("has no path".into());
            }
            let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|e| e.to_string())?;
            return Ok(Self::Unix(Box::new(endpoint.connect_timeout(Duration::from_secs(2)))));
        }
        if text.starts_with("http://") {
            return Err("the control channel is never plaintext; write https://HOST:PORT".into());
        }
        let uri = text.strip_prefix("https://").and_then(|_| text.parse::<http::Uri>().ok());
        let uri = uri.ok_or("is neither unix:PATH nor https://HOST:PORT")?;
        match (uri.host(), uri.port_u16()) {
            (Some(host), Some(port)) if uri.path() == "/" && uri.query().is_none() => Ok(Self::Tls(host.into(), port)),
            _ => Err("is neither unix:PATH nor https://HOST:PORT".into()),
        }
    }
}

/// The operator, as a proxy dials it.
#[derive(Debug)]
pub enum Operator {
    /// On this machine.
    Unix(Box<Endpoint>),
    /// In a cluster.
    Cluster(Cluster),
}

impl Operator {
    /// Where `address` is TLS, a proxy proves itself by a token at first, and trusts operators by the authorities in a
    /// file.
    pub fn new(address: Address, token: Option<PathBuf>, ca: Option<PathBuf>) -> Result<Self, String> {
        match (address, token, ca) {
            (Address::Unix(endpoint), None, None) => Ok(Self::Unix(endpoint)),
            (Address::Unix(_), ..) => Err("--token-file and --ca-file belong to --control https://HOST:PORT".into()),
            (Address::Tls(host, port), Some(token), Some(ca)) => {
                Cluster::new(&host, port, token, ca).map(Self::Cluster)
            }
            (Address::Tls(..), None, _) => Err("--control https://... needs --token-file".into()),
            (Address::Tls(..), _, None) => Err("--control https://... needs --ca-file".into()),
        }
    }

    /// Dials it; a certain one of several where `at` says so.
    pub(super) async fn dial(&self, at: Option<SocketAddr>) -> Result<Channel, DialError> {
        match self {
            Self::Unix(endpoint) => Ok(endpoint.connect().await?),
            Self::Cluster(cluster) => Box::pin(cluster.dial(at)).await,
        }
    }

    /// Comes back when there is a new certificate, for which the operator is to be dialled anew.
    pub(super) async fn renewed(&self, at: Option<SocketAddr>) {
        match self {
            Self::Unix(_) => std::future::pending().await,
            Self::Cluster(cluster) => Box::pin(cluster.renewed(at)).await,
        }
    }

    /// The operator does not take the certificate: the next dial is with a new one.
    pub(super) fn refused(&self) {
        if let Self::Cluster(cluster) = self {
            cluster.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<&str, &str>) {
        let got = text.parse::<Address>().map(|address| match address {
            Address::Unix(endpoint) => endpoint.uri().to_string(),
            Address::Tls(host, port) => format!("{host} {port}"),
        });
        match expect {
            Ok(expect) => assert_eq!(got.as_deref(), Ok(expect)),
            Err(part) => assert!(got.as_ref().is_err_and(|e| e.contains(part)), "{got:?}"),
        }
    }

    #[test]
    fn addresses() {
        check("https://sluice-operator.sluice-system.svc:9443", Ok("sluice-operator.sluice-system.svc 9443"));
        check("https://sluice-operator.sluice-system.svc:9443/", Ok("sluice-operator.sluice-system.svc 9443"));
        check("https://[::1]:9443", Ok("[::1] 9443"));
        check("https://sluice-operator", Err("https://HOST:PORT"));
        check("https://sluice-operator:9443/x", Err("https://HOST:PORT"));
        check("http://sluice-operator:9443", Err("never plaintext"));
        check("sluice-operator:9443", Err("https://HOST:PORT"));
        check("unix:", Err("no path"));
        assert!(matches!("unix:/run/c.sock".parse(), Ok(Address::Unix(_))));
    }

    #[track_caller]
    fn needs(address: &str, token: Option<&str>, ca: Option<&str>, expect: &str) {
        let operator = Operator::new(address.parse().unwrap(), token.map(Into::into), ca.map(Into::into));
        let error = operator.err().unwrap_or_default();
        assert!(error.contains(expect) && error.is_empty() == expect.is_empty(), "{error}");
    }

    #[test]
    fn what_a_cluster_needs() {
        needs("https://a:1", Some("t"), Some("c"), "");
        needs("https://a:1", None, Some("c"), "needs --token-file");
        needs("https://a:1", Some("t"), None, "needs --ca-file");
        needs("unix:/c", None, None, "");
        needs("unix:/c", Some("t"), None, "belong to");
    }
}
