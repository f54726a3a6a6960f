//! The state folder: what outlives an operator process. One operator at a time holds it.
//!
//! ```text
//!  lock            held by the running operator, with its pid
//!  epoch           one more for each operator that ran here
//!  operator.json   pid and admin address of the running operator
//!  control.sock    where proxies attach
//!  sockets.sock    where proxies take listening sockets
//!  objects/        generation and last accepted content of each object    objects.rs
//!  rollbacks.json  what proxies refused                                   rollbacks.rs
//!  hostnames.json  who has a hostname, where age does not say it          hostnames.rs
//!  status/         each custom resource with its status                   (`sluice-operator get` reads it)
//!  proxies/        record, log and last-good snapshot of each proxy process
//! ```

pub mod certificates;
pub mod configmap;
pub mod file;
pub mod hostnames;
mod kept_object;
pub mod mirror;
pub mod objects;
pub mod persisted;
pub mod rollbacks;
pub mod store;

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use planner::ObjectRef;
use snapshot::Hash;

/// Why a state folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Something in it can't be read or written.
    #[error("state folder: {0}: {1}")]
    Io(PathBuf, io::Error),
    /// Another operator holds it.
    #[error(
        "another operator (pid {pid}) runs on the state folder {dir}: stop it, or give this one another --state-dir"
    )]
    Locked {
        /// The holder.
        pid: String,
        /// The folder.
        dir: PathBuf,
    },
    /// Socket paths have at most 107 bytes.
    #[error(
        "the path of the state folder {0} is too long for the sockets in it ({1} bytes at most): give a shorter --state-dir"
    )]
    TooLong(PathBuf, usize),
    /// The epoch file holds no number.
    #[error("state folder: {0} holds no number; remove the whole folder to begin anew")]
    BadEpoch(PathBuf),
    /// No default folder for state can be derived.
    #[error("neither XDG_STATE_HOME nor HOME is set: give --state-dir")]
    NoHome,
}

/// The state folder, locked by this process until dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Number of this operator among those that ran here.
    pub epoch: u64,
    _lock: File,
}

/// Longest path of the folder: `/proxies/NAME/handover.sock` and a proxy's name of 63 bytes follow, 107 in all, but
/// short names are the rule, so the first such path that is too long reports itself.
const MAX_PATH_BYTES: usize = 107 - "/proxies/default-00/handover.sock".len();

impl StateDir {
    /// Creates the folder when it is missing, locks it, and counts the epoch up.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| StateError::Io(path, error)
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))?;
        let path = &path.canonicalize().map_err(at(path))?;
        // Whoever may open the sockets in it may read certificates and push configuration.
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(at(path))?;
        if path.as_os_str().len() > MAX_PATH_BYTES {
            return Err(StateError::TooLong(path.clone(), MAX_PATH_BYTES));
        }
        let lock = lock(path)?;
        let file = path.join("epoch");
        let former = match fs::read_to_string(&file) {
            Ok(text) => text.trim().parse::<u64>().map_err(|_| StateError::BadEpoch(file.clone()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(StateError::Io(file, error)),
        };
        let epoch = former + 1;
        file::write_durably(&file, format!("{epoch}\n").as_bytes()).map_err(at(&file))?;
        Ok(Self { path: path.clone(), epoch, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where proxies attach.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Where proxies take listening sockets.
    pub fn sockets_socket(&self) -> PathBuf {
        self.path.join("sockets.sock")
    }

    /// Everything about proxy processes.
    pub fn proxies(&self) -> PathBuf {
        self.path.join("proxies")
    }

    /// Says where the running operator is found.
    pub fn announce(&self, admin: &str) -> Result<(), StateError> {
        let file = self.path.join("operator.json");
        let text = serde_json::json!({"pid": std::process::id(), "admin": admin, "epoch": self.epoch}).to_string();
        file::write(&file, text.as_bytes()).map_err(|error| StateError::Io(file, error))
    }

    /// Removes what only a running operator has. Nothing to do about failures: the next operator replaces all of it.
    pub fn leave(&self) {
        for file in [self.path.join("operator.json"), self.control_socket(), self.sockets_socket()] {
            let _ = fs::remove_file(file);
        }
    }
}

fn lock(path: &Path) -> Result<File, StateError> {
    let file = path.join("lock");
    let at = |error| StateError::Io(file.clone(), error);
    let mut lock =
        File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&file).map_err(at)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = lock.read_to_string(&mut pid);
            return Err(StateError::Locked { pid: pid.trim().to_owned(), dir: path.to_owned() });
        }
        Err(TryLockError::Error(error)) => return Err(at(error)),
    }
    let write = |lock: &mut File| {
        lock.set_len(0)?;
        lock.rewind()?;
        write!(lock, "{}", std::process::id())
    };
    write(&mut lock).map_err(at)?;
    Ok(lock)
}

/// Whether an operator runs on the folder.
pub fn is_held(path: &Path) -> bool {
    File::open(path.join("lock")).is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The folder when `--state-dir` is not given: one for each manifest directory.
pub fn default_dir(manifests: &Path) -> Result<PathBuf, StateError> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    let manifests = manifests.canonicalize().unwrap_or_else(|_| manifests.to_owned());
    let mut name = Hash::of(manifests.as_os_str().as_encoded_bytes()).to_string();
    name.truncate(12);
    Ok(base.ok_or(StateError::NoHome)?.join("sluice").join(name))
}

/// `KIND/NAMESPACE/NAME.json` of an object. Names come from manifests that may be broken, so what is not usual in a
/// name is encoded: no path leads out of the folder.
pub fn object_path(id: &ObjectRef) -> PathBuf {
    [id.kind.plural(), &encode(&id.namespace), &format!("{}.json", encode(&id.name))].iter().collect()
}

fn encode(name: &str) -> String {
    let plain = |(i, c): (usize, char)| c.is_ascii_alphanumeric() || c == '-' || c == '_' || (c == '.' && i > 0);
    if (1..=200).contains(&name.len()) && name.char_indices().all(plain) {
        return name.to_owned();
    }
    // A hash cannot be told from a name by its form, so it begins with what no name has.
    format!("%{}", Hash::of(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operator_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = StateDir::open(&path).unwrap();
        assert_eq!(first.epoch, 1);
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(is_held(&path));
        drop(first);
        assert!(!is_held(&path));
        assert_eq!(StateDir::open(&path).unwrap().epoch, 2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let path = |namespace: &str, name: &str| {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            object_path(&ObjectRef { kind: planner::Kind::ApiRoute, namespace, name })
        };
        assert_eq!(path("shop", "a.b-c"), Path::new("apiroutes/shop/a.b-c.json"));
        for bad in ["..", "../x", "/etc", "", ".hidden", "é", &"x".repeat(300)] {
            let path = path(bad, "a");
            let parts: Vec<_> = path.iter().collect();
            assert!(parts.len() == 3 && parts[1].len() < 100, "{path:?}");
            assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))), "{path:?}");
        }
    }
}
