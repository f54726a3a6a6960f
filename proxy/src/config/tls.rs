//! TLS of one port: certificates by server name, one session-ticket key for as long as the process lives.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use snapshot::{
    check::{Unfit, reason},
    proto,
};

use crate::router::HostMap;

/// A certificate that parsed, its key that fits, and the names it is for.
#[derive(Debug)]
pub(crate) struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl Certificate {
    pub(crate) fn parse(certificate: &proto::Certificate) -> Result<Self, Unfit> {
        let unfit = |field, message: String| Unfit::new(field, reason::INVALID_CERTIFICATE, message);
        let chain = CertificateDer::pem_slice_iter(&certificate.chain_pem).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|e| unfit("tls.crt", format!("is no PEM: {e}")))?;
        let leaf = chain.first().ok_or_else(|| unfit("tls.crt", "holds no certificate".to_owned()))?;
        let parsed = webpki::EndEntityCert::try_from(leaf);
        let parsed = parsed.map_err(|e| unfit("tls.crt", format!("the first certificate is not readable: {e}")))?;
        let names = parsed.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let key = PrivateKeyDer::from_pem_slice(&certificate.private_key_pem);
        // The error of the PEM reader can quote its input: a private key.
        let key = key.map_err(|_| unfit("tls.key", "holds no private key in PEM".to_owned()))?;
        let key = CertifiedKey::from_der(chain, key, &provider());
        let key = key.map_err(|e| unfit("tls.key", format!("does not fit the certificate: {e}")))?;
        Ok(Self { key: Arc::new(key), names })
    }
}

/// The provider of everything cryptographic.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// TLS of a port whose listeners have these hostnames and certificates.
pub(crate) fn server_config<'a>(
    listeners: impl IntoIterator<Item = (&'a str, Vec<&'a Certificate>)>,
    tickets: Option<&Arc<dyn ProducesTickets>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut resolver = Resolver::default();
    for (hostname, certificates) in listeners {
        let names = resolver.listeners.entry(hostname);
        for certificate in certificates {
            // No server name, or one that no certificate fits, gets the first.
            names.first.get_or_insert_with(|| Arc::clone(&certificate.key));
            resolver.first.get_or_insert_with(|| Arc::clone(&certificate.key));
            for name in &certificate.names {
                names.by_name.entry(name).get_or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
    }
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if let Some(tickets) = tickets {
        config.ticketer = Arc::clone(tickets);
    }
    Ok(Arc::new(config))
}

/// Certificates by listener, then by server name.
#[derive(Default)]
struct Resolver {
    listeners: HostMap<Names>,
    /// For clients that name no server.
    first: Option<Arc<CertifiedKey>>,
}

/// Certificates of one listener.
#[derive(Default)]
struct Names {
    by_name: HostMap<Option<Arc<CertifiedKey>>>,
    first: Option<Arc<CertifiedKey>>,
}

impl Resolver {
    fn certificate(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = name else {
            return self.first.clone();
        };
        // A name of no listener gets none: the handshake fails with `unrecognized_name`.
        let names = self.listeners.get(name)?;
        names.by_name.certificate(name).or_else(|| names.first.clone())
    }
}

impl HostMap<Option<Arc<CertifiedKey>>> {
    /// Unlike a route's, a certificate's wildcard stands for one label (RFC 9525).
    fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let one_label = name.find('.').map(|dot| &name[dot..]);
        self.exact(name).or_else(|| self.wildcard(one_label?)).cloned().flatten()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in lower case and without a trailing dot.
        self.certificate(hello.server_name())
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> Certificate {
        let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Certificate::parse(&proto::Certificate {
            chain_pem: made.cert.pem().into(),
            private_key_pem: made.signing_key.serialize_pem().into(),
        })
        .unwrap()
    }

    #[test]
    fn the_certificate_that_fits_the_name() {
        let (a, b, c) = (certificate(&["a.example"]), certificate(&["*.b.example", "B.example"]), certificate(&["c"]));
        let mut resolver = Resolver::default();
        for (hostname, list) in [("*.example", vec![&a, &b]), ("c", vec![&c])] {
            let names = resolver.listeners.entry(hostname);
            names.first = Some(Arc::clone(&list[0].key));
            for certificate in list {
                for name in &certificate.names {
                    *names.by_name.entry(name) = Some(Arc::clone(&certificate.key));
                }
            }
        }
        resolver.first = Some(Arc::clone(&a.key));
        let check = |name: Option<&str>, expect: Option<&Certificate>| {
            let got = resolver.certificate(name);
            assert_eq!(got.as_ref().map(Arc::as_ptr), expect.map(|c| Arc::as_ptr(&c.key)), "{name:?}");
        };
        check(None, Some(&a));
        check(Some("a.example"), Some(&a));
        check(Some("b.example"), Some(&b));
        check(Some("x.b.example"), Some(&b));
        check(Some("x.y.b.example"), Some(&a));
        check(Some("other.example"), Some(&a));
        check(Some("c"), Some(&c));
        check(Some("stranger"), None);
    }

    #[test]
    fn what_does_not_fit_names_the_field() {
        let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let check = |chain: String, key: String, field: &str| {
            let pem = proto::Certificate { chain_pem: chain.into(), private_key_pem: key.into() };
            assert_eq!(Certificate::parse(&pem).unwrap_err().field, field);
        };
        check("x".into(), made.signing_key.serialize_pem(), "tls.crt");
        check(made.cert.pem(), "x".into(), "tls.key");
        check(made.cert.pem(), other.signing_key.serialize_pem(), "tls.key");
    }
}
