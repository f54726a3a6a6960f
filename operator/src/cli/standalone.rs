//! `standalone`: the whole system on one machine.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{Failure, plan::readable};
use crate::{
    admin::{self, Admin, Readiness, view},
    cli::log,
    default_fleet,
    events::recorder::EventRecorder,
    fleet::process::{self, ProcessFleet, Settings},
    leader::election,
    push::{self, Registry},
    reconcile::{Context, Reconciler, event::Event},
    source::{Generations, directory},
    state::{
        StateDir, default_dir,
        store::{FolderStore, StateStore},
    },
    status,
};

/// Runs a gateway on this machine: manifests are files, proxies are processes
///
/// Manifests are read again whenever a file changes. Proxies survive an operator that is killed, and the next one takes
/// them over. On SIGTERM or Ctrl-C every proxy drains and ends, then the operator; on a second one all end at once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of manifests (.yaml, .yml, .json), read with its subfolders.
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// Folder for what outlives the operator; default: one for each manifest folder, below $XDG_STATE_HOME/sluice or
    /// ~/.local/state/sluice.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The proxy's program; default: sluice-proxy beside this one, else in $PATH.
    #[arg(long, value_name = "PATH")]
    proxy_bin: Option<PathBuf>,
    /// Where /metrics, /healthz, /readyz and /debug are served, on loopback; port 0 takes a free one, which operator.json
    /// in the state folder then names.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    admin: SocketAddr,
}

/// Events that wait for the loop. When it is full, whoever has more waits.
const EVENT_QUEUE_LEN: usize = 1024;

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    log::init();
    readable(&args.manifests)?;
    // The paths of events are those of the folder itself, whatever links lead there.
    let manifests = args.manifests.canonicalize()?;
    let program = program(args.proxy_bin)?;
    let state = StateDir::open(&args.state_dir.map_or_else(|| default_dir(&manifests), Ok)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(standalone(manifests, program, &state, args.admin));
    state.leave();
    // Readers of the manifests and the like may be in the middle of something that no one waits for any more.
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

/// The program of proxies.
fn program(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    const NAME: &str = "sluice-proxy";
    if let Some(path) = given {
        return path.canonicalize().map_err(|error| format!("--proxy-bin {}: {error}", path.display()).into());
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(NAME)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = beside.into_iter().chain(std::env::split_paths(&path).map(|folder| folder.join(NAME)));
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    found.ok_or_else(|| format!("{NAME} is neither beside this program nor in $PATH: give --proxy-bin").into())
}

async fn standalone(manifests: PathBuf, program: PathBuf, state: &StateDir, admin: SocketAddr) -> Result<(), Failure> {
    let listener = admin::bind(admin).await?;
    let admin = listener.local_addr()?.to_string();
    let (sender, events) = mpsc::channel(EVENT_QUEUE_LEN);
    let folder = state.path().to_owned();
    let (store, persisted) = FolderStore::open(&folder);
    let generations: Generations =
        persisted.objects.iter().map(|(id, r)| (id.clone(), (r.generation, r.content))).collect();
    let registry = Arc::new(Registry::default());
    let fleet = adopt(program, state, sender.clone()).await?;
    let view = view::Shared::default();
    // Fleets are manifests of the folder; none comes with an installation.
    let no_default_fleet = tokio::sync::watch::channel(default_fleet::State::default()).1;
    let parts = Context {
        events,
        fleet,
        registry: Arc::clone(&registry),
        persisted,
        store: StateStore::Folder(store),
        recorder: EventRecorder::nowhere(),
        statuses: status::Writer::to_files(folder.join("status"), status::FILES),
        view: view.clone(),
        in_force: None,
        lead: election::sole_leader(state.epoch),
        default_fleet: no_default_fleet.clone(),
    };
    let socket = state.control_socket();
    let serving = push::serve(&socket, election::sole_leader(state.epoch), registry, sender.clone());
    state.announce(&admin)?;
    tracing::info!(epoch = state.epoch, state = %folder.display(), admin, manifests = %manifests.display(), "operator started");
    tokio::spawn(admin::serve(listener, Admin { view, readiness: Readiness::Fleets, default_fleet: no_default_fleet }));
    tokio::spawn(directory::run(manifests, generations, sender.clone()));
    let operator = Reconciler::new(parts);
    tokio::select! {
        done = tokio::spawn(operator.run()) => {
            done.map_err(|error| format!("the loop failed, proxies go on without an operator: {error}"))?;
            tracing::info!("every proxy has left");
            Ok(())
        }
        error = serving => Err(error.err().map_or_else(|| "the push server ended".into(), Failure::from)),
        () = signals(sender) => {
            process::kill_recorded(&state.proxies());
            Err("told twice to end: proxies were killed".into())
        }
    }
}

/// Takes over what an earlier operator left. Asking living proxies for their sockets blocks.
async fn adopt(program: PathBuf, state: &StateDir, events: mpsc::Sender<Event>) -> Result<ProcessFleet, Failure> {
    let settings = Settings {
        program,
        control_socket: state.control_socket(),
        sockets_socket: state.sockets_socket(),
        folder: state.proxies(),
    };
    // A full queue is enough: the loop looks at every fleet in each reconciliation.
    let wake = Arc::new(move || drop(events.try_send(Event::FleetChanged)));
    let adopted = tokio::task::spawn_blocking(move || ProcessFleet::adopt(settings, wake)).await?;
    Ok(adopted.map_err(|error| format!("state folder: {}: {error}", state.proxies().display()))?)
}

/// Passes the first signal on as the wish to end; comes back at the second.
async fn signals(events: mpsc::Sender<Event>) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals can't be received: end this operator with kill -9");
        return std::future::pending().await;
    };
    let mut next = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    next().await;
    tracing::info!("ending: proxies drain; a second signal kills them");
    // The loop is gone only when the operator ends anyway.
    let _ = events.send(Event::Shutdown).await;
    next().await;
}
