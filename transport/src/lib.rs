//! Connections between the programs of Sluice: TLS 1.3 with certificates of their own authority on both sides.
//!
//! Proxies dial operators so, and whichever programs speak to each other later will find here what that needs:
//!
//! - [`mtls`]: the configurations of both sides. [`connect`]: how one dials, step by step.
//! - [`accept`]: how the other takes connections, under bounds: so many in their handshake at once, each for so long, and who
//!   is let in then. [`connection`]: one that was let in, for as long as it may stay.
//! - [`slots`], [`keyed_limiter`]: bounds on connections in sum, which those who want some share, and of each one.

pub mod accept;
pub mod connect;
pub mod connection;
pub mod keyed_limiter;
pub mod mtls;
pub mod slots;
