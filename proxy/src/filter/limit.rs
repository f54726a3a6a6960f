//! Rate limits of a rule.

use snapshot::{
    Key,
    check::Unfit,
    proto::{PolicyTarget, RatePolicy},
};

use super::Filter;

/// State of the limits, across pushes.
#[derive(Default)]
pub struct Limiters {}

impl Limiters {
    /// The limits that policies set for a rule.
    pub(crate) fn compile<'a>(
        &self,
        _policies: impl Iterator<Item = (&'a Key, &'a RatePolicy, &'a PolicyTarget)>,
        _route: &Key,
        _rule: &str,
    ) -> Result<Option<Box<dyn Filter>>, Unfit> {
        Ok(None)
    }

    /// Forgets limits that no rule has any more.
    pub(crate) fn forget_unused(&self) {}
}
