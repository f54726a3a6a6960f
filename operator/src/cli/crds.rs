//! `crds`: the CustomResourceDefinitions.

use std::{fs, io::Write as _, path::PathBuf, process::ExitCode};

use super::Failure;

/// Prints the CustomResourceDefinitions, for `kubectl apply -f -`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write one file for each into this folder instead.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.out {
        Some(folder) => {
            fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            for (name, yaml) in crds::definitions_yaml() {
                let path = folder.join(name);
                fs::write(&path, yaml).map_err(|error| format!("{}: {error}", path.display()))?;
                println!("{}", path.display());
            }
        }
        None => {
            let documents: Vec<String> = crds::definitions_yaml().into_iter().map(|(_, yaml)| yaml).collect();
            std::io::stdout().write_all(documents.join("---\n").as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
