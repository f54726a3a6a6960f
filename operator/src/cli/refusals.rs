//! `refusals`: what proxies refuse, from the admin port of the operator that leads; and how one is forgotten.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use bytes::Bytes;
use clap::Subcommand;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use snapshot::Key;
use tokio::{net::TcpStream, time::timeout};

use super::{Failure, columns::table};
use crate::{
    admin::{ASKED_BY, FORGET},
    reconcile::fleet_state::{RefusalShown, Scope},
    state::default_dir,
};

/// Shows what proxies refuse to run, and has a refusal forgotten
///
/// A refusal counts for the FLEET once two of its proxies refuse the same content, or its only one does: then what was good
/// before runs instead, everywhere, until it is tried again. What one PROXY alone refuses the others run. Either is tried
/// again by itself after 1, 2, 4 minutes and so on up to an hour; `forget` has that done at once.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The folder of an operator that runs on this machine; default: that of --manifests.
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,
    /// The manifests that it runs on, with the default state folder.
    #[arg(long, value_name = "DIR", global = true)]
    manifests: Option<PathBuf>,
    /// Where its admin port listens, if neither is given.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9090", global = true)]
    admin: SocketAddr,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forgets what is refused of a resource: it is tried again at once, with one proxy first
    Forget {
        /// Its key, as the list has it, such as Route/shop/orders.
        key: String,
    },
}

const EXAMPLES: &str = "Examples:
  sluice-operator refusals --manifests DIR                             on this machine
  sluice-operator refusals forget Route/shop/orders --manifests DIR
In a cluster, in the pod of the operator that leads:
  kubectl exec -n sluice-system POD -- sluice-operator refusals
  kubectl exec -n sluice-system POD -- sluice-operator refusals forget Route/shop/orders";

/// An answer that takes longer is given up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer of the admin port.
#[derive(Debug, Deserialize)]
struct Shown {
    fleets: Vec<FleetShown>,
}

#[derive(Debug, Deserialize)]
struct FleetShown {
    fleet: String,
    halted: Option<String>,
    refusals: Vec<RefusalShown>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let admin = admin(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ask = |method, path: &str| runtime.block_on(ask(admin, method, path));
    let text = match &args.command {
        Some(Command::Forget { key }) => {
            let key: Key = key.parse().map_err(|error| format!("KEY {key:?}: {error}"))?;
            ask(Method::POST, &format!("{FORGET}?{key}"))?
        }
        None => {
            let shown: Shown = serde_json::from_str(&ask(Method::GET, "/refusals")?)?;
            let halted = shown.fleets.iter().filter_map(|fleet| Some((&fleet.fleet, fleet.halted.as_ref()?)));
            for (fleet, why) in halted {
                eprintln!("fleet {fleet} keeps what it ran before: {why}");
            }
            if shown.fleets.iter().all(|fleet| fleet.refusals.is_empty()) {
                eprintln!("no proxy refuses anything");
                return Ok(ExitCode::SUCCESS);
            }
            table(&rows(&shown, jiff::Timestamp::now()))
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Where the operator is asked.
fn admin(args: &Args) -> Result<SocketAddr, Failure> {
    let folder = match (&args.state_dir, &args.manifests) {
        (Some(folder), _) => folder.clone(),
        (None, Some(manifests)) => default_dir(manifests)?,
        (None, None) => return Ok(args.admin),
    };
    let file = folder.join("operator.json");
    let hint = "is `sluice-operator standalone` running, with the same --manifests or --state-dir?";
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}; {hint}", file.display()))?;
    let value: serde_json::Value = serde_json::from_str(&text)?;
    let admin = value["admin"].as_str().and_then(|admin| admin.parse().ok());
    admin.ok_or_else(|| format!("{}: no admin port; {hint}", file.display()).into())
}

async fn ask(admin: SocketAddr, method: Method, path: &str) -> Result<String, Failure> {
    let exchange = async {
        let stream = TcpStream::connect(admin).await.map_err(|error| format!("no operator at {admin}: {error}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what goes wrong the answer tells.
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(header::HOST, admin.to_string());
        let request = request.header(ASKED_BY, "sluice-operator").body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = String::from_utf8(answer.into_body().collect().await?.to_bytes().to_vec())?;
        match status {
            StatusCode::OK => Ok(body),
            _ => Err(Failure::from(body.trim_end().to_owned())),
        }
    };
    timeout(REQUEST_TIMEOUT, exchange).await.map_err(|_| format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))?
}

/// Heads and cells.
fn rows(shown: &Shown, now: jiff::Timestamp) -> Vec<Vec<String>> {
    let heads = ["FLEET", "KEY", "COUNTS FOR", "PROXIES", "REASON", "AGE", "AGAIN", "MESSAGE"];
    let seconds = |ms: u64| i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let row = |fleet: &str, refusal: &RefusalShown| {
        let RefusalShown { key, scope, proxies, reason, field, message, since, tried_again } = refusal;
        let scope = match scope {
            Scope::Fleet => "fleet",
            Scope::Proxy => "proxy",
        };
        let again = tried_again
            .map_or_else(String::new, |at| format!("{}s", seconds(at).saturating_sub(now.as_second()).max(0)));
        let age = format!("{}s", now.as_second().saturating_sub(seconds(*since)).max(0));
        let separator = if field.is_empty() { "" } else { ": " };
        let message = format!("{field}{separator}{message}");
        [fleet.to_owned(), key.clone(), scope.to_owned(), proxies.join(","), reason.clone(), age, again, message]
            .to_vec()
    };
    let refusals = shown.fleets.iter().flat_map(|fleet| fleet.refusals.iter().map(|r| row(&fleet.fleet, r)));
    std::iter::once(heads.map(str::to_owned).to_vec()).chain(refusals).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_each_refusal() {
        let refusal = RefusalShown {
            key: "Route/shop/orders".into(),
            scope: Scope::Fleet,
            proxies: vec!["default-0".into(), "default-1".into()],
            reason: "InvalidRegex".into(),
            field: "rules[0]".into(),
            message: "too large".into(),
            since: 100_000,
            tried_again: Some(160_000),
        };
        let lone = RefusalShown { scope: Scope::Proxy, field: String::new(), tried_again: None, ..refusal.clone() };
        let fleet = FleetShown { fleet: "sys/default".into(), halted: None, refusals: vec![refusal, lone] };
        let rows = rows(&Shown { fleets: vec![fleet] }, jiff::Timestamp::from_second(130).unwrap());
        let text = table(&rows);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split("   ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
        assert_eq!(lines[1][2..7], ["fleet", "default-0,default-1", "InvalidRegex", "30s", "30s"]);
        assert!(lines[1][7].contains("rules[0]: too large") && lines[2][2].contains("proxy"), "{text}");
    }

    #[test]
    fn it_says_where_no_operator_is() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let admin = "127.0.0.1:1".parse().unwrap();
        let error = runtime.block_on(ask(admin, Method::GET, "/refusals")).unwrap_err().to_string();
        assert!(error.starts_with("no operator at 127.0.0.1:1"), "{error}");
    }
}
