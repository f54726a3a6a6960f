//! README, section "On Kubernetes", typed as it stands there, and what it says would be printed.
