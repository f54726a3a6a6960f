//! Replaces a path, whole or the prefix that matched.

use snapshot::proto::{self, path_rewrite::Rewrite};

/// A change of a path.
pub(super) enum PathChange {
    /// Nothing.
    Keep,
    /// Another path.
    Full(Box<str>),
    /// The matched prefix is replaced; without a trailing slash.
    Prefix(Box<str>),
}

impl PathChange {
    pub(super) fn compile(rewrite: Option<&proto::PathRewrite>) -> Self {
        match rewrite.and_then(|r| r.rewrite.as_ref()) {
            None => PathChange::Keep,
            Some(Rewrite::ReplaceFullPath(path)) => PathChange::Full(path.as_str().into()),
            Some(Rewrite::ReplacePrefixMatch(path)) => PathChange::Prefix(path.as_str().into()),
        }
    }

    /// Appends the new path; `prefix` is the length of the prefix that matched.
    pub(super) fn write(&self, path: &str, prefix: usize, out: &mut String) {
        match self {
            PathChange::Keep => out.push_str(path),
            PathChange::Full(full) => out.push_str(full),
            PathChange::Prefix(replacement) => match path.get(prefix..).unwrap_or_default() {
                "" if replacement.is_empty() => out.push('/'),
                "" => out.push_str(replacement),
                // The rest begins with the slash that ended the prefix.
                rest => {
                    out.push_str(replacement.strip_suffix('/').unwrap_or(replacement));
                    out.push_str(rest);
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, prefix: &str, replacement: &str, expect: &str) {
        let change = PathChange::Prefix(replacement.into());
        let mut got = String::new();
        change.write(path, prefix.strip_suffix('/').unwrap_or(prefix).len(), &mut got);
        assert_eq!(got, expect, "{path} {prefix} {replacement}");
    }

    /// The table of Gateway API's `HTTPPathModifier`.
    #[test]
    fn prefixes_are_replaced_as_gateway_api_says() {
        check("/foo/bar", "/foo", "/xyz", "/xyz/bar");
        check("/foo/bar", "/foo", "/xyz/", "/xyz/bar");
        check("/foo/bar", "/foo/", "/xyz", "/xyz/bar");
        check("/foo/bar", "/foo/", "/xyz/", "/xyz/bar");
        check("/foo", "/foo", "/xyz", "/xyz");
        check("/foo/", "/foo", "/xyz", "/xyz/");
        check("/foo/bar", "/foo", "", "/bar");
        check("/foo/", "/foo", "", "/");
        check("/foo", "/foo", "", "/");
        check("/foo/", "/foo", "/", "/");
        check("/foo", "/foo", "/", "/");
        check("/a/b", "/", "/xyz", "/xyz/a/b");
        check("/", "/", "/xyz", "/xyz/");
    }
}
