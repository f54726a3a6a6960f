//! The status of one object as its proxies and its content change.
