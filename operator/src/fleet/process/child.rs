//! A proxy process: started or adopted, watched and signalled through a pidfd, so that a recycled pid is never touched.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// A process.
#[derive(Debug)]
pub(super) struct Child {
    /// Its id.
    pub(super) pid: u32,
    /// When it began, in the kernel's ticks since boot: tells it from a later process with the same pid.
    pub(super) start_time: u64,
    /// When it began, or was adopted.
    pub(super) since: Instant,
    pub(super) pidfd: OwnedFd,
    /// To be reaped by us; an adopted one is not.
    own: Option<std::process::Child>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended(Option<ExitStatus>);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("ended"),
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "exited with code {code}"),
                (None, Some(signal)) => write!(f, "was killed by signal {signal}"),
                (None, None) => f.write_str("ended"),
            },
        }
    }
}

impl Child {
    /// Starts a program in a process group of its own: Ctrl-C at the terminal must reach the operator alone, and it
    /// survives the operator. Its output goes to a file.
    pub(super) fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        // Appending, it stays right where the file is cut while the process writes.
        let log = fs::OpenOptions::new().append(true).create(true).open(log)?;
        let own = command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let pid = own.id();
        // Not reaped yet, so the pid is its own.
        let (pidfd, start_time) = identify(pid)?;
        Ok(Self { pid, start_time, since: Instant::now(), pidfd, own: Some(own) })
    }

    /// Takes over a process that an earlier operator started; `None` when it is gone.
    pub(super) fn adopt(pid: u32, start_time: u64) -> Option<Self> {
        let (pidfd, found) = identify(pid).ok()?;
        let child = Self { pid, start_time, since: Instant::now(), pidfd, own: None };
        (found == start_time && !child.is_over()).then_some(child)
    }

    /// Takes over the process whose command line has this argument, whoever started it; `None`: there is none.
    pub(super) fn find(argument: &[u8]) -> Option<Self> {
        let has = |pid: u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == argument)
        };
        let names = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.file_name());
        let mut pids = names.filter_map(|name| name.to_str()?.parse().ok());
        pids.find_map(|pid| {
            let (_, start_time) = has(pid).then(|| identify(pid).ok()).flatten()?;
            // The pid is now tied to this process: was it the one that was looked at?
            Self::adopt(pid, start_time).filter(|_| has(pid))
        })
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        if !self.is_over() {
            return None;
        }
        Some(Ended(self.own.as_mut().and_then(|own| own.try_wait().ok().flatten())))
    }

    /// A pidfd is readable once its process has ended.
    fn is_over(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
    }

    /// Sends a signal; one that has ended needs none.
    pub(super) fn signal(&self, signal: Signal) {
        match pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::error!(pid = self.pid, %error, "can't signal a proxy"),
        }
    }
}

fn identify(pid: u32) -> io::Result<(OwnedFd, u64)> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
    // The name in parentheses may hold anything, so count fields from its end: the start time is the 22nd of all.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let start_time = fields.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok());
    Ok((pidfd, start_time.ok_or(io::ErrorKind::InvalidData)?))
}
