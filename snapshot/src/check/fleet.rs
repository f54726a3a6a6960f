//! What makes a fleet's settings executable.

use super::{
    client_address,
    hostname::hostname,
    reason,
    unfit::{Fit, Unfit, within},
};
use crate::proto::Fleet;

/// What the proxy's buffers, its HTTP library and RFC 9113 section 6.9.2 hold at most.
pub(super) fn fit(f: &Fleet) -> Fit {
    let limits = f.limits.unwrap_or_default();
    for (field, value, most) in [
        ("headerBytes", limits.header_bytes, 16 << 20),
        ("headerFields", limits.header_fields, 10_000),
        ("targetBytes", limits.target_bytes, 65_534),
        ("descriptorsPerClientPercent", limits.descriptors_per_client_percent, 100),
        ("http2.concurrentStreams", limits.http2_concurrent_streams, 10_000),
        ("http2.streamWindowBytes", limits.http2_stream_window_bytes, (1 << 31) - 1),
        ("http2.connectionWindowBytes", limits.http2_connection_window_bytes, (1 << 31) - 1),
    ] {
        if value > most {
            let message = format!("{value} is above {most}");
            return Err(Unfit::new(format!("limits.{field}"), reason::INVALID_LIMIT, message));
        }
    }
    for (i, held) in f.held.iter().enumerate() {
        for (j, name) in held.hostnames.iter().enumerate() {
            hostname(format_args!("held[{i}].hostnames[{j}]"), name, true)?;
        }
    }
    f.client_address.iter().try_for_each(|address| within("clientAddress", client_address::fit(address)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check,
        key::{Key, Kind},
        proto::{ClientAddress, Limits, Resource, resource},
    };

    #[test]
    fn bounds_are_within_what_a_proxy_can_hold() {
        let verdict = |limits| {
            let fleet = Fleet { limits: Some(limits), ..Fleet::default() };
            let kind = Some(resource::Kind::Fleet(fleet));
            check::resource(&Key::new(Kind::Fleet, "a", "b"), &Resource { requires: vec![], kind })
        };
        assert_eq!(verdict(Limits::default()), Ok(()));
        let most = Limits { target_bytes: 65_534, http2_stream_window_bytes: (1 << 31) - 1, ..Limits::default() };
        assert_eq!(verdict(most), Ok(()));
        let unfit = verdict(Limits { http2_stream_window_bytes: 1 << 31, ..most }).unwrap_err();
        assert_eq!((unfit.field.as_str(), unfit.reason), ("limits.http2.streamWindowBytes", "InvalidLimit"));
        let unfit = verdict(Limits { target_bytes: 65_535, ..most }).unwrap_err();
        assert_eq!(unfit.to_string(), "limits.targetBytes: 65535 is above 65534");
    }

    #[test]
    fn what_is_wrong_with_clients_addresses_is_named() {
        let address = ClientAddress { trusted_cidrs: vec!["10.0.0.0".into()], ..ClientAddress::default() };
        let unfit = fit(&Fleet { client_address: Some(address), ..Fleet::default() }).unwrap_err();
        assert_eq!((unfit.field.as_str(), unfit.reason), ("clientAddress.trustedCIDRs[0]", "InvalidAddress"));
    }
}
