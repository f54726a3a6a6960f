//! The last-good file: what ran last, so that a restarted proxy serves while the operator is away.
//!
//! Content: [`MAGIC`], the epoch (8 bytes, little-endian), the BLAKE3 hash of the rest, and the resources as one
//! encoded
//! `Put`. It holds private keys: mode 0600, and in a cluster the folder is memory-backed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use prost::Message;
use snapshot::{
    Delta, Entry, Hash, Key, Snapshot,
    proto::{Put, PutEntry},
    wire::{MAX_SNAPSHOT, Push},
};

const MAGIC: &[u8; 8] = b"SLUICE\x00\x01";

/// Name of the file within the state folder.
pub const FILE: &str = "last-good.bin";

/// Why there is nothing to start from.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file was cut or changed, or another version wrote it.
    #[error("{0}")]
    Damaged(&'static str),
}

/// Writes the file in the folder; readers see the former or the new content, whole.
pub fn save(folder: &Path, epoch: u64, held: &Snapshot) -> io::Result<()> {
    let size = |(key, entry): (&Key, &Entry)| key.as_str().len() + entry.bytes().len() + 16;
    let mut body = Vec::with_capacity(held.iter().map(size).sum());
    for (key, entry) in held.iter() {
        let entry = PutEntry { key: key.to_string(), resource: entry.bytes().clone() };
        // Messages one after the other are one message with the entries of all.
        body.extend(Put { entries: vec![entry] }.encode_to_vec());
    }
    let partial = folder.join(format!(".{FILE}.{}", std::process::id()));
    let write = || {
        // A file left by a killed process of the same number may have another mode.
        let _ = fs::remove_file(&partial);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(MAGIC)?;
        file.write_all(&epoch.to_le_bytes())?;
        file.write_all(Hash::of(&body).as_bytes())?;
        file.write_all(&body)?;
        file.sync_all()?;
        fs::rename(&partial, folder.join(FILE))
    };
    write().inspect_err(|_| drop(fs::remove_file(&partial)))
}

/// Reads the file as a push from nothing; `None`: there is none.
pub fn load(folder: &Path) -> Result<Option<Push>, LoadError> {
    let file = match File::open(folder.join(FILE)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    // Framing adds less than as much again.
    let limit = 2 * MAX_SNAPSHOT as u64;
    let mut bytes = vec![];
    io::Read::read_to_end(&mut io::Read::take(file, limit), &mut bytes)?;
    parse(&bytes).map(Some)
}

fn parse(bytes: &[u8]) -> Result<Push, LoadError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(LoadError::Damaged("not written by this version"))?;
    let (epoch, rest) = rest.split_first_chunk().ok_or(LoadError::Damaged("cut"))?;
    let (hash, body) = rest.split_first_chunk::<32>().ok_or(LoadError::Damaged("cut"))?;
    if Hash::of(body).as_bytes() != hash {
        return Err(LoadError::Damaged("its content does not have its hash"));
    }
    let put = Put::decode(bytes::Bytes::copy_from_slice(body)).map_err(|_| LoadError::Damaged("not decodable"))?;
    let mut held = Snapshot::default();
    for PutEntry { key, resource } in put.entries {
        let key: Key = key.parse().map_err(|_| LoadError::Damaged("holds a key that is none"))?;
        held.insert(key, Entry::encoded(resource));
    }
    let delta = Delta { puts: held.iter().map(|(k, e)| (k.clone(), e.clone())).collect(), deletes: vec![] };
    Ok(Push { epoch: u64::from_le_bytes(*epoch), base: None, revision: held.revision(), delta })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use snapshot::{
        Kind,
        proto::{Fleet, Resource, resource},
    };

    use super::*;

    fn held() -> Snapshot {
        let fleet = Fleet { min_drain_ms: 7, ..Fleet::default() };
        let entry = Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::Fleet(fleet)) });
        Snapshot::from_iter([(Key::new(Kind::Fleet, "a", "b"), entry)])
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(folder.path()).unwrap().is_none());
        save(folder.path(), 3, &Snapshot::default()).unwrap();
        save(folder.path(), 4, &held()).unwrap();
        let push = load(folder.path()).unwrap().unwrap();
        assert_eq!((push.epoch, push.base, push.revision), (4, None, held().revision()));
        assert_eq!(push.delta, held().diff(&Default::default()));
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file stays");
    }

    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), 4, &held()).unwrap();
        let good = fs::read(folder.path().join(FILE)).unwrap();
        parse(&good).unwrap();
        for cut in 0..good.len() {
            assert!(parse(&good[..cut]).is_err(), "cut at {cut}");
        }
        for at in (0..MAGIC.len()).chain(MAGIC.len() + 8..good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(parse(&bad).is_err(), "bit at {at}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = MAGIC.to_vec();
            framed.extend(&bytes);
            let _ = parse(&framed);
            let mut whole = MAGIC.to_vec();
            whole.extend(0u64.to_le_bytes());
            whole.extend(Hash::of(&bytes).as_bytes());
            whole.extend(&bytes);
            let _ = parse(&whole);
        }
    }
}
