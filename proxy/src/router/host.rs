//! Values by hostname: exact names, wildcards (the longest first), any.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// Values by hostname pattern.
#[derive(PartialEq)]
pub(crate) struct HostMap<T> {
    exact: HashMap<Box<str>, T, RandomState>,
    /// By what follows the `*`, its dot included.
    wildcard: HashMap<Box<str>, T, RandomState>,
    /// Bit n: some wildcard has n labels; the last bit: that many or more. Only such are looked up, however many labels
    /// a client's host has.
    depths: u64,
    any: Option<T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), wildcard: HashMap::default(), depths: 0, any: None }
    }
}

impl<T> HostMap<T> {
    /// The value of a pattern: a name, `*.` and a name, or empty for any.
    pub(crate) fn entry(&mut self, pattern: &str) -> &mut T
    where
        T: Default,
    {
        match pattern.strip_prefix('*') {
            Some(suffix) => {
                self.depths |= bit(dots(suffix));
                self.wildcard.entry(suffix.into()).or_default()
            }
            None if pattern.is_empty() => self.any.get_or_insert_default(),
            None => self.exact.entry(pattern.into()).or_default(),
        }
    }

    /// Puts a value in place of the one that a pattern has, if it has one.
    pub(crate) fn insert(&mut self, pattern: &str, value: T) {
        match pattern.strip_prefix('*') {
            Some(suffix) => {
                self.depths |= bit(dots(suffix));
                self.wildcard.insert(suffix.into(), value);
            }
            None if pattern.is_empty() => self.any = Some(value),
            None => drop(self.exact.insert(pattern.into(), value)),
        }
    }

    /// Tries the values whose pattern fits, the most specific first, until one gives an answer.
    pub(crate) fn find<'a, R>(&'a self, host: &str, mut answer: impl FnMut(&'a T) -> Option<R>) -> Option<R> {
        if let Some(found) = self.exact.get(host).and_then(&mut answer) {
            return Some(found);
        }
        if !self.wildcard.is_empty() {
            // `*.example.com` stands for one or more labels, and not for `example.com` itself.
            let depths = (1..=dots(host)).rev();
            for (dot, depth) in memchr::memchr_iter(b'.', host.as_bytes()).zip(depths) {
                if dot > 0
                    && self.depths & bit(depth) != 0
                    && let Some(found) = self.wildcard.get(&host[dot..]).and_then(&mut answer)
                {
                    return Some(found);
                }
            }
        }
        self.any.as_ref().and_then(answer)
    }

    /// The value of the most specific pattern that fits.
    pub(crate) fn get(&self, host: &str) -> Option<&T> {
        self.find(host, Some)
    }

    /// The value of exactly this pattern.
    pub(crate) fn at(&self, pattern: &str) -> Option<&T> {
        match pattern.strip_prefix('*') {
            Some(suffix) => self.wildcard.get(suffix),
            None if pattern.is_empty() => self.any.as_ref(),
            None => self.exact.get(pattern),
        }
    }

    /// The value of exactly this name.
    pub(crate) fn exact(&self, name: &str) -> Option<&T> {
        self.exact.get(name)
    }

    /// The value of the wildcard with this suffix, which begins with a dot.
    pub(crate) fn wildcard(&self, suffix: &str) -> Option<&T> {
        self.wildcard.get(suffix)
    }
}

fn dots(name: &str) -> usize {
    memchr::memchr_iter(b'.', name.as_bytes()).count()
}

fn bit(depth: usize) -> u64 {
    1 << depth.min(63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, expect: &[&str]) {
        let mut map = HostMap::<String>::default();
        for pattern in ["", "a.example.com", "*.example.com", "*.b.example.com", "*.com", "example.com"] {
            map.insert(pattern, pattern.to_owned());
        }
        let mut seen = vec![];
        let none = map.find(host, |value| {
            seen.push(value.as_str());
            None::<()>
        });
        assert_eq!((none, seen.as_slice()), (None, expect), "{host}");
    }

    #[test]
    fn the_most_specific_comes_first() {
        check("a.example.com", &["a.example.com", "*.example.com", "*.com", ""]);
        check("x.b.example.com", &["*.b.example.com", "*.example.com", "*.com", ""]);
        check("b.example.com", &["*.example.com", "*.com", ""]);
        check("example.com", &["example.com", "*.com", ""]);
        check(".example.com", &["*.com", ""]);
        check("com", &[""]);
        check("", &[""]);
    }
}
