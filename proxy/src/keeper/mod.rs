//! The keeper: in a container the process that starts the proxy as its child, holds copies of its listening sockets,
//! and starts it again when it crashes (`sluice-proxy --keep`).
//!
//! ```text
//!  keeper (first process of the container; one thread, no runtime)
//!    ├ held_sockets.rs: a copy of each listening socket of the proxy
//!    ├ restarts.rs: how often a proxy may crash
//!    └ proxy (`--kept N`), whose stdin is a socket to the keeper (kept.rs): keep these, forget that port, what is there?
//! ```
//!
//! A socket listens for as long as any process holds it. So nobody is refused while a proxy that crashed starts again:
//! what comes meanwhile waits in the accept queues that the new process takes over. A port that the proxy closes is
//! forgotten first, since nobody would accept what waits there.
//!
//! A proxy that crashes again and again is not hidden: the keeper ends as the proxy did, and whoever started it sees
//! that. Nor is one that listened nowhere: nobody waits for it. The proxy dies with its keeper, so that there are never
//! two.

mod held_sockets;
mod kept;
mod restarts;

use std::{
    io::{self, Read},
    os::unix::{net::UnixStream, process::CommandExt as _},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait},
};
use signal_hook::{
    consts::{SIGCHLD, SIGINT, SIGTERM},
    low_level::pipe,
};
use snapshot::handover;

pub use self::kept::Kept;
use self::{held_sockets::HeldSockets, restarts::Restarts};
use crate::fd_limit;

/// The option that makes a process the keeper; its child gets all others.
pub const KEEP: &str = "--keep";
/// The option by which a keeper tells its child how often it was started again.
pub const KEPT: &str = "--kept";

/// A proxy that is alive and has ended the socket to its keeper keeps nothing any more. One that dies ends it a moment
/// before it is dead.
const DYING_TIME: Duration = Duration::from_secs(1);

/// Runs this program as a child, with the same arguments but for [`KEEP`], until it ends for good; gives its exit code,
/// or 128 and the signal that ended it.
pub fn run() -> anyhow::Result<ExitCode> {
    // As many as the proxy has are held here too.
    fd_limit::limit();
    let signals = Signals::listen().context("signals can't be received")?;
    let mut keeper = Keeper { signals, store: HeldSockets::default(), restarts: Restarts::default(), is_ending: false };
    loop {
        let started = Instant::now();
        let child = Child::start(keeper.restarts.count()).context("the proxy can't be started")?;
        let status = keeper.attend(&child).context("the proxy can't be waited for")?;
        let (code, signal) = (status.exit_status(), status.terminating_signal());
        let exit = ExitCode::from(u8::try_from(code.unwrap_or_else(|| 128 + signal.unwrap_or(0))).unwrap_or(u8::MAX));
        if keeper.is_ending || code == Some(0) {
            return Ok(exit);
        }
        let (ran, ports) = (started.elapsed(), keeper.store.ports());
        if ports == 0 || !keeper.restarts.allow(Instant::now()) {
            tracing::error!(code, signal, ?ran, ports, "the proxy crashed, and is not started again here");
            return Ok(exit);
        }
        let restarts = keeper.restarts.count();
        tracing::warn!(
            code,
            signal,
            ?ran,
            ports,
            restarts,
            "the proxy crashed: it is started again, its ports stay open"
        );
    }
}

struct Keeper {
    signals: Signals,
    store: HeldSockets,
    restarts: Restarts,
    /// Whether the proxy was asked to end.
    is_ending: bool,
}

/// A proxy, and the socket to it.
struct Child {
    pid: Pid,
    socket: UnixStream,
}

impl Child {
    fn start(restarts: u64) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(handover::TIMEOUT))?;
        socket.set_write_timeout(Some(handover::TIMEOUT))?;
        let mut is_first = true;
        let others = std::env::args_os().skip(1).filter(|arg| !(arg == KEEP && std::mem::take(&mut is_first)));
        // Its own process group: Ctrl-C at a terminal reaches the keeper alone, which tells the proxy.
        let child = Command::new(std::env::current_exe()?)
            .args(others)
            .args([KEPT, &restarts.to_string()])
            .stdin(std::os::fd::OwnedFd::from(theirs))
            .process_group(0)
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, socket })
    }
}

impl Keeper {
    /// Keeps what the proxy wants kept and passes signals on, until it is dead.
    fn attend(&mut self, child: &Child) -> io::Result<WaitStatus> {
        let mut ended: Option<Instant> = None;
        loop {
            let dies = ended.filter(|_| self.store.ports() > 0);
            let wait = dies.map(|at| DYING_TIME.saturating_sub(at.elapsed()));
            let [signalled, asked] =
                readable([Some(&self.signals.any), ended.is_none().then_some(&child.socket)], wait)?;
            if asked && self.store.answer(&child.socket).is_err() {
                ended = Some(Instant::now());
            }
            if dies.is_some_and(|at| at.elapsed() >= DYING_TIME) && !signalled {
                tracing::warn!("the proxy has ended the socket to its keeper: its ports are not kept");
                self.store.clear();
            }
            if !signalled {
                continue;
            }
            for signal in self.signals.take() {
                self.is_ending = true;
                // It is not reaped yet, so the id is its own. One that has just ended needs no signal.
                let _ = kill_process(child.pid, signal);
            }
            if let Some(status) = reap(child.pid)? {
                // What it said last counts.
                while readable([Some(&child.socket)], Some(Duration::ZERO))? == [true]
                    && self.store.answer(&child.socket).is_ok()
                {}
                return Ok(status);
            }
        }
    }
}

/// Takes the status of all children that have ended: the first process of a container has those of others too. Gives
/// that of the proxy.
fn reap(proxy: Pid) -> io::Result<Option<WaitStatus>> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == proxy => found = Some(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(found),
            Err(Errno::CHILD) if found.is_some() => return Ok(found),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Waits until one of the sockets can be read from, or so long.
fn readable<const N: usize>(sockets: [Option<&UnixStream>; N], wait: Option<Duration>) -> io::Result<[bool; N]> {
    let mut fds: Vec<PollFd<'_>> = sockets.iter().flatten().map(|socket| PollFd::new(*socket, PollFlags::IN)).collect();
    let wait = wait.map(|wait| Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() });
    match poll(&mut fds, wait.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let mut fds = fds.iter();
    Ok(sockets.map(|socket| socket.and_then(|_| fds.next()).is_some_and(|fd| !fd.revents().is_empty())))
}

/// Signals that came, which a byte each tells of.
struct Signals {
    /// Readable as soon as there is one.
    any: UnixStream,
    terminate: UnixStream,
    interrupt: UnixStream,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let (any, wakes) = UnixStream::pair()?;
        any.set_nonblocking(true)?;
        let of = |signal| {
            let (counted, counts) = UnixStream::pair()?;
            counted.set_nonblocking(true)?;
            // In this order: by the time that it is woken, it is counted.
            pipe::register(signal, counts)?;
            pipe::register(signal, wakes.try_clone()?)?;
            io::Result::Ok(counted)
        };
        let (terminate, interrupt) = (of(SIGTERM)?, of(SIGINT)?);
        pipe::register(SIGCHLD, wakes)?;
        Ok(Self { any, terminate, interrupt })
    }

    /// The signals to be passed on, each as often as it came.
    fn take(&mut self) -> Vec<Signal> {
        count(&mut self.any);
        let mut signals = vec![Signal::TERM; count(&mut self.terminate)];
        signals.extend(vec![Signal::INT; count(&mut self.interrupt)]);
        signals
    }
}

/// The number of bytes that wait in a socket, which are taken.
fn count(socket: &mut UnixStream) -> usize {
    let (mut sum, mut buffer) = (0, [0; 64]);
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        sum += count;
    }
    sum
}
