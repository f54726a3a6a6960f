//! Consumers: who calls, found by the digest of a credential. One table for all consumers of a fleet, swapped with the
//! configuration; what did not change is taken over, and a look-up takes the same time however many there are.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use snapshot::credential::Digest;

/// A consumer.
#[derive(Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name there.
    pub name: Box<str>,
    /// Its tiers and groups, in the order of their names.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// By what it is known.
    pub(crate) digests: Box<[Digest]>,
}

/// The consumers of a fleet.
#[derive(Debug, Default)]
pub struct Consumers {
    /// Each of a namespace has its own: what one presents is nothing to the consumers of another.
    by_digest: HashMap<Box<str>, HashMap<Digest, Arc<Consumer>, RandomState>, RandomState>,
    count: usize,
}

impl Consumers {
    /// The consumer of a namespace that has a credential of this digest. Which bytes of a digest agree tells nobody what
    /// the credential is, so that the table need not compare in constant time.
    pub fn find(&self, namespace: &str, digest: &Digest) -> Option<&Arc<Consumer>> {
        self.by_digest.get(namespace)?.get(digest)
    }

    /// How many consumers there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many credentials they are known by.
    pub fn credentials(&self) -> usize {
        self.by_digest.values().map(HashMap::len).sum()
    }
}

impl FromIterator<Arc<Consumer>> for Consumers {
    /// Of two that hold one credential, the first has it: operators let none such pass.
    fn from_iter<I: IntoIterator<Item = Arc<Consumer>>>(consumers: I) -> Self {
        let mut table = Self::default();
        for consumer in consumers {
            table.count += 1;
            let of_namespace = table.by_digest.entry(consumer.namespace.clone()).or_default();
            for digest in &consumer.digests {
                of_namespace.entry(*digest).or_insert_with(|| Arc::clone(&consumer));
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(namespace: &str, name: &str, keys: &[&str]) -> Arc<Consumer> {
        let digests = keys.iter().map(|key| Digest::of_api_key(key.as_bytes())).collect();
        Arc::new(Consumer { namespace: namespace.into(), name: name.into(), labels: [].into(), digests })
    }

    #[test]
    fn a_key_is_found_in_its_namespace_alone() {
        let all =
            [consumer("shop", "a", &["k1", "k2"]), consumer("shop", "b", &["k2"]), consumer("other", "c", &["k1"])];
        let consumers: Consumers = all.into_iter().collect();
        let find = |namespace: &str, key: &str| {
            consumers.find(namespace, &Digest::of_api_key(key.as_bytes())).map(|found| &*found.name)
        };
        assert_eq!((find("shop", "k1"), find("shop", "k2"), find("shop", "k3")), (Some("a"), Some("a"), None));
        assert_eq!((find("other", "k1"), find("other", "k2"), find("none", "k1")), (Some("c"), None, None));
        assert_eq!((consumers.len(), consumers.credentials()), (3, 3));
    }
}
