//! Samples → Signals → Decision(now): how many replicas a fleet should have. See `README.md` beside this file.
//!
//! ```text
//!  LoadWindow ──observe──► windows.rs ──► signals.rs ──► decide.rs ──► limits.rs ──► Decision
//!  of each proxy           last 5 min     value of        replicas      behavior,
//!                                         each target     it asks for   min and max
//! ```

mod decide;
mod decision;
mod limits;
mod recall;
mod signals;
mod windows;

use snapshot::proto::LoadWindow;

pub use self::decision::{Decision, Signal};
use self::{limits::History, windows::Windows};
use crate::{Millis, fleet::FleetSettings};

/// The scaler of one fleet: recent load by proxy, recent recommendations.
#[derive(Clone, Debug, Default)]
pub struct Scaler {
    windows: Windows,
    history: History,
    /// First decision: for a while after it nothing shrinks, since not everything has reported yet.
    began: Option<Millis>,
    /// The number last wanted. A proxy that crashes doesn't change it.
    wanted: Option<u32>,
    /// The time since which every proxy that is wanted is there and Ready.
    settled_since: Option<Millis>,
}

/// Replicas as observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Proxies that exist and do not drain.
    pub current: u32,
    /// The Ready ones among them.
    pub ready: u32,
}

impl Scaler {
    /// Takes up one load window of one proxy.
    pub fn observe(&mut self, proxy: &str, window: &LoadWindow, now: Millis) {
        self.windows.push(proxy, window, now);
    }

    /// Forgets a proxy that is gone.
    pub fn forget(&mut self, proxy: &str) {
        self.windows.forget(proxy);
    }

    /// Requests per second of a proxy lately, admitted and shed for capacity; `None` when it did not report or drains.
    pub fn rate(&self, proxy: &str, now: Millis) -> Option<f64> {
        self.windows.recent(proxy, now).map(|recent| recent.requests / recent.seconds)
    }

    /// Decides.
    pub fn decide(&mut self, settings: &FleetSettings, observed: Observed, now: Millis) -> Decision {
        decide::decide(self, settings, observed, now)
    }
}

#[cfg(test)]
mod tests;
