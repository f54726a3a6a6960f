//! Kubernetes Events: [`changes`] finds what differs from before, [`recorder`] writes it, under bounds.

pub mod changes;
pub mod recorder;
