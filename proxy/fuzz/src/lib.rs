//! What must hold of any input: one module for each fuzz target. `cargo fuzz` calls them with what it makes up, and
//! `proxy/tests/fuzz.rs` with the committed corpus. Each judges the proxy by a second, naive reading of the same bytes.

pub mod chunked_body;
pub mod config;
pub mod forwarded;
pub mod path;
pub mod request_head;

/// What a target does with an input: it panics if something does not hold.
pub type Check = fn(&[u8]);

/// Every target: its name, which is that of its folder in `corpus/`, and its check.
pub const TARGETS: [(&str, Check); 5] = [
    ("chunked_body", chunked_body::check),
    ("config", config::check),
    ("forwarded", forwarded::check),
    ("path", path::check),
    ("request_head", request_head::check),
];
