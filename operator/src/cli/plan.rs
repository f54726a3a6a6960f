//! `plan`: what manifests come to, without running anything.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ValueEnum;
use planner::{FleetRef, Plan, plan::PlannedFleet};
use serde_json::{Value, json};

use super::Failure;
use crate::{admin::view, reconcile::world, source::directory};

/// Checks manifests and prints what proxies would run, and every problem
///
/// Exit code 1 when there is a problem. Private keys are not shown.
///
/// Not checked is what only a proxy can tell: whether a private key fits its certificate, whether that is in date, and
/// whether ports are free.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of manifests (.yaml, .yml, .json), read with its subfolders.
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// The snapshot on standard output, the problems on standard error, one a line.
    Text,
    /// Both in one object on standard output.
    Json,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let (plan, objects) = of(&args.manifests)?;
    if objects == 0 {
        let _ = writeln!(std::io::stderr(), "no object found in {}", args.manifests.display());
    }
    let text = match args.output {
        Output::Text => plan.fleets.iter().map(|(fleet, planned)| describe(fleet, planned)).collect(),
        Output::Json => format!("{:#}\n", to_json(&plan)),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    if let Output::Text = args.output {
        let problems: String = plan.problems.iter().map(|problem| format!("{problem}\n")).collect();
        std::io::stderr().write_all(problems.as_bytes())?;
    }
    Ok(if plan.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The plan, and of how many objects.
fn of(manifests: &Path) -> Result<(Plan, usize), Failure> {
    readable(manifests)?;
    let observed = directory::read_once(manifests);
    Ok((
        planner::plan(&world::world(&observed, &Default::default(), &Default::default(), None)),
        observed.objects.len(),
    ))
}

/// An error unless this is a folder that can be listed.
pub(super) fn readable(manifests: &Path) -> Result<(), Failure> {
    let listed = std::fs::read_dir(manifests);
    listed.map(drop).map_err(|error| format!("--manifests {}: {error}", manifests.display()).into())
}

fn describe(fleet: &FleetRef, planned: &PlannedFleet) -> String {
    let snapshot = &planned.snapshot;
    let mut text = format!(
        "# fleet {fleet}, revision {}: {} resources, {} bytes\n",
        snapshot.revision().short(),
        snapshot.len(),
        snapshot.size()
    );
    for (key, entry) in snapshot.iter() {
        let yaml = serde_yaml::to_string(&entry.decode().ok()).unwrap_or_else(|error| error.to_string());
        text += &format!("---\n# {key} {}\n{}\n", entry.hash().short(), yaml.trim_end());
    }
    text
}

fn to_json(plan: &Plan) -> Value {
    let fleet = |(fleet, planned): (&FleetRef, &PlannedFleet)| {
        json!({
            "fleet": fleet.to_string(),
            "revision": planned.snapshot.revision(),
            "resources": view::resources(&planned.snapshot),
        })
    };
    json!({
        "fleets": plan.fleets.iter().map(fleet).collect::<Vec<_>>(),
        "problems": plan.problems.iter().map(view::problem).collect::<Vec<_>>(),
    })
}
