//! The hostnames that proxies must know beyond the routes that they serve: names whose holder has no route on a programmed
//! listener, a route that was left, or one that the snapshot has no room for, and names that are kept for somebody. Should
//! proxies not know them, a wildcard or any-host route of another namespace would answer.

use std::collections::HashSet;

use snapshot::proto;

use super::hosts::Held;

/// Most bytes of all of it; each namespace has an equal share, and what others leave.
const MAX_HELD_BYTES: usize = 256 << 10;

/// The part of `held` that no served route shows, and how many names there was no room for.
pub(super) fn beside(held: &Held, shown: &HashSet<&str>) -> (Vec<proto::HeldHostnames>, usize) {
    let not_shown = |(namespace, names): (&String, &std::collections::BTreeSet<String>)| {
        // Nothing is less specific than any host: there is nobody else to answer.
        let not_shown = names.iter().filter(|name| !name.is_empty() && !shown.contains(name.as_str()));
        let hostnames: Vec<String> = not_shown.cloned().collect();
        proto::HeldHostnames { namespace: namespace.clone(), hostnames }
    };
    let mut lists: Vec<_> = held.iter().map(not_shown).filter(|list| !list.hostnames.is_empty()).collect();
    let size = |name: &String| name.len() + 2;
    lists.sort_by_cached_key(|list| list.hostnames.iter().map(size).sum::<usize>());
    let (mut room, mut waiting, mut left_out) = (MAX_HELD_BYTES, lists.len(), 0);
    for list in &mut lists {
        let share = room / waiting;
        let mut used = list.namespace.len();
        let fits = |name: &&String| {
            used += size(name);
            used <= share
        };
        let fit = list.hostnames.iter().take_while(fits).count();
        left_out += list.hostnames.len() - fit;
        list.hostnames.truncate(fit);
        room -= share.min(used);
        waiting -= 1;
    }
    lists.retain(|list| !list.hostnames.is_empty());
    lists.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    (lists, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_has_its_share() {
        let many = (0..10_000).map(|n| format!("h{n}.{}", "x".repeat(100))).collect();
        let held = Held::from([
            ("hostile".into(), many),
            ("shop".into(), ["a.example".to_owned(), "b.example".to_owned()].into()),
        ]);
        let (lists, left_out) = beside(&held, &HashSet::from(["b.example"]));
        assert_eq!(lists[1], proto::HeldHostnames { namespace: "shop".into(), hostnames: vec!["a.example".into()] });
        let bytes: usize = lists.iter().flat_map(|list| &list.hostnames).map(|name| name.len() + 2).sum();
        assert!(
            bytes <= MAX_HELD_BYTES && left_out > 0 && left_out + lists[0].hostnames.len() == 10_000,
            "{bytes} {left_out}"
        );
    }
}
