//! Credentials of consumers. Only digests of them leave the operator: whoever reads a snapshot can't call as anybody.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

/// Longest API key, in bytes.
pub const MAX_API_KEY: usize = 4096;

/// SHA-256 of an API key, which has enough entropy of its own. (A password has not: it needs a salt and a costly hash.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of an API key, as a request brings it.
    pub fn of_api_key(key: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(bytes)
    }

    /// The digest that stands in a resource; `None` unless it has 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes of it, as they stand in a resource.
    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

/// Nothing of it: who sees digests can try keys that people chose.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<digest>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha_256_and_prints_as_nothing() {
        let digest = Digest::of_api_key(b"abc");
        // FIPS 180-4's example.
        assert_eq!(digest.to_bytes()[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(Digest::from_slice(&digest.to_bytes()), Some(digest));
        assert_eq!(Digest::from_slice(b"short"), None);
        assert_eq!(format!("{digest:?}"), "<digest>");
    }
}
