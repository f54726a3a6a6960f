//! Notices at once when a process ends: one thread waits on the pidfds of all.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::event::epoll;

/// Called when some process has ended; which, the next look at them tells.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// The pidfds that are waited on.
#[derive(Debug)]
pub(super) struct Ends {
    epoll: Arc<OwnedFd>,
}

impl Ends {
    /// Starts the thread; it lasts as long as this process.
    pub(super) fn new(wake: Wake) -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let waited = Arc::clone(&epoll);
        std::thread::Builder::new().name("ends".into()).spawn(move || {
            let mut events = Vec::with_capacity(16);
            loop {
                events.clear();
                match epoll::wait(&waited, rustix::buffer::spare_capacity(&mut events), None) {
                    Ok(_) => wake(),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => {
                        tracing::error!(%error, "ends of proxies are noticed late from now on");
                        return;
                    }
                }
            }
        })?;
        Ok(Self { epoll })
    }

    /// Wakes once when this process has ended. The pidfd leaves when it is closed.
    pub(super) fn watch(&self, pidfd: impl AsFd) {
        let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        if let Err(error) = epoll::add(&self.epoll, pidfd, epoll::EventData::new_u64(0), once) {
            // Then a later look at it tells.
            tracing::warn!(%error, "can't watch a proxy");
        }
    }
}
