//! Decisions of the scaler, and the signals that they come from.

/// A number of replicas, and why it is this one.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Replicas wanted.
    pub desired: u32,
    /// Replicas when it was decided.
    pub current: u32,
    /// The signal that decides, such as `RequestRate=131%`.
    pub driven_by: Option<String>,
    /// The reason for this number, in a sentence.
    pub reason: String,
    /// Each target: what was measured, and the replicas it asks for.
    pub signals: Vec<Signal>,
}

/// The measurement of one target.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    /// The target's type, such as `RequestRate`.
    pub target: String,
    /// Measured over target, in percent; `None`: no data.
    pub percent: Option<f64>,
    /// Measured value, in the target's unit (percent, requests/s per replica, ms).
    pub value: Option<f64>,
    /// Replicas that it asks for; `None`: no data, holds.
    pub replicas: Option<u32>,
}
