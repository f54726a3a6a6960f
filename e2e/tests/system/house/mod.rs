//! The seams that later features are built on, each held by the first thing that was built on it.

mod consumer;
mod external_auth;
mod gzip;
