//! Logging: text for a terminal, JSON lines for anything else; `RUST_LOG` chooses what.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt};

/// The filter of the log when `RUST_LOG` is not set. kube warns at each attempt of a watch that fails; the source says
/// it once.
const FILTER: &str = "info,kube_runtime::watcher=error,kube_client::client=error,kube_client::client::builder=off";

/// Begins to log to standard error.
pub(crate) fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second call, in tests, changes nothing.
    let _ = match io::stderr().is_terminal() {
        true => builder.with_target(false).try_init(),
        false => builder.json().flatten_event(true).try_init(),
    };
}
