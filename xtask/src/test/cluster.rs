//! The stages of `cargo xtask test --cluster` that need a Kubernetes: it is brought up if none is, and goes again whatever
//! happens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use devcluster::{Folders, Session};

use super::{Outcome, report, seconds, tool};
use crate::{
    chart, images,
    shell::{self, PROFILE, Tool, cargo},
};

/// The time that a run with `--cluster` may take where everything has been built before.
const GOAL: Duration = Duration::from_secs(25 * 60);

/// Whether everything has been built before, perhaps of an older state of the sources.
pub(super) fn is_warm() -> bool {
    let built = |folders: Folders| {
        devcluster::is_built(&folders)
            && chart::health::PROGRAM.is_built(&folders)
            && folders.archive("sluice-operator").exists()
    };
    Folders::of_user().is_ok_and(built) && shell::bin_dir().join("sluice-operator").exists()
}

/// Tells a warm run's time beside the goal. As with all times, the machine may be busy: ten times the goal fails.
pub(super) fn judge(took: Duration) -> anyhow::Result<()> {
    let word = if took <= GOAL { "within" } else { "beyond" };
    println!("{word} the goal of {} min for --cluster with everything built", GOAL.as_secs() / 60);
    anyhow::ensure!(took <= GOAL * 10, "more than ten times the goal");
    Ok(())
}

/// The stages that are wanted.
pub(super) fn run(long: bool, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    if wanted("chart") {
        report("chart", &|| chart(long))?;
    }
    if long && wanted("scan") {
        report("scan", &scan)?;
    }
    let stop = stop()?;
    if long && wanted("check") {
        println!("{:<9} up, down, up, down: nothing may be left", "check");
        let at = Instant::now();
        match Session::check()? {
            Ok(()) => println!("{:<9} ok {:>7}", "check", seconds(at.elapsed())),
            Err(reason) => println!("{:<9} skipped: {reason}", "check"),
        }
    }
    if !wanted("operator") && !wanted("cluster") {
        return Ok(());
    }
    anyhow::ensure!(!stop.load(Ordering::Relaxed), "interrupted");
    with_cluster(&stop, |session| {
        if wanted("operator") {
            let env = session.env()?;
            let args = ["test", "--package", "operator", "--features", "cluster", "--lib", "--tests", "--locked"];
            let tests = tool(move || with(cargo(&args), &env));
            report("operator", &|| session.ensure_no_operator().and_then(|()| tests()))?;
        }
        if wanted("cluster") {
            println!("{:<9} the whole system on Kubernetes, one test after the other", "cluster");
            let at = Instant::now();
            system_tests(None, long)?;
            println!("{:<9} ok {:>7}", "cluster", seconds(at.elapsed()));
        }
        Ok(())
    })
}

/// Only the tests of the whole system, or those whose name contains the filter.
pub(super) fn e2e(filter: Option<&str>, long: bool) -> anyhow::Result<()> {
    let stop = stop()?;
    with_cluster(&stop, |_| system_tests(filter, long))
}

/// Notes SIGINT and SIGTERM, since what is brought up must be taken down: the program that runs ends, and its stage fails. A
/// second one ends this program as well.
fn stop() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Does something with a cluster that has the images of what is built now.
fn with_cluster(stop: &AtomicBool, work: impl FnOnce(&Session) -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("{:<9} a Kubernetes; the first time this takes minutes", "up");
    let at = Instant::now();
    let session = Session::begin()?;
    println!("{:<9} ok {:>7}", "up", seconds(at.elapsed()));

    let done = report("images", &|| {
        let (built, output) = shell::build_binaries().capture()?;
        anyhow::ensure!(built, "{output}");
        let archives = images::build(&Folders::of_user()?)?;
        session.load(&archives.iter().map(|image| image.archive.clone()).collect::<Vec<_>>())?;
        let lines: Vec<_> = archives.iter().map(ToString::to_string).collect();
        Ok(Outcome::Done(lines.join("\n")))
    });
    let done = done.and_then(|()| if stop.load(Ordering::Relaxed) { Ok(()) } else { work(&session) });
    let done = if stop.load(Ordering::Relaxed) { Err(anyhow::anyhow!("interrupted")) } else { done };
    let done = done.or_else(|error| {
        let logs = session.keep_logs().context("what the cluster says cannot be kept")?;
        Err(error.context(format!("what the cluster says of itself is in {}", logs.display())))
    });
    let session = std::cell::Cell::new(Some(session));
    let ended = report("down", &|| {
        let notes = session.take().map_or(Ok(String::new()), Session::end)?;
        Ok(Outcome::Done(notes))
    });
    done.and(ended)
}

/// Checks the chart, which needs helm and Go, and no cluster.
fn chart(long: bool) -> anyhow::Result<Outcome> {
    let folders = Folders::of_user()?;
    let helm = devcluster::helm_program(&folders)?;
    chart::rendered::check(&helm)?;
    chart::health::check(&chart::health::PROGRAM.build(&folders)?)?;
    Ok(Outcome::Done(chart::hostile::check(&helm, long)?))
}

/// Runs scanners, which takes minutes to install the first time.
fn scan() -> anyhow::Result<Outcome> {
    let folders = Folders::of_user()?;
    let said = chart::scan::check(&devcluster::helm_program(&folders)?, &folders)?;
    Ok(said.map_or_else(Outcome::Skipped, Outcome::Done))
}

/// Runs the tests of the whole system. They find the cluster as the README's commands do: nothing in their environment names it.
fn system_tests(filter: Option<&str>, long: bool) -> anyhow::Result<()> {
    let mut tool = cargo(&["test", "--quiet", "--workspace", "--profile", PROFILE, "--features", "e2e/cluster"]);
    tool = tool.args(["--test", "cluster", "--"]).args(filter).args(["--test-threads=1", "--format=pretty"]);
    tool = tool.env("SLUICE_XTASK", &std::env::current_exe()?.display().to_string());
    if long {
        tool = tool.args(["--show-output"]).env("SLUICE_LONG", "1");
    }
    tool.run()
}

fn with(tool: Tool, env: &[(&'static str, String)]) -> Tool {
    env.iter().fold(tool, |tool, (key, value)| tool.env(key, value))
}
