//! Fields that hold a digest of the content as it is coded (RFC 9530): coded anew, it would be found wrong.

use http::HeaderName;

/// Their names.
pub(super) const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];
