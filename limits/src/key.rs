//! Keys of buckets: hashes of what a limit counts by. 96 bits of two hashes with random seeds: two keys that share a
//! bucket by chance take 2^48 keys to be expected, and none can be made up without the seeds.

use std::hash::{BuildHasher, Hasher, RandomState};

use foldhash::{SharedSeed, quality::FoldHasher};

/// A key's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Finds the place; never 0.
    pub(crate) tag: u64,
    /// Tells keys of the same place apart.
    pub(crate) check: u32,
}

/// Seeds of a process.
pub(crate) struct Seeds([(u64, SharedSeed); 2]);

impl Seeds {
    pub(crate) fn random() -> Self {
        // The standard library's keys come from the operating system.
        let random = || RandomState::new().build_hasher().finish();
        let seed = || (random(), SharedSeed::from_u64(random()));
        Self([seed(), seed()])
    }
}

/// Puts a key together from its parts; nothing is allocated.
pub struct KeyBuilder<'a>([FoldHasher<'a>; 2]);

impl<'a> KeyBuilder<'a> {
    pub(crate) fn new(Seeds([a, b]): &'a Seeds, namespace: u64) -> Self {
        let mut builder = Self([FoldHasher::with_seed(a.0, &a.1), FoldHasher::with_seed(b.0, &b.1)]);
        builder.number(namespace);
        builder
    }

    /// Adds a part.
    pub fn part(&mut self, bytes: &[u8]) {
        // The length too, so that no two lists of parts are the same bytes.
        self.number(bytes.len() as u64);
        self.0.iter_mut().for_each(|hasher| hasher.write(bytes));
    }

    /// Adds a part that comes byte by byte.
    pub fn part_of(&mut self, mut bytes: impl Iterator<Item = u8>) {
        let mut length = 0;
        loop {
            let mut buffer = [0; 64];
            let filled = buffer.iter_mut().zip(&mut bytes).map(|(place, byte)| *place = byte).count();
            self.0.iter_mut().for_each(|hasher| hasher.write(&buffer[..filled]));
            length += filled as u64;
            if filled < buffer.len() {
                return self.number(length);
            }
        }
    }

    /// Adds a part that is missing, which differs from an empty one.
    pub fn missing(&mut self) {
        self.number(u64::MAX);
    }

    /// The key.
    pub fn finish(self) -> Key {
        let [a, b] = self.0.map(|hasher| hasher.finish());
        Key { tag: a.max(1), check: b as u32 }
    }

    fn number(&mut self, number: u64) {
        self.0.iter_mut().for_each(|hasher| hasher.write_u64(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart() {
        let seeds = Seeds::random();
        let key = |namespace, parts: &[Option<&str>]| {
            let mut builder = KeyBuilder::new(&seeds, namespace);
            for part in parts {
                match part {
                    Some(part) => builder.part(part.as_bytes()),
                    None => builder.missing(),
                }
            }
            builder.finish()
        };
        let keys = [
            key(1, &[]),
            key(2, &[]),
            key(1, &[Some("")]),
            key(1, &[None]),
            key(1, &[Some("ab"), Some("c")]),
            key(1, &[Some("a"), Some("bc")]),
            key(1, &[Some("abc")]),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys.iter().skip(i + 1).all(|b| a != b), "{i}");
        }
        assert_eq!(key(1, &[Some("abc")]), key(1, &[Some("abc")]));
    }

    #[test]
    fn bytes_one_by_one() {
        let seeds = Seeds::random();
        let key = |bytes: &[u8]| {
            let mut builder = KeyBuilder::new(&seeds, 1);
            builder.part_of(bytes.iter().copied());
            builder.finish()
        };
        for length in [0, 1, 63, 64, 65, 128, 1000] {
            assert_eq!(key(&vec![7; length]), key(&vec![7; length]));
            assert_ne!(key(&vec![7; length]), key(&vec![7; length + 1]));
        }
    }
}
