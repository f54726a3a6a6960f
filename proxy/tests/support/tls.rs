//! A proxy with TLS, and clients that believe it.

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use proxy::memory::Limit;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use snapshot::{
    Key, Kind, Snapshot,
    proto::{self, resource},
};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs};

use super::{Proxy, content, entry};

/// A client's connection.
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

pub struct Tls {
    pub proxy: Proxy,
    config: Arc<ClientConfig>,
}

/// A certificate for these hosts, and what clients need to believe it.
pub fn certificate(hosts: Vec<String>) -> (proto::Certificate, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(hosts).unwrap();
    let (chain_pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(chain_pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (proto::Certificate { chain_pem: chain_pem.into(), private_key_pem: key.into() }, config.into())
}

/// These listeners with that certificate: their hostnames, and the hosts that the route is for.
pub fn secured(
    port: u16,
    upstream: SocketAddr,
    limits: proto::Limits,
    listeners: &[(&str, &[&str])],
    certificate: &proto::Certificate,
) -> Snapshot {
    let mut content = content(port, upstream, limits, |_| {});
    content.remove(&Key::listener("ns", "f", &format!("http-{port}")));
    let kind = resource::Kind::Certificate(certificate.clone());
    content.insert(Key::new(Kind::Certificate, "ns", "c"), entry(kind));
    let key = Key::new(Kind::Route, "ns", "r");
    let route = content.entry(&key).unwrap().decode().unwrap();
    let Some(resource::Kind::Route(mut route)) = route.kind else { panic!("a route") };
    route.attachments.clear();
    for (hostname, hosts) in listeners {
        let name = hostname.replace('*', "any");
        let listener = proto::Listener {
            name: name.clone(),
            port: port.into(),
            tls: true,
            hostname: (*hostname).into(),
            certificates: vec!["Certificate/ns/c".into()],
            ..Default::default()
        };
        content.insert(Key::listener("ns", "f", &name), entry(resource::Kind::Listener(listener)));
        let hostnames = hosts.iter().map(|host| (*host).to_owned()).collect();
        route.attachments.push(proto::Attachment { listener: name, hostnames });
    }
    content.insert(key, entry(resource::Kind::Route(route)));
    content
}

/// A client's end of TLS on a socket that is connected.
pub fn client(config: &Arc<ClientConfig>, name: &str, stream: TcpStream) -> Stream {
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

impl Tls {
    /// With these listeners: their hostnames, and the hosts that the route is for.
    pub fn start(upstream: SocketAddr, limits: proto::Limits, listeners: &[(&str, &[&str])]) -> Self {
        let hosts = listeners.iter().flat_map(|(_, hosts)| hosts.iter().map(|host| (*host).to_owned()));
        let (certificate, config) = certificate(hosts.collect());
        let content = |port| secured(port, upstream, limits, listeners, &certificate);
        Self { proxy: Proxy::serving(Limit::find(None), upstream, content), config }
    }

    /// A connection to a host by that name.
    pub fn connect(&self, name: &str) -> Stream {
        self.connect_on(name, TcpStream::connect(self.proxy.address).unwrap())
    }

    /// The same on a socket that is connected.
    pub fn connect_on(&self, name: &str, stream: TcpStream) -> Stream {
        client(&self.config, name, stream)
    }
}
