//! `check`: whether what was installed works, seen from inside the cluster. `helm test` runs it.

use std::{process::ExitCode, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::Failure;

/// Waits until operators and fleets work, as those see it who use them; `helm test` runs it
///
/// A Service has no endpoint until a pod behind it is Ready, and a proxy is Ready when it runs the whole configuration: so any
/// answer of a fleet's Service means that the fleet works.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where /readyz must answer 200: an operator or a proxy.
    #[arg(long, value_name = "HOST:PORT")]
    ready: Vec<String>,
    /// Where /default-fleet must answer 200: an operator. The fleet is then as the chart's values say.
    #[arg(long, value_name = "HOST:PORT")]
    default_fleet: Vec<String>,
    /// Where any HTTP answer will do: a listener of a fleet.
    #[arg(long, value_name = "HOST:PORT")]
    http: Vec<String>,
    /// Where a connection must be possible: a listener with TLS, whose names are not known here.
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Vec<String>,
    /// How long all of it may take together.
    #[arg(long, value_name = "DURATION", default_value = "3m")]
    timeout: crds::Duration,
}

/// A request that takes longer is given up, and tried again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is shown.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Between two looks.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    if args.ready.is_empty() && args.default_fleet.is_empty() && args.http.is_empty() && args.tcp.is_empty() {
        return Err("nothing to check: give --ready, --default-fleet, --http or --tcp with HOST:PORT".into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(check(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn check(args: &Args) -> Result<(), Failure> {
    let until = Instant::now() + args.timeout.std();
    for host in &args.ready {
        eventually(until, &format!("{host} is ready"), || async {
            match ask(host, "/readyz").await? {
                StatusCode::OK => Ok(()),
                other => Err(ProbeError::NotReady(other)),
            }
        })
        .await?;
    }
    for host in &args.default_fleet {
        eventually(until, "the fleet is as the values say", || async {
            match ask_for(host, "/default-fleet").await? {
                (StatusCode::OK, _) => Ok(()),
                (_, said) => Err(ProbeError::NotAsDefined(said.trim().to_owned())),
            }
        })
        .await?;
    }
    for host in &args.http {
        eventually(until, &format!("{host} answers"), || async { ask(host, "/").await.map(|_| ()) }).await?;
    }
    for host in &args.tcp {
        eventually(until, &format!("{host} takes connections"), || async { connect(host).await.map(|_| ()) }).await?;
    }
    Ok(())
}

/// Why a check does not succeed yet.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    /// The operator or proxy is not ready.
    #[error("/readyz answers {0}")]
    NotReady(StatusCode),
    /// The default fleet differs from its manifest.
    #[error("{0}")]
    NotAsDefined(String),
    /// The server was silent until the deadline.
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    NoAnswer,
    /// The server took no connection until the deadline.
    #[error("no connection within {} s", REQUEST_TIMEOUT.as_secs())]
    NoConnection,
    /// The server took no connection.
    #[error(transparent)]
    Connect(#[from] std::io::Error),
    /// The exchange failed.
    #[error("{0}")]
    Failed(Failure),
}

/// Tries until it succeeds or it is too late; prints what is waited for whenever that changes.
async fn eventually<T, F: Future<Output = Result<T, ProbeError>>>(
    until: Instant,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Failure> {
    let mut told = String::new();
    loop {
        match timeout_at(until, attempt()).await {
            Ok(Ok(done)) => {
                println!("ok       {what}");
                return Ok(done);
            }
            Ok(Err(error)) if Instant::now() + RETRY_INTERVAL < until => {
                let why = error.to_string();
                if why != told {
                    println!("waiting  {what}: {why}");
                    told = why;
                }
                sleep(RETRY_INTERVAL).await;
            }
            Ok(Err(why)) => return Err(format!("{what}: not in time: {why}").into()),
            Err(_) => return Err(format!("{what}: not in time: {told}").into()),
        }
    }
}

/// The status of the answer to a GET.
async fn ask(host: &str, path: &str) -> Result<StatusCode, ProbeError> {
    ask_for(host, path).await.map(|(status, _)| status)
}

/// Status and text of the answer to a GET; of the text no more than anyone reads.
async fn ask_for(host: &str, path: &str) -> Result<(StatusCode, String), ProbeError> {
    let stream = connect(host).await?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what goes wrong the answer tells.
        tokio::spawn(connection);
        let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        // Any answer is one, also one whose body is none.
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        Ok::<_, Failure>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    match timeout(REQUEST_TIMEOUT, exchange).await {
        Ok(answer) => answer.map_err(ProbeError::Failed),
        Err(_) => Err(ProbeError::NoAnswer),
    }
}

async fn connect(host: &str) -> Result<TcpStream, ProbeError> {
    match timeout(REQUEST_TIMEOUT, TcpStream::connect(host)).await {
        Ok(stream) => Ok(stream?),
        Err(_) => Err(ProbeError::NoConnection),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A server of one answer for each connection.
    async fn server(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        host
    }

    #[tokio::test]
    async fn any_answer_is_one_and_silence_is_none() {
        let host = server("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(ask(&host, "/").await.unwrap(), StatusCode::NOT_FOUND);
        let host = server("").await;
        assert!(ask(&host, "/").await.is_err());
    }

    #[tokio::test]
    async fn what_is_not_ready_is_named_with_its_answer() {
        let host = server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        let timeout = crds::Duration::from_millis(500);
        let args = Args {
            ready: vec![host.clone()],
            http: vec![host.clone()],
            tcp: vec![host.clone()],
            default_fleet: vec![],
            timeout,
        };
        let failed = check(&args).await.unwrap_err().to_string();
        assert_eq!(failed, format!("{host} is ready: not in time: /readyz answers 503 Service Unavailable"));
        check(&Args { ready: Vec::new(), ..args }).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_in_time_with_the_last_reason() {
        let until = Instant::now() + Duration::from_secs(10);
        let failed =
            eventually(until, "it", || async { Err::<(), _>(ProbeError::NotAsDefined("not yet".to_owned())) }).await;
        assert_eq!(failed.unwrap_err().to_string(), "it: not in time: not yet");
        assert!(Instant::now() <= until);
    }
}
