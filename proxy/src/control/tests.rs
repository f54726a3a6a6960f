//! The stream against an operator that does what a test says.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    pin::Pin,
    sync::Mutex,
    time::Duration,
};

use snapshot::{
    Entry, Key, Snapshot,
    proto::{
        self, Ack, EnrollRequest, EnrollResponse, Hello, OperatorMessage, ProxyMessage, Resource, control_server,
        operator_message, proxy_message, resource,
    },
    wire,
};
use tokio::sync::mpsc;
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::{shared::Drain, telemetry::Telemetry};

mod cluster;

type Out = mpsc::Sender<Result<OperatorMessage, Status>>;

/// One stream as the operator has it.
struct Attached {
    inbound: Streaming<ProxyMessage>,
    out: Out,
}

impl Attached {
    async fn message(&mut self) -> proxy_message::Message {
        let message = tokio::time::timeout(Duration::from_secs(10), self.inbound.message()).await;
        message.unwrap().unwrap().unwrap().message.unwrap()
    }

    async fn hello(&mut self) -> Hello {
        match self.message().await {
            proxy_message::Message::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    async fn ack(&mut self) -> Ack {
        loop {
            match self.message().await {
                proxy_message::Message::Ack(ack) => return ack,
                proxy_message::Message::Load(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn send(&self, message: operator_message::Message) {
        self.out.send(Ok(OperatorMessage { message: Some(message) })).await.unwrap();
    }

    async fn push(&self, epoch: u64, base: &Snapshot, target: &Snapshot) {
        let name = (!base.is_empty()).then(|| base.revision());
        for message in wire::push(epoch, name, target.revision(), &target.diff(&base.held())) {
            self.out.send(Ok(message)).await.unwrap();
        }
    }
}

/// Hands every stream to the test.
struct FakeOperator(mpsc::Sender<Attached>);

#[tonic::async_trait]
impl control_server::Control for FakeOperator {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<OperatorMessage, Status>> + Send>>;

    async fn enroll(&self, _: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        Err(Status::unimplemented("not over a Unix socket"))
    }

    async fn attach(&self, request: Request<Streaming<ProxyMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let (out, messages) = mpsc::channel(16);
        self.0.send(Attached { inbound: request.into_inner(), out }).await.unwrap();
        Ok(Response::new(Box::pin(ReceiverStream::new(messages).map(|m| m))))
    }
}

fn operate(socket: &Path) -> mpsc::Receiver<Attached> {
    let (sender, attached) = mpsc::channel(16);
    let incoming = UnixListenerStream::new(tokio::net::UnixListener::bind(socket).unwrap());
    let service = control_server::ControlServer::new(FakeOperator(sender));
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    attached
}

/// Ports that open but for some, and remember.
#[derive(Default)]
struct FakePorts {
    taken: BTreeSet<u16>,
    open: Mutex<BTreeSet<u16>>,
}

impl Ports for FakePorts {
    async fn open(&self, ports: &BTreeSet<u16>) -> BTreeMap<u16, io::Error> {
        self.open.lock().unwrap().extend(ports.difference(&self.taken));
        let failed = ports.intersection(&self.taken);
        failed.map(|port| (*port, io::Error::from(io::ErrorKind::AddrInUse))).collect()
    }

    fn serve(&self, ports: &BTreeSet<u16>) {
        self.open.lock().unwrap().retain(|port| ports.contains(port));
    }
}

fn listeners(ports: &[u32]) -> Snapshot {
    let entry = |port: &u32| {
        let listener = proto::Listener { name: format!("l{port}"), port: *port, ..proto::Listener::default() };
        let entry = Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::Listener(listener)) });
        (Key::listener("ns", "f", &format!("l{port}")), entry)
    };
    ports.iter().map(entry).collect()
}

/// A proxy that dials `socket`.
async fn start(socket: &Path, state: &Path, taken: &[u16]) -> (Arc<Shared>, Arc<FakePorts>) {
    let address = format!("unix:{}", socket.display()).parse().unwrap();
    start_with(Operator::new(address, None, None).unwrap(), state, taken, Patience::Started).await
}

async fn start_with(
    operator: Operator,
    state: &Path,
    taken: &[u16],
    patience: Patience,
) -> (Arc<Shared>, Arc<FakePorts>) {
    let shared = Shared::new(Telemetry::default());
    let ports = Arc::new(FakePorts { taken: taken.iter().copied().collect(), ..FakePorts::default() });
    let identity = Identity { name: "p".into(), fleet: "ns/f".into(), admin: ([127, 0, 0, 1], 9).into() };
    let applier = Applier::start(Arc::clone(&shared), Arc::clone(&ports), Some(state.to_owned()));
    tokio::spawn(run(Arc::clone(&shared), applier, identity, operator, patience));
    (shared, ports)
}

#[tokio::test]
async fn pushes_are_applied_acknowledged_and_survive_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, state) = (folder.path().join("control.sock"), folder.path());
    let (shared, ports) = start(&socket, state, &[82]).await;
    assert!(!shared.status.borrow().ready);
    // The operator comes later than the proxy.
    let mut operator = operate(&socket);
    let mut stream = operator.recv().await.unwrap();
    let hello = stream.hello().await;
    assert_eq!((hello.proxy.as_str(), hello.fleet.as_str(), hello.epoch), ("p", "ns/f", 0));
    assert_eq!((hello.admin_address.as_str(), hello.ready, hello.revision.len()), ("127.0.0.1:9", false, 0));

    let first = listeners(&[80, 81]);
    stream.push(7, &Snapshot::default(), &first).await;
    let ack = stream.ack().await;
    let expect = Ack { epoch: 7, revision: first.revision().as_bytes().to_vec().into(), nacks: vec![], ready: true };
    assert_eq!(ack, expect);
    assert_eq!(*ports.open.lock().unwrap(), BTreeSet::from([80, 81]));

    // A port that does not open, and one that is gone.
    let second = listeners(&[81, 82]);
    stream.push(7, &first, &second).await;
    let ack = stream.ack().await;
    let nacks: Vec<_> = ack.nacks.iter().map(|n| (n.key.as_str(), n.reason.as_str())).collect();
    assert_eq!(nacks, [("Listener/ns/f/l82", "PortUnavailable")]);
    assert_eq!(*ports.open.lock().unwrap(), BTreeSet::from([81]));

    // The stream breaks; the next Hello says what is there.
    drop(stream);
    let mut stream = operator.recv().await.unwrap();
    let hello = stream.hello().await;
    assert_eq!((hello.epoch, hello.ready, hello.nacks.len()), (7, true, 1));
    assert_eq!(hello.revision, listeners(&[81]).revision().as_bytes()[..]);
    assert_eq!(hello.held.iter().map(|h| h.key.as_str()).collect::<Vec<_>>(), ["Listener/ns/f/l81"]);

    // A former operator is not obeyed: the stream ends, what runs stays.
    stream.push(6, &listeners(&[81]), &first).await;
    let mut stream = operator.recv().await.unwrap();
    assert_eq!(stream.hello().await.epoch, 7);
    assert_eq!(*ports.open.lock().unwrap(), BTreeSet::from([81]));

    // Another process of the same slot serves without operator, once it has looked for one.
    let path = folder.path().join(crate::config::last_good::FILE);
    let mut tries = 0;
    while !path.exists() {
        tries += 1;
        assert!(tries < 100, "no last-good file");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (shared, ports) = start(&folder.path().join("nobody.sock"), state, &[]).await;
    let mut status = shared.status.subscribe();
    tokio::time::timeout(Duration::from_secs(30), status.wait_for(|s| s.ready)).await.unwrap().unwrap();
    assert_eq!(shared.status.borrow().running, listeners(&[81]).revision());
    assert_eq!(*ports.open.lock().unwrap(), BTreeSet::from([81]));
}

#[tokio::test]
async fn one_that_crashed_asks_its_operator_and_serves_at_once_when_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, state) = (folder.path().join("control.sock"), folder.path());
    crate::config::last_good::save(state, 3, &listeners(&[80])).unwrap();
    let again = || Operator::new(format!("unix:{}", socket.display()).parse().unwrap(), None, None).unwrap();
    let began = Instant::now();
    let (shared, ports) = start_with(again(), state, &[], Patience::Restarted).await;
    let mut status = shared.status.subscribe();
    tokio::time::timeout(Duration::from_secs(30), status.wait_for(|s| s.ready)).await.unwrap().unwrap();
    assert!(began.elapsed() < FALLBACK_AFTER, "{:?}", began.elapsed());
    assert_eq!(*ports.open.lock().unwrap(), BTreeSet::from([80]));

    // What it ran last may be what it crashed of: the operator knows.
    let mut operator = operate(&socket);
    let mut first = operator.recv().await.unwrap();
    assert_eq!(first.hello().await.revision, listeners(&[80]).revision().as_bytes()[..]);
    let (shared, ports) = start_with(again(), state, &[], Patience::Restarted).await;
    let mut stream = operator.recv().await.unwrap();
    assert_eq!((stream.hello().await.revision.len(), shared.status.borrow().ready), (0, false));
    stream.push(4, &Snapshot::default(), &listeners(&[81])).await;
    assert!(stream.ack().await.ready);
    assert_eq!(*ports.open.lock().unwrap(), BTreeSet::from([81]));
}

#[tokio::test]
async fn orders_and_reports() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let mut operator = operate(&socket);
    let (shared, ports) = start(&socket, folder.path(), &[]).await;
    tokio::spawn(crate::telemetry::report(Arc::clone(&shared), 2));
    let mut stream = operator.recv().await.unwrap();
    stream.hello().await;
    let proxy_message::Message::Load(window) = stream.message().await else { panic!("no load window") };
    assert_eq!((window.workers, window.draining), (2, false));

    // Nonsense is not obeyed; sense is.
    let mut rebalance = shared.rebalance.subscribe();
    for excess in [f64::NAN, -1.0, 0.0, 1.0, 0.25] {
        stream.send(operator_message::Message::Rebalance(proto::Rebalance { excess, over_ms: 10_000 })).await;
    }
    rebalance.changed().await.unwrap();
    let order = rebalance.borrow_and_update().unwrap();
    assert_eq!((order.excess, order.over), (0.25, Duration::from_secs(10)));

    // One that does not lead is left; one that speaks out of order too.
    stream.send(operator_message::Message::NotLeader(proto::NotLeader { holder: "b".into() })).await;
    let mut stream = operator.recv().await.unwrap();
    assert_eq!(stream.hello().await.windows.len(), 1);
    stream.send(operator_message::Message::Put(proto::Put::default())).await;
    let mut stream = operator.recv().await.unwrap();
    stream.hello().await;

    // Who leaves opens nothing any more, but says what it has.
    shared.drain.send_replace(Drain::Draining);
    stream.push(1, &Snapshot::default(), &listeners(&[80])).await;
    assert!(stream.ack().await.ready);
    assert!(ports.open.lock().unwrap().is_empty());
}

#[test]
fn whom_to_dial_next() {
    let operator = || Operator::new("unix:/nowhere".parse().unwrap(), None, None).unwrap();
    let not_leader = |holder: &str| Err(SessionError::NotLeader(holder.into()));
    let (a, b) = ("10.0.0.1:9443", "[fd00::2]:9443");
    let mut connector = Connector::new(operator(), Patience::Started);
    // At once to whoever leads; from one to the other and back, not so fast.
    assert_eq!((connector.next(not_leader(a)), connector.at), (None, a.parse().ok()));
    assert!(connector.next(not_leader(b)).is_some());
    assert_eq!(connector.at, b.parse().ok());
    // One that is not there is not dialled again, whatever the others believe.
    let absent = || Err(SessionError::Dial(DialError::Silent { at: b.parse().unwrap() }));
    assert!(connector.next(absent()).is_some());
    assert_eq!(connector.at, None);
    assert!(connector.next(not_leader(b)).is_some());
    assert_eq!(connector.at, None);
    assert_eq!((connector.next(not_leader(a)), connector.at), (None, a.parse().ok()));
    connector.absent = Some((b.parse().unwrap(), Instant::now() - AVOID_FOR));
    connector.at = None;
    assert_eq!((connector.next(not_leader(b)), connector.at), (None, b.parse().ok()));
    // Nobody leads.
    connector.at = None;
    assert!(connector.next(not_leader("")).is_some());
    assert_eq!(connector.at, None);
}
