//! Programs that are compiled from Go modules. The modules in the checkout pin what is built; a program is built anew when
//! its module changed or the program is absent.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    files::{read, unless_built},
    folders::Folders,
    given::on_path,
    shell,
};

/// A Go program of the checkout.
pub struct Program {
    /// The binary's name.
    pub name: &'static str,
    /// The folder of its module, in the checkout.
    pub module: &'static str,
    /// The package, relative to the module.
    pub package: &'static str,
}

impl Program {
    /// The program's path, built if it is not there or its module has changed.
    pub fn build(&self, folders: &Folders) -> anyhow::Result<PathBuf> {
        build_as(folders, self, self.name)
    }

    /// Whether it has been built once, perhaps from an older module.
    pub fn is_built(&self, folders: &Folders) -> bool {
        folders.program(self.name).exists()
    }
}

pub(super) const KUBERNETES: Program =
    Program { name: "kubernetes", module: "devcluster/node/kubernetes", package: "." };

/// Every program that the cluster needs, the quick ones first.
pub(super) const PROGRAMS: [Program; 6] = [
    Program { name: "pki", module: "devcluster/node/tools", package: "./pki" },
    Program { name: "pause", module: "devcluster/node/tools", package: "./pause" },
    Program { name: "hello", module: "devcluster/node/tools", package: "./hello" },
    Program { name: "etcd", module: "devcluster/node/etcd", package: "." },
    Program { name: "coredns", module: "devcluster/node/coredns", package: "." },
    KUBERNETES,
];

/// helm is installed as its users do, its own go.sum pins the rest.
const HELM: &str = "helm.sh/helm/v4/cmd/helm@v4.3.1";

/// Builds all that a cluster and its users need, unless it is there, and says how much is left.
pub(super) fn all(folders: &Folders) -> anyhow::Result<()> {
    let count = PROGRAMS.len() + 1;
    let told = |i: usize, name: &str| format!("{name} ({} of {count})", i + 1);
    for (i, program) in PROGRAMS.iter().enumerate() {
        build_as(folders, program, &told(i, program.name))?;
    }
    helm_as(folders, &told(PROGRAMS.len(), "helm"))?;
    Ok(())
}

/// The module whose version Kubernetes reports as its own.
const KUBERNETES_MODULE: &str = "k8s.io/kubernetes";

fn build_as(folders: &Folders, program: &Program, what: &str) -> anyhow::Result<PathBuf> {
    let module = shell::root().join(program.module);
    let flags = link_flags(program, &module)?;
    let inputs = inputs(&module, program.package, &flags)?;
    let built = folders.program(program.name);
    let args = ["build", "-trimpath", "-v", "-ldflags", &flags];
    let mut go = Command::new("go");
    // To another name first: an interrupted build leaves no half program, and one that runs is not written into.
    let new = folders.program(&format!("{}.new", program.name));
    go.args(args).arg("-o").arg(&new).arg(program.package).current_dir(&module);
    unless_built(&built, &inputs, || {
        run_go(what, go, || packages(&module, program.package))?;
        std::fs::rename(&new, &built).with_context(|| built.display().to_string())
    })?;
    Ok(built)
}

/// The folder where Go has the sources of Kubernetes, of the version that is built.
pub(super) fn kubernetes_source() -> anyhow::Result<PathBuf> {
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", KUBERNETES_MODULE]).current_dir(shell::root().join(KUBERNETES.module));
    let said = go.output().context("cannot run `go mod download`")?;
    let module: serde_json::Value = serde_json::from_slice(&said.stdout).context("what `go mod download` says")?;
    Ok(module["Dir"].as_str().context("Go does not say where the sources of Kubernetes are")?.into())
}

/// Builds helm, unless it is there.
pub(super) fn helm(folders: &Folders) -> anyhow::Result<PathBuf> {
    helm_as(folders, "helm")
}

fn helm_as(folders: &Folders, what: &str) -> anyhow::Result<PathBuf> {
    let mut go = Command::new("go");
    // Not in the checkout: a go.mod there would count.
    go.args(["install", "-trimpath", "-v", "-ldflags", "-s -w", HELM]).env("GOBIN", folders.build()).current_dir("/");
    let built = folders.program("helm");
    // How many packages it has is known once they are there.
    unless_built(&built, HELM, || run_go(what, go, || None))?;
    Ok(built)
}

/// The number of packages of a program: at most so many are compiled for it. `None`: Go does not say.
fn packages(module: &Path, package: &str) -> Option<usize> {
    let said = Command::new("go").args(["list", "-deps", package]).current_dir(module).output().ok()?;
    said.status.success().then(|| said.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count())
}

fn link_flags(program: &Program, module: &Path) -> anyhow::Result<String> {
    let mut flags = "-s -w".to_owned();
    if program.name == KUBERNETES.name {
        let version = version(&read(&module.join("go.mod"))?, KUBERNETES_MODULE)
            .with_context(|| format!("{}/go.mod does not require {KUBERNETES_MODULE}", module.display()))?;
        let mut numbers = version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        for (variable, value) in
            [("gitVersion", version.as_str()), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")]
        {
            flags.push_str(&format!(" -X k8s.io/component-base/version.{variable}={value}"));
        }
    }
    Ok(flags)
}

/// The version of a required module in the text of a go.mod.
fn version(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(module)).then(|| words.next().map(str::to_owned)).flatten()
    })
}

/// The inputs that decide what is built: the module's files and the command.
fn inputs(module: &Path, package: &str, flags: &str) -> anyhow::Result<String> {
    let mut text = format!("{package} {flags}\n");
    let package = module.join(package.trim_start_matches("./").trim_start_matches('.'));
    for folder in [module, &package] {
        let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        files.sort();
        for file in files {
            text.push_str(&read(&file)?);
        }
        if module == package {
            break;
        }
    }
    Ok(text)
}

/// Runs go, and says every few seconds how far it is of at most so many packages: not on stdout, which is of what was asked
/// for.
fn run_go(what: &str, mut go: Command, most: impl FnOnce() -> Option<usize>) -> anyhow::Result<()> {
    anyhow::ensure!(on_path("go"), "{what} is built from Go modules, and there is no `go`: install Go 1.26 or newer");
    eprintln!("building {what}");
    let of = most().map(|most| format!(" of at most {most}")).unwrap_or_default();
    let started = Instant::now();
    go.env("CGO_ENABLED", "0").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = go.spawn().context("cannot run go")?;
    let mut last = VecDeque::new();
    let (mut fetched, mut compiled, mut told) = (0_u32, 0_u32, started);
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            let line = line?;
            *if line.starts_with("go: ") { &mut fetched } else { &mut compiled } += 1;
            last.push_back(line);
            if last.len() > 30 {
                last.pop_front();
            }
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                eprintln!(
                    "  {what}: {fetched} modules fetched, {compiled}{of} packages compiled in {} s",
                    started.elapsed().as_secs()
                );
            }
        }
    }
    let status = child.wait()?;
    let output = last.into_iter().collect::<Vec<_>>().join("\n");
    anyhow::ensure!(status.success(), "{output}\ngo could not build {what} ({status})");
    eprintln!("  {what}: built in {} s", started.elapsed().as_secs());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_of_a_required_module() {
        let text = "module m\n\nrequire (\n\tk8s.io/kubectl v0.35.4\n\tk8s.io/kubernetes v1.35.4 // why\n)\n";
        assert_eq!(version(text, "k8s.io/kubernetes").as_deref(), Some("v1.35.4"));
        assert_eq!(version("require a/b v1.0.0\n", "a/b").as_deref(), Some("v1.0.0"));
        assert_eq!(version(text, "k8s.io/kube"), None);
    }

    #[test]
    fn every_module_of_kubernetes_has_the_same_version() {
        let go_mod = read(&shell::root().join(KUBERNETES.module).join("go.mod")).unwrap();
        let main = version(&go_mod, KUBERNETES_MODULE).unwrap();
        let staging = main.replacen("v1.", "v0.", 1);
        let replaced: Vec<_> = go_mod.lines().filter_map(|line| line.split_once(" => ")).collect();
        assert!(replaced.len() > 20, "{replaced:?}");
        for (_, by) in replaced {
            assert_eq!(by.split_whitespace().nth(1), Some(staging.as_str()), "{by}");
        }
    }
}
