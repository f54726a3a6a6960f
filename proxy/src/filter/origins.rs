//! Lists of origins.

use snapshot::{
    check::{Unfit, reason},
    origin::Pattern,
};

/// Compiles the origins of a field.
pub(super) fn compile(field: &str, origins: &[String]) -> Result<Box<[Pattern]>, Unfit> {
    let pattern = |(i, origin): (usize, &String)| {
        let unfit =
            || Unfit::new(format!("{field}[{i}]"), reason::INVALID_HOSTNAME, format!("{origin:?} is no origin"));
        Pattern::parse(origin).ok_or_else(unfit)
    };
    origins.iter().enumerate().map(pattern).collect()
}
