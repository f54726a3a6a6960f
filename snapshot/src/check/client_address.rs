//! What makes the reading of clients' addresses executable.

use ipnet::IpNet;

use super::{Fit, Unfit, reason};
use crate::proto::{ClientAddress, ClientAddressHeader};

/// Most proxies that are counted: each is an address to read.
const MAX_HOPS: u32 = 16;

pub(super) fn fit(c: &ClientAddress) -> Fit {
    if ClientAddressHeader::try_from(c.header).is_err() {
        return Err(Unfit::new("header", reason::INVALID_HEADER, "a field that this version does not know"));
    }
    if c.trusted_hops > MAX_HOPS {
        let message = format!("{} is above {MAX_HOPS}", c.trusted_hops);
        return Err(Unfit::new("trustedHops", reason::INVALID_LIMIT, message));
    }
    if (c.trusted_hops == 0) == c.trusted_cidrs.is_empty() {
        return Err(Unfit::new("trustedHops", reason::INVALID_LIMIT, "give either trustedHops or trustedCIDRs"));
    }
    for (i, cidr) in c.trusted_cidrs.iter().enumerate() {
        if cidr.parse::<IpNet>().is_err() {
            let message = format!("{cidr:?} is no network such as 10.0.0.0/8 or fd00::/8");
            return Err(Unfit::new(format!("trustedCIDRs[{i}]"), reason::INVALID_ADDRESS, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trust_and_one_field() {
        let of = |header, trusted_hops, cidrs: &[&str]| {
            let trusted_cidrs = cidrs.iter().map(|cidr| (*cidr).to_owned()).collect();
            fit(&ClientAddress { header, trusted_hops, trusted_cidrs }).map_err(|e| e.field)
        };
        assert_eq!([of(0, 1, &[]), of(1, 16, &[]), of(0, 0, &["10.0.0.0/8", "fd00::/8"])], [Ok(()), Ok(()), Ok(())]);
        for (header, hops, cidrs, field) in [
            (2, 1, &[][..], "header"),
            (0, 17, &[], "trustedHops"),
            (0, 0, &[], "trustedHops"),
            (0, 1, &["10.0.0.0/8"], "trustedHops"),
            (0, 0, &["10.0.0.0/8", "10.0.0.0/33"], "trustedCIDRs[1]"),
        ] {
            assert_eq!(of(header, hops, cidrs), Err(field.to_owned()));
        }
    }
}
