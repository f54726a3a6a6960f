//! The stream over TLS, against an operator that gives certificates as a test says.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::SystemTime,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
    IsCa, KeyPair,
};
use rustls::{
    RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;

use super::*;

const NAME: &str = "sluice-operator.sys.svc";

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// One operator: its port, its authority, and what it saw.
struct Served {
    address: SocketAddr,
    ca: Arc<Mutex<Arc<Ca>>>,
    /// Streams, each with the name in the client's certificate.
    attached: mpsc::Receiver<Attached>,
    tokens: Arc<Mutex<Vec<String>>>,
    refuse: Arc<AtomicUsize>,
}

struct Service {
    ca: Arc<Mutex<Arc<Ca>>>,
    sender: mpsc::Sender<Attached>,
    tokens: Arc<Mutex<Vec<String>>>,
    refuse: Arc<AtomicUsize>,
    life: Duration,
}

#[tonic::async_trait]
impl control_server::Control for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<OperatorMessage, Status>> + Send>>;

    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let EnrollRequest { token, csr } = request.into_inner();
        self.tokens.lock().unwrap().push(token);
        if self.refuse.load(Ordering::Relaxed) > 0 {
            self.refuse.fetch_sub(1, Ordering::Relaxed);
            return Err(Status::unauthenticated("the token has expired"));
        }
        let csr = CertificateSigningRequestParams::from_der(&(&*csr).into()).unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let ca = Arc::clone(&self.ca.lock().unwrap());
        let certificate = params.signed_by(&csr.public_key, &ca).unwrap();
        let until = SystemTime::now() + self.life;
        Ok(Response::new(EnrollResponse {
            chain: vec![certificate.der().to_vec().into()],
            authorities: vec![ca.der().to_vec().into()],
            not_after_unix_ms: until.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64,
        }))
    }

    async fn attach(&self, request: Request<Streaming<ProxyMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let (out, messages) = mpsc::channel(16);
        self.sender.send(Attached { inbound: request.into_inner(), out }).await.unwrap();
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

/// As an operator does it: no certificate, no Attach.
fn server_config(ca: &Ca, name: &str) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}

async fn serve(issuer: Ca, name: &str, life: Duration) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, attached) = mpsc::channel(16);
    let ca = Arc::new(Mutex::new(Arc::new(issuer)));
    let (tokens, refuse) = <(Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>)>::default();
    let service =
        Service { ca: Arc::clone(&ca), sender, tokens: Arc::clone(&tokens), refuse: Arc::clone(&refuse), life };
    let (connections, incoming) = mpsc::channel(16);
    tokio::spawn({
        let (ca, name) = (Arc::clone(&ca), name.to_owned());
        async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let config = server_config(&Arc::clone(&ca.lock().unwrap()), &name);
                if let Ok(tls) = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await {
                    connections.send(Ok::<_, io::Error>(Plain(tls))).await.unwrap();
                }
            }
        }
    });
    let server = tonic::transport::Server::builder().add_service(control_server::ControlServer::new(service));
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
    Served { address, ca, attached, tokens, refuse }
}

/// tonic wants to know of its connections what nobody here asks.
struct Plain(tokio_rustls::server::TlsStream<tokio::net::TcpStream>);

impl tonic::transport::server::Connected for Plain {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl tokio::io::AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl tokio::io::AsyncWrite for Plain {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// What is mounted into a pod.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(ca: &Ca) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(files.token(), "one\n").unwrap();
        files.trust(ca);
        files
    }

    fn token(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    fn trust(&self, ca: &Ca) {
        std::fs::write(self.ca(), ca.pem()).unwrap();
    }

    /// A `Cluster` has a name that resolves; here it is what the certificate is for, and the address is another's.
    fn operator(&self, host: &str, port: u16) -> Operator {
        let address = format!("https://{host}:{port}").parse().unwrap();
        Operator::new(address, Some(self.token()), Some(self.ca())).unwrap()
    }
}

impl Served {
    async fn stream(&mut self) -> Attached {
        tokio::time::timeout(Duration::from_secs(20), self.attached.recv()).await.unwrap().unwrap()
    }

    async fn cannot_dial(&self, operator: &Operator, expect: &str) {
        let error = operator.dial(Some(self.address)).await.unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_proxy_enrols_and_follows_who_leads() {
    let (issuer, standby_issuer) = (ca("a"), ca("a"));
    let files = Files::new(&issuer);
    std::fs::write(files.ca(), issuer.pem() + &standby_issuer.pem()).unwrap();
    // The Service leads to the standby, which is `localhost` here; the leader is known by that name too.
    let mut leader = serve(issuer, "localhost", HOUR).await;
    let mut standby = serve(standby_issuer, "localhost", HOUR).await;
    let operator = files.operator("localhost", standby.address.port());
    // Both are of one system: a certificate of the standby is one of the leader's.
    *leader.ca.lock().unwrap() = Arc::clone(&standby.ca.lock().unwrap());
    let (shared, _) = start_with(operator, files.folder.path(), &[], Patience::Started).await;
    let mut stream = standby.stream().await;
    assert_eq!(stream.hello().await.proxy, "p");
    assert_eq!(*standby.tokens.lock().unwrap(), ["one"]);
    let not_leader = |holder: String| operator_message::Message::NotLeader(proto::NotLeader { holder });
    let asked = Instant::now();
    stream.send(not_leader(leader.address.to_string())).await;
    let mut stream = leader.stream().await;
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    stream.hello().await;
    assert_eq!(*leader.tokens.lock().unwrap(), [""; 0], "the certificate is good with every operator");
    stream.push(3, &Snapshot::default(), &listeners(&[80])).await;
    assert!(stream.ack().await.ready);
    assert_eq!(shared.status.borrow().epoch, 3);
    // The stream ends: back to the Service.
    drop((stream, leader));
    assert_eq!(standby.stream().await.hello().await.epoch, 3);
    // One that is said to lead, and is not there.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut stream = standby.stream_after(not_leader(gone.to_string())).await;
    stream.hello().await;
    assert_eq!(standby.tokens.lock().unwrap().len(), 1);
}

impl Served {
    /// Takes the proxy's next stream after all that come first were answered so.
    async fn stream_after(&mut self, message: operator_message::Message) -> Attached {
        let stream = self.stream().await;
        stream.send(message).await;
        self.stream().await
    }
}

#[tokio::test]
async fn a_stream_outlives_its_certificate_by_another() {
    let issuer = ca("a");
    let files = Files::new(&issuer);
    let mut served = serve(issuer, NAME, Duration::from_secs(5)).await;
    let operator = at(&files, &served);
    let (shared, _) = start_with(operator, files.folder.path(), &[], Patience::Started).await;
    let mut first = served.stream().await;
    first.hello().await;
    first.push(1, &Snapshot::default(), &listeners(&[80])).await;
    first.ack().await;
    std::fs::write(files.token(), "two").unwrap();
    let mut second = served.stream().await;
    assert_eq!(*served.tokens.lock().unwrap(), ["one", "two"]);
    let hello = second.hello().await;
    assert_eq!((hello.held.len(), hello.ready, hello.epoch), (1, true, 1));
    // The first is open until the second is known to work.
    let still = tokio::time::timeout(Duration::from_millis(300), first.inbound.message()).await;
    assert!(still.is_err(), "{still:?}");
    second.push(1, &listeners(&[80]), &listeners(&[80])).await;
    assert!(second.ack().await.ready);
    let ended = tokio::time::timeout(Duration::from_secs(5), first.inbound.message()).await.unwrap();
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    assert!(shared.status.borrow().ready);
}

/// Dials `served` under the name of the Service, wherever that leads.
fn at(files: &Files, served: &Served) -> Operator {
    let mut operator = files.operator("127.0.0.1", served.address.port());
    let Operator::Cluster(cluster) = &mut operator else { panic!() };
    cluster.server.name = NAME.try_into().unwrap();
    operator
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let issuer = ca("a");
    let files = Files::new(&issuer);
    let served = serve(issuer, NAME, HOUR).await;
    let operator = files.operator("other.sys.svc", 9443);
    served.cannot_dial(&operator, "as other.sys.svc: invalid peer certificate").await;
    let operator = files.operator(NAME, 9443);
    files.trust(&ca("b"));
    served.cannot_dial(&operator, "as sluice-operator.sys.svc: invalid peer certificate").await;
    std::fs::write(files.ca(), "").unwrap();
    served.cannot_dial(&operator, "ca.crt: no certificate in it; it is to hold").await;
    std::fs::remove_file(files.ca()).unwrap();
    served.cannot_dial(&operator, "ca.crt: No such file").await;
    // What is put right is seen by the next dial.
    files.trust(&Arc::clone(&served.ca.lock().unwrap()));
    served.refuse.store(1, Ordering::Relaxed);
    served.cannot_dial(&operator, "gives no certificate: ").await;
    std::fs::remove_file(files.token()).unwrap();
    served.cannot_dial(&operator, "token: No such file").await;
    std::fs::write(files.token(), "one").unwrap();
    operator.dial(Some(served.address)).await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = operator.dial(Some(gone)).await.unwrap_err().to_string();
    assert!(error.contains(&format!("no connection to {gone}")), "{error}");
    let error = files.operator("nowhere.invalid", 9443).dial(None).await.unwrap_err().to_string();
    assert!(error.contains("nowhere.invalid does not resolve"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_is_no_longer_taken_is_replaced() {
    let issuer = ca("a");
    let files = Files::new(&issuer);
    let mut served = serve(issuer, NAME, HOUR).await;
    let (_shared, _) = start_with(at(&files, &served), files.folder.path(), &[], Patience::Started).await;
    let mut stream = served.stream().await;
    stream.hello().await;
    // Everything that the operator knew is lost.
    let new = ca("b");
    files.trust(&new);
    *served.ca.lock().unwrap() = Arc::new(new);
    drop(stream);
    served.stream().await.hello().await;
    assert_eq!(served.tokens.lock().unwrap().len(), 2);
}
