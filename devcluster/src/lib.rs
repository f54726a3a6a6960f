//! `cargo xtask cluster`: a Kubernetes to run things on. The one that `$KUBECONFIG` names; else one by kind; else a node of
//! our own, built from source and Debian packages, for machines that reach no image registry.
//!
//! ```text
//! lib        the commands, and which cluster they mean
//! given      somebody else's cluster, and kind's
//! own        our node, from outside: up, down, images, programs
//!   packages   what Debian provides          build    what is compiled from Go modules
//!   images     the images of the node itself boot     from an empty state folder to a Ready node
//!   cleanup    down, and what it must leave  node     the first process inside, with its components
//! commands   what a shell evaluates to have kubectl and helm
//! session    the cluster for as long as tests need it
//! check      `up; down; up`, with pods, Services, names, logs and exec
//! shell, files, buildah   what the commands are made of, and `xtask`'s other commands too
//! ```
//!
//! The node's first process is the program that has these commands, started anew as `cluster node` ([`Args`]).

mod boot;
mod build;
pub mod buildah;
mod check;
mod cleanup;
mod commands;
mod components;
pub mod files;
mod folders;
mod given;
mod images;
mod node;
mod own;
mod packages;
mod session;
pub mod shell;

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

pub use build::Program;
use files::{create, read, write};
pub use folders::Folders;
use given::Kind;
pub use session::Session;

/// The arguments of `cargo xtask cluster`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Have a cluster that is ready: $KUBECONFIG's, kind's, or a node of our own (the first time this takes minutes).
    Up,
    /// Give the cluster images from docker archives (`buildah push IMAGE docker-archive:FILE`).
    LoadImage {
        /// The archives.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Print what a shell evaluates to have the cluster, with kubectl and helm: `eval "$(cargo xtask cluster env)"`.
    Env,
    /// Print the path of the cluster's kubeconfig, as the last line.
    Kubeconfig,
    /// Run kubectl on the cluster.
    Kubectl(Rest),
    /// Run helm on the cluster; helm is built if it is not there.
    Helm(Rest),
    /// Take down what `up` made, so that nothing of it is left but what it built.
    Down,
    /// Show that it works: up, down, up, down, with pods, Services, names, logs and exec; nothing may be left.
    Check,
    /// The first process of our own node.
    #[command(hide = true)]
    Node {
        #[arg(long)]
        cache: PathBuf,
    },
}

#[derive(clap::Args)]
struct Rest {
    /// The arguments, after `--`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// The command: what it prints is for a shell, or for whoever typed it.
///
/// # Errors
///
/// What failed, and how to repeat it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Action::Node { cache } = &args.action {
        return node::run(&Folders::at(cache)).map(|()| ExitCode::SUCCESS);
    }
    let folders = Folders::of_user()?;
    let _alone = match &args.action {
        Action::Up | Action::Down | Action::Check => Some(folders.lock("cluster")?),
        _ => None,
    };
    if matches!(args.action, Action::Check) {
        // What failed is looked at in a cluster that is still there.
        let left = "the cluster has been left as it is: see `cargo xtask cluster kubectl`";
        let told = |error: anyhow::Error| if folders.state().exists() { error.context(left) } else { error };
        return check::run(&folders).map(|()| ExitCode::SUCCESS).map_err(told);
    }
    let cluster = choose(&folders)?;
    match &args.action {
        Action::Up => {
            up(&cluster, &folders)?;
            println!("kubectl and helm for this shell: eval \"$(cargo xtask cluster env)\"");
        }
        Action::LoadImage { archives } => load_images(&cluster, &folders, archives)?,
        Action::Env => print!("{}", commands::env(&cluster, &folders)?),
        Action::Kubeconfig => println!("{}", kubeconfig(&cluster, &folders)?.display()),
        Action::Kubectl(rest) => return Err(exec(kubectl(&cluster, &folders)?, &rest.args)),
        Action::Helm(rest) => return Err(exec(helm(&cluster, &folders)?, &rest.args)),
        Action::Down => down(&cluster, &folders)?,
        Action::Check | Action::Node { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The cluster that the commands mean.
enum Cluster {
    Given(PathBuf),
    Kind(Kind),
    Own,
}

fn choose(folders: &Folders) -> anyhow::Result<Cluster> {
    if let Some(path) = given::kubeconfig(folders)? {
        return Ok(Cluster::Given(path));
    }
    // What runs stays the one that is meant, also when a container engine has been started since.
    if folders.state().exists() {
        return Ok(Cluster::Own);
    }
    Ok(Kind::find(folders).map_or(Cluster::Own, Cluster::Kind))
}

fn up(cluster: &Cluster, folders: &Folders) -> anyhow::Result<()> {
    match cluster {
        Cluster::Given(path) => given::check(path)?,
        Cluster::Kind(kind) => kind.up()?,
        Cluster::Own => return own::up(folders),
    }
    // Every way to use a cluster begins with it.
    build::helm(folders).map(drop)
}

fn down(cluster: &Cluster, folders: &Folders) -> anyhow::Result<()> {
    match cluster {
        Cluster::Given(path) => {
            println!("{} is not ours ($KUBECONFIG): left as it is", path.display());
            Ok(())
        }
        Cluster::Kind(kind) => kind.down(),
        Cluster::Own => own::down(folders),
    }
}

/// The folder of Kubernetes' sources, with what they say of its API.
pub fn kubernetes_source() -> anyhow::Result<PathBuf> {
    build::kubernetes_source()
}

/// The helm that tests use, built if it is not there. To render a chart it needs no cluster.
pub fn helm_program(folders: &Folders) -> anyhow::Result<PathBuf> {
    build::helm(folders)
}

/// Whether all that takes long to build has been built once.
pub fn is_built(folders: &Folders) -> bool {
    build::KUBERNETES.is_built(folders) && folders.program("helm").exists()
}

/// Gives the images of docker archives to the cluster that is up.
pub fn load(folders: &Folders, archives: &[PathBuf]) -> anyhow::Result<()> {
    load_images(&choose(folders)?, folders, archives)
}

fn load_images(cluster: &Cluster, folders: &Folders, archives: &[PathBuf]) -> anyhow::Result<()> {
    for archive in archives {
        anyhow::ensure!(archive.is_file(), "{}: no such file; give a docker archive", archive.display());
        match cluster {
            Cluster::Given(path) => given::load_image(path, archive)?,
            Cluster::Kind(kind) => kind.load_image(archive)?,
            Cluster::Own => own::load_image(folders, archive)?,
        }
    }
    Ok(())
}

fn kubeconfig(cluster: &Cluster, folders: &Folders) -> anyhow::Result<PathBuf> {
    let path = match cluster {
        Cluster::Given(path) => return Ok(path.clone()),
        Cluster::Kind(kind) => kind.kubeconfig(),
        Cluster::Own => folders.kubeconfig(),
    };
    anyhow::ensure!(path.exists(), "there is no cluster: run `cargo xtask cluster up`");
    Ok(path)
}

fn kubectl(cluster: &Cluster, folders: &Folders) -> anyhow::Result<Command> {
    let path = kubeconfig(cluster, folders)?;
    let mut command = match cluster {
        Cluster::Own => own::kubectl(folders),
        Cluster::Given(_) | Cluster::Kind(_) if given::on_path("kubectl") => Command::new("kubectl"),
        Cluster::Given(_) | Cluster::Kind(_) => {
            build::KUBERNETES.build(folders)?;
            own::kubectl(folders)
        }
    };
    command.env("KUBECONFIG", path);
    if matches!(cluster, Cluster::Own) {
        own::directly(&mut command);
    }
    Ok(command)
}

fn helm(cluster: &Cluster, folders: &Folders) -> anyhow::Result<Command> {
    let mut command = Command::new(build::helm(folders)?);
    command.env("KUBECONFIG", kubeconfig(cluster, folders)?);
    if matches!(cluster, Cluster::Own) {
        own::directly(&mut command);
    }
    Ok(command)
}

/// Becomes the program: its signals, its terminal and its exit code are the caller's. Returns only when that fails.
fn exec(mut command: Command, args: &[OsString]) -> anyhow::Error {
    let error = command.args(args).exec();
    anyhow::anyhow!("cannot run {}: {error}", command.get_program().display())
}

/// Asks `ready` again and again, until it says yes or `patience` is over; in between it says what is waited for.
fn wait_for(what: &str, patience: Duration, mut ready: impl FnMut() -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut told = started;
    while !ready() {
        anyhow::ensure!(started.elapsed() < patience, "no {what} within {} s", patience.as_secs());
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            println!("  {what}: waited {} s", started.elapsed().as_secs());
        }
        shell::pause(Duration::from_millis(100));
    }
    Ok(())
}
