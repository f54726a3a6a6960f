//! A file of a manifest directory: whether it may be read now, and its content.

use std::{
    fs, io,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    time::{Duration, SystemTime},
};

/// Largest manifest file, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 16 << 20;
/// A file changed more recently than this may still be being written. Also covers the granularity of file times (at most
/// 10 ms): a file read at some time and changed within the same tick would look unchanged.
pub(super) const SETTLE_TIME: Duration = Duration::from_millis(15);

/// A writer that is silent for this long is not waited for: it keeps the file open, as a log's does.
const WRITER_PAUSE: Duration = Duration::from_secs(1);

/// While it stays, so does the content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// The outcome of reading a file.
pub(super) enum Reading {
    Text(Stamp, String),
    /// Changed while it was read.
    Torn,
    Failed(String),
}

/// How long until the file may be read; `None`: now.
pub(super) fn unsettled(meta: &fs::Metadata, busy_since: Option<&SystemTime>, now: SystemTime) -> Option<Duration> {
    let rest = |since: SystemTime, pause: Duration| {
        // A time in the future (another clock) tells nothing.
        now.duration_since(since).ok().and_then(|age| pause.checked_sub(age)).filter(|rest| !rest.is_zero())
    };
    let young = meta.modified().ok().and_then(|time| rest(time, SETTLE_TIME));
    let busy = busy_since.and_then(|since| rest(*since, WRITER_PAUSE));
    young.max(busy)
}

pub(super) fn read(path: &Path) -> Reading {
    let read = || -> io::Result<(Stamp, Option<Vec<u8>>)> {
        // Not to hang where a pipe has just taken the file's place.
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let mut file = fs::OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(io::Error::other("is no regular file any more"));
        }
        if before.len() > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("is larger than {} MiB: split it", MAX_FILE_BYTES >> 20)));
        }
        let mut bytes = vec![];
        (&mut file).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        let stamp = Stamp::of(&file.metadata()?);
        let whole = stamp == Stamp::of(&before) && bytes.len() as u64 == stamp.size;
        Ok((stamp, whole.then_some(bytes)))
    };
    match read() {
        Ok((_, None)) => Reading::Torn,
        Ok((stamp, Some(bytes))) => match String::from_utf8(bytes) {
            Ok(text) => Reading::Text(stamp, text),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = good.iter().filter(|b| **b == b'\n').count() + 1;
                Reading::Failed(format!("is not UTF-8 (line {line}); what it held last stays in force"))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Reading::Torn,
        Err(error) => Reading::Failed(format!("can't be read: {error}; what it held last stays in force")),
    }
}
