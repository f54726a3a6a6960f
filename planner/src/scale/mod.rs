//! Samples → Signals → Decision(now): how many replicas a fleet should have. See `README.md` beside this file.
//!
//! ```text
//!  LoadWindow ──observe──► windows.rs ──► signals.rs ──► decide.rs ──► limits.rs ──► Decision
//!  of each proxy           last 5 min     value of        replicas      behavior,
//!                                         each target     it asks for   min and max
//! ```

mod decide;
mod limits;
mod recall;
mod signals;
mod windows;

use snapshot::proto::LoadWindow;

use self::{limits::History, windows::Windows};
use crate::{Millis, fleet::FleetSettings};

/// What the scaler keeps of one fleet between turns: recent load by proxy, recent recommendations.
#[derive(Clone, Debug, Default)]
pub struct Scaler {
    windows: Windows,
    history: History,
    /// First decision: for a while after it nothing shrinks, since not everything has reported yet.
    began: Option<Millis>,
    /// What was last wanted. A proxy that crashes doesn't change it.
    wanted: Option<u32>,
    /// Since when every proxy that is wanted is there and Ready.
    settled_since: Option<Millis>,
}

/// What was decided, and why.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Replicas wanted.
    pub desired: u32,
    /// Replicas when it was decided.
    pub current: u32,
    /// The signal that decides, such as `RequestRate=131%`.
    pub driven_by: Option<String>,
    /// Why it is this number, in a sentence.
    pub reason: String,
    /// Each target: what was measured, and the replicas it asks for.
    pub signals: Vec<Signal>,
}

/// One target's measurement.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    /// The target's type, such as `RequestRate`.
    pub target: String,
    /// Measured over target, in percent; `None`: no data.
    pub percent: Option<f64>,
    /// Measured value, in the target's unit (percent, requests/s per replica, ms).
    pub value: Option<f64>,
    /// Replicas it asks for; `None`: no data, holds.
    pub replicas: Option<u32>,
}

/// Replicas as observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Proxies that exist and do not drain.
    pub current: u32,
    /// Of these, Ready.
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
