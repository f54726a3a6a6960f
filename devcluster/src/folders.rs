//! Folders on the machine: what was built outlives the cluster, the cluster's state does not.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{files::create, shell};

/// The folders, all below one that is neither in the checkout nor of the system.
pub struct Folders {
    cache: PathBuf,
}

impl Folders {
    /// `$XDG_CACHE_HOME/sluice`, or `~/.cache/sluice`.
    pub fn of_user() -> anyhow::Result<Folders> {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
            .ok_or_else(|| {
                anyhow::anyhow!("neither XDG_CACHE_HOME nor HOME is set: one must say where to keep things")
            })?;
        Ok(Folders::at(&cache.join("sluice")))
    }

    pub(super) fn at(cache: &Path) -> Folders {
        Folders { cache: cache.to_owned() }
    }

    /// Waits until no other command changes the cluster, or whatever `what` is; others wait until the file is closed.
    pub fn lock(&self, what: &str) -> anyhow::Result<File> {
        create(&self.cache)?;
        let path = self.cache.join(format!("{what}.lock"));
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                println!("waiting for another command that holds {}", path.display());
                flock(&file, FlockOperation::LockExclusive)?;
            }
            other => other?,
        }
        Ok(file)
    }

    /// The folder that all others are in.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Programs and image archives.
    pub(super) fn build(&self) -> PathBuf {
        self.cache.join("build")
    }

    /// A program that was built.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.build().join(name)
    }

    /// The commands that a shell finds by `cargo xtask cluster env`.
    pub(super) fn commands(&self) -> PathBuf {
        self.cache.join("commands")
    }

    /// The archive of an image that was built.
    pub fn archive(&self, name: &str) -> PathBuf {
        self.build().join(format!("{name}.image.tar"))
    }

    /// All that one cluster has: gone after `down`.
    pub(super) fn state(&self) -> PathBuf {
        self.cache.join("cluster")
    }

    /// The folder of what the components write: one file for each.
    pub(super) fn logs(&self) -> PathBuf {
        self.state().join("logs")
    }

    pub(super) fn pki(&self) -> PathBuf {
        self.state().join("pki")
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.pki().join("admin.kubeconfig")
    }
}

/// The committed half of a node of our own.
pub(super) fn sources() -> PathBuf {
    shell::root().join("devcluster/node")
}
