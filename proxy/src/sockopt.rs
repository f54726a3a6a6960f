//! Options that sockets of clients and of upstreams have in common.

use std::time::Duration;

use socket2::TcpKeepalive;

/// A peer that is gone without a FIN is noticed within two minutes.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4)
}
