//! The regular expressions of a route, bounded together: one by one they are `crate::expression`'s.

use super::{Fit, Unfit, reason};
use crate::proto::{PathKind, Route};

/// Regular expressions that one route may have, in all its matches.
pub const MAX_ROUTE_EXPRESSIONS: usize = 64;
/// Bytes that the regular expressions of one route may have together.
pub const MAX_ROUTE_EXPRESSIONS_LENGTH: usize = 8 << 10;

/// The regular expressions of a route, the same as often as it stands there.
pub fn expressions(route: &Route) -> impl Iterator<Item = &str> {
    route.rules.iter().flat_map(|rule| &rule.matches).flat_map(|m| {
        let path = m.path.as_ref().filter(|path| path.kind() == PathKind::Regex).map(|path| path.value.as_str());
        let values = m.headers.iter().chain(&m.query_params);
        path.into_iter().chain(values.filter(|value| value.regex).map(|value| value.value.as_str()))
    })
}

/// Whether a route has no more expressions than one may have. To be asked before any of them is looked at.
pub fn expressions_in_sum(route: &Route) -> Fit {
    let (count, length) = expressions(route).fold((0, 0), |(count, length), text| (count + 1, length + text.len()));
    if count <= MAX_ROUTE_EXPRESSIONS && length <= MAX_ROUTE_EXPRESSIONS_LENGTH {
        return Ok(());
    }
    let message = format!(
        "has {count} regular expressions of {length} bytes together, and {MAX_ROUTE_EXPRESSIONS} of \
         {MAX_ROUTE_EXPRESSIONS_LENGTH} are the most: split the route, or match prefixes"
    );
    Err(Unfit::new("rules", reason::TOO_COMPLEX, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::resource as checked,
        key::{Key, Kind},
        proto::{Match, PathMatch, Resource, Rule, ValueMatch, resource},
    };

    /// A thousand expressions in one route are refused before one of them is looked at.
    #[test]
    fn expressions_are_bounded_in_sum() {
        let route = |count: usize, length: usize| {
            let regex = |n: usize| format!("/[a-z]+/{n:04}").repeat(length / 12);
            let path = |n| Some(PathMatch { kind: PathKind::Regex.into(), value: regex(n) });
            let value = |n| ValueMatch { name: "x".into(), value: regex(n), regex: true };
            let of = |n: usize| match n % 3 {
                0 => Match { path: path(n), ..Match::default() },
                1 => Match { headers: vec![value(n)], ..Match::default() },
                _ => Match { query_params: vec![value(n)], ..Match::default() },
            };
            let rule = |n| Rule { matches: vec![of(n)], ..Rule::default() };
            Route { rules: (0..count).map(rule).collect(), ..Route::default() }
        };
        assert_eq!(expressions_in_sum(&route(64, 12)), Ok(()));
        let unfit = expressions_in_sum(&route(65, 12)).unwrap_err();
        assert_eq!((unfit.field.as_str(), unfit.reason), ("rules", "TooComplex"));
        assert_eq!(expressions_in_sum(&route(8, 1020)), Ok(()));
        assert!(
            expressions_in_sum(&route(9, 1020)).unwrap_err().message.starts_with("has 9 regular expressions of 9180")
        );
        let hostile = Resource { requires: vec![], kind: Some(resource::Kind::Route(route(1024, 60))) };
        assert_eq!(checked(&Key::new(Kind::Route, "a", "b"), &hostile).unwrap_err().reason, "TooComplex");
    }
}
