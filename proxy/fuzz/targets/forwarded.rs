//! See the module of the same name.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxy_fuzz::forwarded::check(input));
