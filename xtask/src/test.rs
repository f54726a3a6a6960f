//! `cargo xtask test`: the stages that must pass before a change is shared, one line each.

mod cluster;
mod fuzz;

use std::{
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use devcluster::Folders;

use crate::{
    shell::{self, PROFILE, Tool, cargo},
    tidy,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also the full matrices, the goals themselves instead of ten times the goals, and a minute of fuzzing for each target;
    /// installs cargo-deny and cargo-fuzz if missing.
    #[arg(long)]
    long: bool,
    /// Also on a Kubernetes: the chart, the operator with an API server, the whole system. Brings one up if none is, which needs
    /// Linux, root and Go (or kind, or $KUBECONFIG).
    #[arg(long)]
    cluster: bool,
    /// Only the stages whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct E2eArgs {
    /// Part of the names of the tests to run, such as `cycle` or `limit::`.
    filter: Option<String>,
    /// Those on a Kubernetes instead of those on this machine alone.
    #[arg(long)]
    cluster: bool,
    /// Also the full matrices and the goals themselves.
    #[arg(long)]
    long: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let warm = args.cluster && !args.long && args.only.is_none() && cluster::is_warm();
    let wanted = |name: &str| args.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    components()?;

    let checked = ["--all-targets", "--all-features", "--locked", "--", "--deny", "warnings"];
    let stages: Vec<(&str, Stage)> = vec![
        ("fmt", tool(|| cargo(&["fmt", "--all", "--", "--check", "--files-with-diff"]))),
        ("tidy", Box::new(|| tidy::check().map(|notes| Outcome::Done(notes.join("\n"))))),
        ("clippy", tool(move || cargo(&["clippy", "--workspace"]).args(checked))),
        ("test", tool(|| cargo(&["test", "--workspace", "--lib", "--bins", "--tests", "--locked"]))),
        ("doc test", tool(|| cargo(&["test", "--workspace", "--doc", "--locked"]))),
        (
            "docs",
            tool(|| {
                cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"])
                    .env("RUSTDOCFLAGS", "--deny warnings")
            }),
        ),
        (
            "deny",
            Box::new({
                let long = args.long;
                move || deny(long)
            }),
        ),
        ("build", Box::new(build)),
    ];
    for (name, stage) in stages {
        if wanted(name) {
            report(name, &*stage)?;
        }
    }
    if wanted("e2e") {
        println!("{:<9} the whole system, one test after the other", "e2e");
        let at = Instant::now();
        system_tests(None, args.long)?;
        println!("{:<9} ok {:>7}", "e2e", seconds(at.elapsed()));
    }
    if args.long && wanted("fuzz") {
        report("fuzz", &fuzz::run)?;
    }
    if args.cluster {
        cluster::run(args.long, wanted)?;
    }
    let took = started.elapsed();
    println!("passed in {}", seconds(took));
    if warm { cluster::judge(took) } else { Ok(()) }
}

pub(crate) fn e2e(args: &E2eArgs) -> anyhow::Result<()> {
    if args.cluster {
        return cluster::e2e(args.filter.as_deref(), args.long);
    }
    build()?;
    system_tests(args.filter.as_deref(), args.long)
}

type Stage = Box<dyn Fn() -> anyhow::Result<Outcome>>;

/// The outcome of a stage that did not fail.
enum Outcome {
    /// It passed, perhaps with something worth a line.
    Done(String),
    /// It could not run, for this reason.
    Skipped(String),
}

fn tool(make: impl Fn() -> Tool + 'static) -> Stage {
    Box::new(move || {
        let tool = make();
        let repeat = tool.to_string();
        let (passed, output) = tool.capture()?;
        anyhow::ensure!(passed, "{output}\nrepeat it with: {repeat}");
        Ok(Outcome::Done(String::new()))
    })
}

fn report(name: &str, stage: &dyn Fn() -> anyhow::Result<Outcome>) -> anyhow::Result<()> {
    print!("{name:<9} ");
    std::io::stdout().flush()?;
    let at = Instant::now();
    let outcome = stage();
    let time = seconds(at.elapsed());
    match outcome {
        Ok(Outcome::Done(notes)) => {
            println!("ok {time:>7}");
            notes.lines().for_each(|note| println!("          {note}"));
            Ok(())
        }
        Ok(Outcome::Skipped(reason)) => {
            println!("skipped: {reason}");
            Ok(())
        }
        Err(error) => {
            println!("FAILED {time}\n\n{error:#}\n");
            Err(anyhow::anyhow!("stage `{name}` failed"))
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// clippy and rustfmt, through rustup if they are not there.
fn components() -> anyhow::Result<()> {
    let missing: Vec<_> = [("clippy", "clippy"), ("fmt", "rustfmt")]
        .into_iter()
        .filter(|(command, _)| !cargo(&[command, "--version"]).capture().is_ok_and(|(there, _)| there))
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    println!("setup     rustup component add {list}");
    let added = Tool::new("rustup").args(["component", "add"]).args(&missing).capture();
    anyhow::ensure!(
        added.is_ok_and(|(added, _)| added),
        "{list} missing, and `rustup component add {list}` does not work here: install them with your Rust toolchain"
    );
    Ok(())
}

/// A subcommand of cargo's that is a program of its own and takes minutes to build: installed only with `--long`.
fn subcommand(name: &str, install: bool) -> anyhow::Result<Result<PathBuf, Outcome>> {
    let folders = Folders::of_user()?;
    let cache = folders.cache();
    let own = cache.join("bin").join(name);
    let works = |program: &PathBuf| Tool::new(program).args(["--version"]).capture().is_ok_and(|(works, _)| works);
    match [PathBuf::from(name), own.clone()].into_iter().find(works) {
        Some(program) => Ok(Ok(program)),
        None if install => {
            let (installed, output) =
                cargo(&["install", "--quiet", "--locked", name, "--root"]).args([cache]).capture()?;
            anyhow::ensure!(installed, "{output}");
            Ok(Ok(own))
        }
        None => {
            let reason = format!("{name} is not installed (`cargo install --locked {name}`, or --long installs it)");
            Ok(Err(Outcome::Skipped(reason)))
        }
    }
}

fn deny(install: bool) -> anyhow::Result<Outcome> {
    let program = match subcommand("cargo-deny", install)? {
        Ok(program) => program,
        Err(skipped) => return Ok(skipped),
    };
    // Advisories need a database from the network; the rest is decided by this checkout alone.
    let checks = [
        "--log-level",
        "error",
        "--all-features",
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ];
    let tool = Tool::new(program).args(checks);
    let repeat = "cargo deny check bans licenses sources";
    let (passed, output) = tool.capture()?;
    anyhow::ensure!(passed, "{output}\nrepeat it with: {repeat}");
    Ok(Outcome::Done(String::new()))
}

/// The binaries of the whole-system tests: the proxy once with its fault switches, kept under another name, then all.
fn build() -> anyhow::Result<Outcome> {
    let bins = shell::bin_dir();
    for features in [&["--features", "proxy/fault"][..], &[]] {
        let tool = shell::build_binaries().args(features);
        let repeat = tool.to_string();
        let (built, output) = tool.capture()?;
        anyhow::ensure!(built, "{output}\nrepeat it with: {repeat}");
        if !features.is_empty() {
            let (from, to) = (bins.join("sluice-proxy"), bins.join("sluice-proxy-fault"));
            // Cargo hard-links what it built: a copy stays what it is when the next build replaces the link.
            std::fs::copy(&from, &to).map_err(|error| anyhow::anyhow!("{}: {error}", from.display()))?;
        }
    }
    Ok(Outcome::Done(String::new()))
}

fn system_tests(filter: Option<&str>, long: bool) -> anyhow::Result<()> {
    let mut tool = cargo(&["test", "--quiet", "--workspace", "--profile", PROFILE, "--features", "e2e/system"]);
    tool = tool.args(["--test", "system", "--"]).args(filter).args(["--test-threads=1", "--format=pretty"]);
    if long {
        // The figures that were measured are worth reading.
        tool = tool.args(["--show-output"]).env("SLUICE_LONG", "1");
    }
    tool.run()
}
