//! File descriptors: how many this process may have, and those of them that are kept for what must always work.
//!
//! Clients decide how many connections there are, so that they are what runs out first: accepting pauses while there is
//! no room (`connection/limit.rs`), and what waits is accepted once others have closed.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    sync::OnceLock,
};

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Kept for the admin and the metrics port with their probes, the control stream, files and handing over sockets.
pub(crate) const RESERVED: usize = 64;

/// The number of descriptors that this process may have. The first call raises it to what the system allows: what a
/// shell or a service manager sets by default is meant for programs that use `select`.
pub(crate) fn limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let current = if raised.is_ok() { maximum } else { current };
        current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
    })
}

/// Whether this descriptor is one of the last, which are kept: the system gives out the lowest that is free.
pub(crate) fn is_kept(descriptor: &impl AsRawFd) -> bool {
    usize::try_from(descriptor.as_raw_fd()).is_ok_and(|number| number >= limit().saturating_sub(RESERVED))
}

/// Whether the next one would be. `any` is an open one.
pub(crate) fn are_scarce(any: &impl AsFd) -> bool {
    any.as_fd().try_clone_to_owned().map_or(true, |next| is_kept(&next))
}

/// Whether there was none left.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::RawFd};

    use super::*;

    #[test]
    fn the_last_are_kept() {
        struct Number(usize);
        impl AsRawFd for Number {
            fn as_raw_fd(&self) -> RawFd {
                self.0.try_into().unwrap_or(RawFd::MAX)
            }
        }
        let limit = limit();
        assert!(
            !is_kept(&Number(limit - RESERVED - 1))
                && is_kept(&Number(limit - RESERVED))
                && is_kept(&Number(limit - 1))
        );
        assert!(!are_scarce(&File::open("/dev/null").unwrap()));
        assert!(is_exhausted(&io::Error::from_raw_os_error(Errno::MFILE.raw_os_error())));
        assert!(!is_exhausted(&io::ErrorKind::ConnectionRefused.into()));
    }
}
