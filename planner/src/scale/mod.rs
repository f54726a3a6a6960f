//! Samples → Signals → Decision(now): how many replicas a fleet should have.

use snapshot::proto::LoadWindow;

use crate::{Millis, fleet::FleetSettings};

/// What the scaler keeps of one fleet between turns: recent load by proxy, recent recommendations.
#[derive(Clone, Debug, Default)]
pub struct Scaler {}

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
    pub fn observe(&mut self, _proxy: &str, _window: &LoadWindow, _now: Millis) {}

    /// Forgets a proxy that is gone.
    pub fn forget(&mut self, _proxy: &str) {}

    /// Decides.
    pub fn decide(&mut self, _settings: &FleetSettings, observed: Observed, _now: Millis) -> Decision {
        Decision {
            desired: observed.current,
            current: observed.current,
            driven_by: None,
            reason: String::new(),
            signals: vec![],
        }
    }
}
