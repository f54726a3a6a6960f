//! The manifests of the quickstart: `examples/quickstart`, with other ports when asked for.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::shell;

/// The ports that the files in `examples/quickstart` name.
pub(super) const PORT: u16 = 8080;
pub(super) const UPSTREAM_PORT: u16 = 9001;

/// The ports of one quickstart.
pub(super) struct Ports {
    pub(super) gateway: u16,
    pub(super) upstream_a: u16,
    pub(super) upstream_b: u16,
}

impl Ports {
    pub(super) fn new(gateway: u16, upstream: u16) -> anyhow::Result<Ports> {
        let upstream_b = upstream.checked_add(1).context("--upstream-port: the port after it is needed too")?;
        anyhow::ensure!(gateway > 0 && upstream > 0, "port 0 is no port: choose one with --port and --upstream-port");
        Ok(Ports { gateway, upstream_a: upstream, upstream_b })
    }

    /// Every port with the flag that changes it.
    pub(super) fn all(&self) -> [(u16, &'static str); 3] {
        [(self.gateway, "--port"), (self.upstream_a, "--upstream-port"), (self.upstream_b, "--upstream-port")]
    }
}

/// The folder to serve: the example itself, so that edits are live, or a copy with the other ports.
pub(super) fn prepare(ports: &Ports, folder: &Path) -> anyhow::Result<PathBuf> {
    let example = shell::root().join("examples").join("quickstart");
    if (ports.gateway, ports.upstream_a) == (PORT, UPSTREAM_PORT) {
        return Ok(example);
    }
    let copy = folder.join("manifests");
    std::fs::create_dir(&copy)?;
    for entry in std::fs::read_dir(&example).with_context(|| example.display().to_string())? {
        let entry = entry?;
        let text = std::fs::read_to_string(entry.path())?;
        std::fs::write(copy.join(entry.file_name()), with_ports(&text, ports))?;
    }
    Ok(copy)
}

fn with_ports(text: &str, ports: &Ports) -> String {
    text.replace(&format!("port: {PORT}"), &format!("port: {}", ports.gateway))
        .replace(&format!("127.0.0.1:{}\"", UPSTREAM_PORT + 1), &format!("127.0.0.1:{}\"", ports.upstream_b))
        .replace(&format!("127.0.0.1:{UPSTREAM_PORT}\""), &format!("127.0.0.1:{}\"", ports.upstream_a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_names_the_ports_that_are_replaced() {
        let folder = shell::root().join("examples").join("quickstart");
        let text: String = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        let moved = with_ports(&text, &Ports::new(18080, 19001).unwrap());
        assert_eq!(moved.matches("port: 18080").count(), 1);
        assert!(moved.contains("\"127.0.0.1:19001\"") && moved.contains("\"127.0.0.1:19002\""));
        assert!(!moved.contains(":9001") && !moved.contains(":9002") && !moved.contains(": 8080"));
    }
}
