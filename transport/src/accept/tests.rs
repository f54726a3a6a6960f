use std::{future::poll_fn, pin::pin, task::Poll};

use futures::StreamExt as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::*;
use crate::{
    connect::{ConnectError, Server, connect},
    mtls,
};

const PATIENCE: Duration = Duration::from_secs(20);
const NAME: &str = "server.sys.svc";

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate of this authority, with its key.
fn signed(ca: &Ca, usage: ExtendedKeyUsagePurpose) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::new([NAME.to_owned()]).unwrap());
    params.extended_key_usages = vec![usage];
    let certificate = params.signed_by(&key, ca).unwrap().der().clone();
    (certificate, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

/// Lets in whoever has a certificate, for this long; who has none keeps its slot.
struct Anyone {
    tls: Arc<ServerConfig>,
    stay: Duration,
    known: ConnectionSlots<(String, String)>,
}

#[derive(Debug, thiserror::Error)]
#[error("no place")]
struct NoPlace;

impl Admission for Anyone {
    type Caller = bool;
    type Error = NoPlace;

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        Some(Arc::clone(&self.tls))
    }

    fn admit(
        &self,
        _: SocketAddr,
        certificate: Option<&CertificateDer<'static>>,
        slot: Slot<IpAddr>,
    ) -> Result<Admitted<bool>, NoPlace> {
        let (caller, stay) = (certificate.is_some(), self.stay);
        if !caller {
            return Ok(Admitted { caller, stay, place: Box::new(slot) });
        }
        let place = self.known.claim(&("ns".into(), "f".into()), |(namespace, _)| namespace).ok_or(NoPlace)?;
        Ok(Admitted { caller, stay, place: Box::new(place) })
    }
}

struct Bench {
    ca: Ca,
    at: SocketAddr,
    incoming: ReceiverStream<Result<Connection<bool>, Infallible>>,
}

/// A server with two slots for who has shown no certificate, and one for who has.
fn bench(handshake: Duration, stay: Duration) -> Bench {
    let ca = ca();
    let (certificate, key) = signed(&ca, ExtendedKeyUsagePurpose::ServerAuth);
    let tls = Arc::new(mtls::server([ca.der().clone()], certificate, key).unwrap());
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let at = listener.local_addr().unwrap();
    let admission = Anyone { tls, stay, known: ConnectionSlots::new(1) };
    Bench { ca, at, incoming: incoming(listener, admission, Bounds { unauthenticated: 2, handshake }) }
}

impl Bench {
    async fn dial(&self, identity: Option<&Ca>) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
        let card = identity.map(|ca| signed(ca, ExtendedKeyUsagePurpose::ClientAuth));
        let card = card.as_ref().map(|(certificate, key)| (std::slice::from_ref(certificate), key));
        let config = mtls::client([self.ca.der().clone()], card).unwrap();
        let server = Server { host: NAME.into(), port: self.at.port(), name: ServerName::try_from(NAME).unwrap() };
        connect(&server, Some(self.at), config).await.map(|(stream, _)| stream)
    }

    async fn next(&mut self) -> Connection<bool> {
        let Ok(connection) = timeout(PATIENCE, self.incoming.next()).await.expect("in time").expect("it serves");
        connection
    }
}

/// What reading fails with.
async fn read(connection: &mut Connection<bool>) -> io::ErrorKind {
    timeout(PATIENCE, connection.read_u8()).await.expect("in time").unwrap_err().kind()
}

#[tokio::test]
async fn who_has_a_certificate_is_known_by_it() {
    let mut bench = bench(PATIENCE, PATIENCE);
    for identity in [false, true] {
        let mut client = bench.dial(identity.then_some(&bench.ca)).await.unwrap();
        let mut server = bench.next().await;
        assert_eq!(tonic::transport::server::Connected::connect_info(&server), identity);
        client.write_all(b"x").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'x');
    }
    // One of another authority is none: TLS 1.3 says so once the client has finished.
    let mut client = bench.dial(Some(&ca())).await.unwrap();
    assert!(timeout(PATIENCE, client.read_u8()).await.expect("in time").is_err());
    assert!(timeout(Duration::from_millis(100), bench.incoming.next()).await.is_err());
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let mut bench = bench(PATIENCE, Duration::from_millis(50));
    let _client = bench.dial(Some(&bench.ca)).await.unwrap();
    assert_eq!(read(&mut bench.next().await).await, io::ErrorKind::TimedOut);
}

/// However many come, and say nothing.
#[tokio::test]
async fn newcomers_take_the_slots_of_the_silent_and_none_of_who_is_known() {
    let mut bench = bench(PATIENCE, PATIENCE);
    let mut known = (bench.dial(Some(&bench.ca)).await.unwrap(), bench.next().await);
    let mut enrols = (bench.dial(None).await.unwrap(), bench.next().await);
    let mut silent = vec![];
    for _ in 0..8 {
        silent.push(TcpStream::connect(bench.at).await.unwrap());
    }
    // The oldest go, in whatever state they are.
    assert_eq!(read(&mut enrols.1).await, io::ErrorKind::ConnectionAborted);
    for stream in &mut silent[..6] {
        assert_eq!(timeout(PATIENCE, stream.read(&mut [0])).await.expect("in time").unwrap(), 0, "it is closed");
    }
    assert!(timeout(Duration::from_millis(100), silent[7].read(&mut [0])).await.is_err(), "it has its time");
    known.0.write_all(b"x").await.unwrap();
    assert_eq!(known.1.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn a_handshake_has_its_time() {
    let bench = bench(Duration::from_millis(50), PATIENCE);
    let mut silent = TcpStream::connect(bench.at).await.unwrap();
    assert_eq!(timeout(PATIENCE, silent.read(&mut [0])).await.expect("in time").unwrap(), 0, "it is closed");
}

#[tokio::test]
async fn nobody_takes_more_places_than_there_are() {
    let mut bench = bench(PATIENCE, PATIENCE);
    let _first = (bench.dial(Some(&bench.ca)).await.unwrap(), bench.next().await);
    let mut second = bench.dial(Some(&bench.ca)).await.unwrap();
    assert!(timeout(PATIENCE, second.read_u8()).await.expect("in time").is_err());
    let mut incoming = pin!(bench.incoming.next());
    assert!(poll_fn(|cx| Poll::Ready(incoming.as_mut().poll(cx).is_pending())).await);
}
