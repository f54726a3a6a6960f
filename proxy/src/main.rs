//! `sluice-proxy`: one proxy of a fleet.

fn main() {}
