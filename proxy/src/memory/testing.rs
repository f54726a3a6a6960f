//! Holders for tests.

use std::sync::Arc;

use super::{Holder, Limit, Memory};

/// A holder with all the memory that it wants.
pub(crate) fn holder() -> Arc<Holder> {
    let account = Memory::new(Limit::of_process(1 << 40)).account();
    Arc::clone(&account.enter([192, 0, 2, 1].into()).holder)
}
