//! Pushes on the wire: a delta cut into messages of at most 1 MiB, and put together again under bounds.

use bytes::Bytes;

use crate::{
    key::{Hash, ParseKeyError},
    proto::{Begin, Commit, Delete, OperatorMessage, Put, PutEntry, operator_message::Message},
    set::{Delta, Entry},
};

/// Largest resource, and the size that messages are cut to, in bytes.
pub const MAX_RESOURCE: usize = 1 << 20;
/// Largest snapshot, keys included, in bytes.
pub const MAX_SNAPSHOT: usize = 64 << 20;
/// Largest message: a resource of the largest size with its key and framing.
pub const MAX_MESSAGE: usize = MAX_RESOURCE + 4096;
/// Most routes in a snapshot.
pub const MAX_ROUTES: usize = 10_000;
/// Most consumers in a snapshot.
pub const MAX_CONSUMERS: usize = 10_000;
/// Most endpoints in a snapshot.
pub const MAX_ENDPOINTS: usize = 100_000;
/// Most entries of the routing table that a snapshot leads to: a match stands there once for each host of each listener.
/// (One route of 64 hosts and 1,024 matches is 65,536 entries for each listener, and weighs some 100 KB here.)
pub const MAX_ENTRIES: usize = 500_000;
/// Most that the expressions of a snapshot's routes may weigh together ([`crate::expression`]), each counted once, in bytes:
/// some ten thousand as they are usually written.
pub const MAX_EXPRESSIONS: usize = 64 << 20;

/// Cuts a push into messages: `Begin, Put*, Delete*, Commit`.
pub fn push(epoch: u64, base: Option<Hash>, revision: Hash, delta: &Delta) -> Vec<OperatorMessage> {
    let bytes = |hash: Hash| Bytes::copy_from_slice(hash.as_bytes());
    let base = base.map(bytes).unwrap_or_default();
    let mut messages = vec![Message::Begin(Begin { epoch, revision: bytes(revision), base })];
    let puts = delta.puts.iter().map(|(key, entry)| {
        let size = key.as_str().len() + entry.bytes().len() + 16;
        (size, PutEntry { key: key.to_string(), resource: entry.bytes().clone() })
    });
    messages.extend(batches(puts).map(|entries| Message::Put(Put { entries })));
    let deletes = delta.deletes.iter().map(|key| (key.as_str().len() + 8, key.to_string()));
    messages.extend(batches(deletes).map(|keys| Message::Delete(Delete { keys })));
    messages.push(Message::Commit(Commit { revision: bytes(revision) }));
    messages.into_iter().map(|message| OperatorMessage { message: Some(message) }).collect()
}

/// Groups sized items so that no group is over [`MAX_RESOURCE`], unless one item alone is.
fn batches<T>(items: impl Iterator<Item = (usize, T)>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.peekable();
    std::iter::from_fn(move || {
        let (mut size, first) = items.next()?;
        let mut batch = vec![first];
        while let Some((more, item)) = items.next_if(|(more, _)| size + more <= MAX_RESOURCE) {
            size += more;
            batch.push(item);
        }
        Some(batch)
    })
}

/// A complete push.
#[derive(Debug, PartialEq)]
pub struct Push {
    /// The sender's epoch.
    pub epoch: u64,
    /// The revision that the delta is against; `None`: nothing.
    pub base: Option<Hash>,
    /// The revision that results.
    pub revision: Hash,
    /// The difference. Whether its resources decode was not looked at.
    pub delta: Delta,
}

/// The reason why a stream of messages is no push; the stream is then closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A message that does not belong here.
    #[error("{0} without Begin")]
    OutOfOrder(&'static str),
    /// A second `Begin`.
    #[error("Begin within a push")]
    Nested,
    /// A hash that has not 32 bytes.
    #[error("{0} has no hash of 32 bytes")]
    BadHash(&'static str),
    /// A commit of another revision.
    #[error("Commit names {found:?}, Begin named {begun:?}")]
    WrongCommit {
        /// The revision in `Commit`.
        found: Hash,
        /// The revision in `Begin`.
        begun: Hash,
    },
    /// A key that can't be read.
    #[error(transparent)]
    BadKey(#[from] ParseKeyError),
    /// Over [`MAX_SNAPSHOT`].
    #[error("the push is larger than {MAX_SNAPSHOT} bytes")]
    TooLarge,
}

/// Puts pushes together from messages.
#[derive(Debug, Default)]
pub struct Assembly {
    open: Option<Open>,
}

/// A push that is under way. What it brings and what it takes away is bounded apart: one full snapshot may follow another
/// with which it has nothing in common.
#[derive(Debug)]
struct Open {
    push: Push,
    brought: usize,
    taken: usize,
}

impl Assembly {
    /// Takes one message; a completed push comes out with its `Commit`. Other messages (`NotLeader`, `Rebalance`) are
    /// the caller's and are ignored here.
    pub fn accept(&mut self, message: Message) -> Result<Option<Push>, ProtocolError> {
        match message {
            Message::Begin(begin) => self.begin(&begin)?,
            Message::Put(put) => self.put(put)?,
            Message::Delete(delete) => {
                let open = self.open.as_mut().ok_or(ProtocolError::OutOfOrder("Delete"))?;
                for key in delete.keys {
                    open.taken += key.len();
                    if open.taken > MAX_SNAPSHOT {
                        return Err(ProtocolError::TooLarge);
                    }
                    open.push.delta.deletes.push(key.parse()?);
                }
            }
            Message::Commit(commit) => {
                let Open { push, .. } = self.open.take().ok_or(ProtocolError::OutOfOrder("Commit"))?;
                let found = Hash::from_slice(&commit.revision).ok_or(ProtocolError::BadHash("Commit"))?;
                if found != push.revision {
                    return Err(ProtocolError::WrongCommit { found, begun: push.revision });
                }
                return Ok(Some(push));
            }
            Message::NotLeader(_) | Message::Rebalance(_) => {}
        }
        Ok(None)
    }

    fn begin(&mut self, begin: &Begin) -> Result<(), ProtocolError> {
        if self.open.is_some() {
            return Err(ProtocolError::Nested);
        }
        let bad = ProtocolError::BadHash("Begin");
        let revision = Hash::from_slice(&begin.revision).ok_or(bad.clone())?;
        let base = match begin.base.len() {
            0 => None,
            _ => Some(Hash::from_slice(&begin.base).ok_or(bad)?),
        };
        let push = Push { epoch: begin.epoch, base, revision, delta: Delta::default() };
        self.open = Some(Open { push, brought: 0, taken: 0 });
        Ok(())
    }

    fn put(&mut self, put: Put) -> Result<(), ProtocolError> {
        let open = self.open.as_mut().ok_or(ProtocolError::OutOfOrder("Put"))?;
        for PutEntry { key, resource } in put.entries {
            open.brought += key.len() + resource.len();
            if open.brought > MAX_SNAPSHOT {
                return Err(ProtocolError::TooLarge);
            }
            open.push.delta.puts.insert(key.parse()?, Entry::encoded(resource));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Snapshot,
        key::{Key, Kind},
        proto::{Certificate, Resource, resource},
    };

    fn snapshot(n: usize, size: usize) -> Snapshot {
        (0..n)
            .map(|i| {
                let chain_pem = Bytes::from(vec![i as u8; size]);
                let kind = resource::Kind::Certificate(Certificate { chain_pem, private_key_pem: Bytes::new() });
                let entry = Entry::new(&Resource { requires: vec![], kind: Some(kind) });
                (Key::new(Kind::Certificate, "ns", &format!("c{i}")), entry)
            })
            .collect()
    }

    #[test]
    fn a_push_survives_the_wire_in_small_messages() {
        let (a, b) = (snapshot(3, 10), snapshot(40, 100_000));
        let delta = b.diff(&a.held());
        let messages = push(7, Some(a.revision()), b.revision(), &delta);
        assert!(messages.len() >= 6, "{} messages", messages.len());
        let mut assembly = Assembly::default();
        let mut pushes = vec![];
        for message in messages {
            assert!(prost::Message::encoded_len(&message) <= MAX_MESSAGE);
            pushes.extend(assembly.accept(message.message.unwrap()).unwrap());
        }
        let expect = Push { epoch: 7, base: Some(a.revision()), revision: b.revision(), delta };
        assert_eq!(pushes, [expect]);
    }

    #[test]
    fn messages_out_of_order_are_refused() {
        let delta = snapshot(1, 1).diff(&Default::default());
        let revision = snapshot(1, 1).revision();
        let messages: Vec<_> = push(1, None, revision, &delta).into_iter().filter_map(|m| m.message).collect();
        let accept = |order: &[usize]| {
            let mut assembly = Assembly::default();
            order.iter().try_for_each(|i| assembly.accept(messages[*i].clone()).map(drop))
        };
        assert_eq!(accept(&[0, 1, 2]), Ok(()));
        assert_eq!(accept(&[1]), Err(ProtocolError::OutOfOrder("Put")));
        assert_eq!(accept(&[2]), Err(ProtocolError::OutOfOrder("Commit")));
        assert_eq!(accept(&[0, 0]), Err(ProtocolError::Nested));
    }

    #[test]
    fn a_push_is_bounded_whatever_it_is_made_of() {
        let begin = push(1, None, snapshot(1, 1).revision(), &Delta::default()).swap_remove(0).message.unwrap();
        let refused = |message: Message, fit: usize| {
            let mut assembly = Assembly::default();
            assert_eq!(assembly.accept(begin.clone()), Ok(None));
            let accepted = (0..=fit).position(|_| assembly.accept(message.clone()) == Err(ProtocolError::TooLarge));
            assert_eq!(accepted, Some(fit));
        };
        let key = Key::new(Kind::Route, "ns", &"r".repeat(200)).to_string();
        let (size, of_key) = (MAX_SNAPSHOT / 8, MAX_SNAPSHOT / 8 / key.len() + 1);
        // One full snapshot after another that has nothing in common with it.
        let mut assembly = Assembly::default();
        assert_eq!(assembly.accept(begin.clone()), Ok(None));
        let put = Put {
            entries: vec![PutEntry { key: key.clone(), resource: Bytes::from(vec![0xff; MAX_SNAPSHOT - 1000]) }],
        };
        assert_eq!(assembly.accept(Message::Put(put)), Ok(None));
        assert_eq!(assembly.accept(Message::Delete(Delete { keys: vec![key.clone(); of_key] })), Ok(None));
        refused(Message::Delete(Delete { keys: vec![key.clone(); of_key] }), 7);
        let resource = Bytes::from(vec![0xff; size]);
        refused(Message::Put(Put { entries: vec![PutEntry { key, resource }] }), 7);
    }
}
