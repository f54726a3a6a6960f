//! The parts that all X.509 certificates of the control channel share: dates, their serial numbers, and PEM.

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, SerialNumber, date_time_ymd};
use rustls::crypto::aws_lc_rs;

/// Certificates begin this much before they are made: clocks differ.
pub(super) const BACKDATED: SignedDuration = SignedDuration::from_mins(5);
/// Dates outside of 1970 to 3000 are no dates of ours, and arithmetic with them could overflow.
const MAX_UNIX_SECONDS: i64 = 32_503_680_000;

/// Valid from a little before `from`.
pub(super) fn set_validity(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let date = |at: Timestamp| {
        let second = at.as_second().clamp(0, MAX_UNIX_SECONDS).unsigned_abs();
        date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(second)
    };
    params.not_before = date(from - BACKDATED);
    params.not_after = date(until);
}

/// A random serial number of 127 bits.
pub(super) fn serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0; 16];
    let random = aws_lc_rs::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    // Positive, as it has to be, and of full length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A date in a certificate.
pub(super) fn time(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok().filter(|_| (0..=MAX_UNIX_SECONDS).contains(&second))
}

/// Certificates know whole seconds only.
pub(super) fn whole_second(at: Timestamp) -> Timestamp {
    time(at.as_second()).unwrap_or(at)
}

/// A section of PEM.
pub(super) fn pem(tag: &str, der: &[u8]) -> String {
    let line_ending = pem::LineEnding::LF;
    pem::encode_config(&pem::Pem::new(tag, der), pem::EncodeConfig::new().set_line_ending(line_ending))
}
