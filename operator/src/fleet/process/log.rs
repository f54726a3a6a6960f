//! The log of a proxy is bounded: above some size it is copied to `NAME.log.1` and cut, under a process that goes on
//! appending to it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A log that is larger is cut. Between two looks it can grow by what the proxy writes in that time.
const MAX_LOG_BYTES: u64 = 16 << 20;
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Watches the size of one log.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    looked: Option<Instant>,
    /// Copies, which may take a while: the loop does not wait for it.
    running: Option<JoinHandle<()>>,
}

impl Rotation {
    /// Cuts the log if it is due.
    pub(super) fn look(&mut self, log: &Path, now: Instant) {
        if self.looked.is_some_and(|last| now.duration_since(last) < CHECK_INTERVAL)
            || self.running.as_ref().is_some_and(|running| !running.is_finished())
        {
            return;
        }
        self.looked = Some(now);
        if fs::metadata(log).is_ok_and(|meta| meta.len() > MAX_LOG_BYTES) {
            let log = log.to_owned();
            let cut = move || {
                if let Err(error) = cut(&log) {
                    tracing::error!(path = %log.display(), %error, "the log of a proxy can't be cut");
                }
            };
            self.running = std::thread::Builder::new().name("log".into()).spawn(cut).ok();
        }
    }
}

/// Lines written between the two steps are lost: better than a full disk, and rare.
fn cut(log: &Path) -> io::Result<()> {
    let mut former = PathBuf::from(log);
    former.as_mut_os_string().push(".1");
    let copied = fs::copy(log, former);
    // Cut even where there is no room for a copy: that is when it matters most.
    fs::OpenOptions::new().write(true).open(log)?.set_len(0)?;
    copied.map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_log_is_cut_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (log, former) = (dir.path().join("f-0.log"), dir.path().join("f-0.log.1"));
        let mut writer = fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        let (mut rotation, start) = (Rotation::default(), Instant::now());
        let mut look = |seconds| {
            rotation.look(&log, start + Duration::from_secs(seconds));
            if let Some(running) = rotation.running.take() {
                running.join().unwrap();
            }
            fs::metadata(&log).unwrap().len()
        };
        writer.write_all(b"first\n").unwrap();
        assert_eq!((look(0), former.exists()), (6, false));
        writer.write_all(&vec![b'x'; MAX_LOG_BYTES as usize]).unwrap();
        assert_eq!(look(1), 0);
        assert_eq!(fs::metadata(&former).unwrap().len(), MAX_LOG_BYTES + 6);
        writer.write_all(b"next\n").unwrap();
        assert_eq!(look(2), 5, "it goes on at the start, without a hole");
    }
}
