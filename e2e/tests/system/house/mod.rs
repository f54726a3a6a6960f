//! The seams that later features are built on, each shown by a small one that stands on it.

mod external_auth;
mod gzip;
