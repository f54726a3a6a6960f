//! Resources that an operator pushes: decoded, checked, compiled. The first byte says where the entries of the `Put` that
//! follows are cut into two pushes; the bytes are tried as a stream of messages too.
//!
//! - Whatever comes, a push that names its content rightly is taken: what can't run is nacked alone, and the rest runs.
//! - What runs, pushed to a proxy that holds nothing, is taken without a nack, and comes to the same revision.
//! - Every rule that was compiled can be asked.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::Method;
use prost::Message as _;
use proxy::{Shared, config::SnapshotStore, fields::Fields, router::Query, shared::Status, telemetry::Telemetry};
use snapshot::{
    Hash, Key, check,
    proto::{Begin, Commit, OperatorMessage, Put, PutEntry, operator_message::Message},
    set::revision,
    wire::{Assembly, Push, push},
};

/// Checks one input.
pub fn check(input: &[u8]) {
    stream(input);
    let Some((cut, put)) = input.split_first() else { return };
    let Ok(Put { mut entries }) = Put::decode(put) else { return };
    entries.retain(|entry| entry.key.parse::<Key>().is_ok());
    if entries.is_empty() || entries.len() > 64 {
        return;
    }
    let shared = Shared::new(Telemetry::default());
    let mut store = SnapshotStore::new(Arc::clone(&shared));
    let later = entries.split_off(usize::from(*cut) % (entries.len() + 1));
    let mut named = BTreeMap::new();
    let first = take(&mut store, None, entries, &mut named);
    let second = take(&mut store, Some(first.pushed), later, &mut named);
    judge(&store, &second, &named);
    ask(&shared);
    anew(&store);
}

/// Any messages, one behind the other: what they put together names its content rightly, or is not taken.
fn stream(mut input: &[u8]) {
    let mut assembly = Assembly::default();
    let mut store = SnapshotStore::new(Shared::new(Telemetry::default()));
    while let Ok(OperatorMessage { message: Some(message) }) = OperatorMessage::decode_length_delimited(&mut input) {
        match assembly.accept(message) {
            Err(_) => return,
            Ok(None) => {}
            Ok(Some(push)) => drop(store.stage(push).map(|staged| store.finish(staged, &BTreeMap::new()))),
        }
    }
}

/// Pushes entries on top of what was pushed.
fn take(
    store: &mut SnapshotStore,
    base: Option<Hash>,
    entries: Vec<PutEntry>,
    named: &mut BTreeMap<Key, Hash>,
) -> Status {
    // The last of a key counts, but one that does not decode is nacked whatever comes: keys stand once in a push.
    let entries: BTreeMap<Key, Bytes> =
        entries.into_iter().map(|entry| (entry.key.parse().expect("a key"), entry.resource)).collect();
    named.extend(entries.iter().map(|(key, resource)| (key.clone(), Hash::of(resource))));
    let target = revision(named.iter().map(|(key, hash)| (key, *hash)));
    let bytes = |hash: Hash| Bytes::copy_from_slice(hash.as_bytes());
    let entries = entries.into_iter().map(|(key, resource)| PutEntry { key: key.to_string(), resource });
    let messages = [
        Message::Begin(Begin { epoch: 1, revision: bytes(target), base: base.map(bytes).unwrap_or_default() }),
        Message::Put(Put { entries: entries.collect() }),
        Message::Commit(Commit { revision: bytes(target) }),
    ];
    let mut assembly = Assembly::default();
    let mut pushes = messages.into_iter().filter_map(|message| assembly.accept(message).expect("in order"));
    let staged = store.stage(pushes.next().expect("complete")).expect("names its content rightly");
    let status = store.finish(staged, &BTreeMap::new());
    assert_eq!(status.pushed, target);
    status
}

/// What runs is what was pushed, less what was nacked.
fn judge(store: &SnapshotStore, status: &Status, named: &BTreeMap<Key, Hash>) {
    let held = store.held();
    assert_eq!(status.running, held.revision());
    assert!(status.ready && status.epoch == 1);
    for nack in &status.nacks {
        let key: Key = nack.key.parse().expect("a key");
        assert_eq!(named.get(&key).map(|hash| &hash.as_bytes()[..]), Some(&nack.hash[..]), "{key}");
        assert!(!nack.reason.is_empty());
        assert_ne!(held.entry(&key).map(|entry| entry.hash()), named.get(&key).copied(), "{key} was nacked, but runs");
    }
    for (key, hash) in named {
        let nacked = status.nacks.iter().any(|nack| nack.key == key.as_str());
        let runs = held.entry(key).is_some_and(|entry| entry.hash() == *hash);
        assert!(runs != nacked, "{key} neither runs nor was nacked");
    }
    for (key, entry) in held.iter() {
        assert_eq!(check::resource(key, &entry.decode().expect("it was decoded")), Ok(()), "{key}");
        assert!(named.contains_key(key), "{key} comes from nowhere");
    }
}

/// Asks every port for some requests.
fn ask(shared: &Shared) {
    let config = shared.config.load();
    let fields = Fields::default();
    for port in config.ports.values() {
        for (host, path) in [("h0.example", "/"), ("a.b", "/api/v1/0/deep"), ("", "//"), ("[::1]", "/%FF")] {
            for tls in [false, true] {
                let q = Query { tls, host, path, query: Some("a=b&c"), method: &Method::GET, fields: &fields };
                if let Ok(found) = port.router.find(&q) {
                    assert!(found.prefix <= path.len());
                }
            }
        }
    }
}

/// Pushes what runs to a proxy that holds nothing.
fn anew(store: &SnapshotStore) {
    let held = store.held();
    let mut fresh = SnapshotStore::new(Shared::new(Telemetry::default()));
    let mut assembly = Assembly::default();
    let messages = push(1, None, held.revision(), &held.diff(&BTreeMap::new()));
    let mut pushes = messages.into_iter().filter_map(|m| assembly.accept(m.message.expect("one")).expect("in order"));
    let push: Push = pushes.next().expect("complete");
    let staged = fresh.stage(push).expect("names its content rightly");
    let status = fresh.finish(staged, &BTreeMap::new());
    assert_eq!(status.nacks, []);
    assert_eq!((status.running, status.pushed), (held.revision(), held.revision()));
}
