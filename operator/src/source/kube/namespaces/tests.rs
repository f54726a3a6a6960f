//! Who has a place.

use super::*;

/// What fleets refer to.
fn of_fleets<'a>(own: &[&'a str], others: &[&'a str]) -> Option<secrets::Namespaces<'a>> {
    wanted(own, others, &[])
}

fn wanted<'a>(own: &[&'a str], others: &[&'a str], consumers: &[&'a str]) -> Option<secrets::Namespaces<'a>> {
    let set = |names: &[&'a str]| names.iter().copied().collect();
    Some(secrets::Namespaces { own: set(own), others: set(others), consumers: set(consumers) })
}

/// More namespaces than there are places.
fn crowd() -> Vec<String> {
    (0..2 * MAX_NAMESPACES).map(|i| format!("n{i:03}")).collect()
}

fn begin(namespace: &str) -> Order {
    Order::Begin(namespace.into())
}

#[test]
fn what_is_referred_to_is_watched() {
    let mut namespaces = Namespaces::default();
    assert_eq!(namespaces.want(of_fleets(&["shop"], &["shop", "vault"])), [begin("shop"), begin("vault")]);
    assert_eq!(namespaces.want(of_fleets(&["shop"], &["vault"])), []);
    namespaces.listed("shop");
    assert!(namespaces.waits(false));
    namespaces.failing("vault", false);
    assert!(namespaces.waits(true) && !namespaces.waits(false));
    namespaces.failing("vault", true);
    assert!(!namespaces.waits(true), "what is denied is not waited for");
    assert_eq!(namespaces.unreadable(), [("vault".to_owned(), Unreadable::Denied)].into());
    namespaces.listed("vault");
    assert_eq!(namespaces.unreadable(), BTreeMap::new());
    assert_eq!(namespaces.want(of_fleets(&["shop"], &[])), [Order::End("vault".into())]);
    namespaces.failing("vault", true);
    assert_eq!(namespaces.unreadable(), BTreeMap::new(), "said by a watch that has ended");
}

/// Whoever can make fleets could refer to Secrets of each namespace there is.
#[test]
fn what_was_watched_before_keeps_its_place() {
    let many = crowd();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut namespaces = Namespaces::default();
    namespaces.want(of_fleets(&["zebra"], &[]));
    assert_eq!(namespaces.want(of_fleets(&["own", "zebra"], &many)).len(), MAX_NAMESPACES - 1);
    let unreadable = namespaces.unreadable();
    assert_eq!(unreadable.len(), MAX_NAMESPACES + 2);
    assert!(!unreadable.contains_key("zebra") && !unreadable.contains_key("own"));
    assert!(unreadable.values().all(|why| *why == Unreadable::TooMany(MAX_NAMESPACES)));
    // When others leave, those that waited have their places.
    assert_eq!(namespaces.want(of_fleets(&["own", "zebra"], &["n511"])).last(), Some(&begin("n511")));
    assert_eq!(namespaces.unreadable(), BTreeMap::new());
}

/// Consumers are in thousands of namespaces: they take no place of a fleet's certificates.
#[test]
fn consumers_have_places_of_their_own() {
    let many = crowd();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut namespaces = Namespaces::default();
    assert_eq!(namespaces.want(wanted(&[], &[], &many)).len(), MAX_NAMESPACES);
    assert!(namespaces.waits(true) && !namespaces.waits(false), "they hold nobody's worlds up");
    assert_eq!(namespaces.want(wanted(&["shop"], &["vault"], &many)), [begin("shop"), begin("vault")]);
    assert_eq!(namespaces.unreadable().len(), MAX_NAMESPACES);
    assert_eq!(namespaces.want(None), []);
}

/// Namespaces that may not be read: as many as there are, they take no place of one that may be; and each of them is
/// looked at again, one after the other.
#[test]
fn what_may_not_be_read_takes_no_place() {
    let many = crowd();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let all: Vec<&str> = many.iter().copied().chain(["readable"]).collect();
    let mut namespaces = Namespaces::default();
    let mut tried = BTreeMap::<Arc<str>, usize>::new();
    let mut orders = namespaces.want(wanted(&[], &[], &all));
    while !orders.is_empty() {
        for order in orders {
            let Order::Begin(namespace) = order else { continue };
            *tried.entry(Arc::clone(&namespace)).or_default() += 1;
            match &*namespace {
                "readable" => namespaces.listed(&namespace),
                _ => namespaces.failing(&namespace, true),
            }
        }
        orders = namespaces.want(None);
    }
    assert!(tried.contains_key("readable") && tried.len() == all.len());
    assert_eq!(namespaces.watched.len(), 1 + MAX_DENIED);
    let unreadable = namespaces.unreadable();
    assert!(unreadable.len() == many.len() && unreadable.values().all(|why| *why == Unreadable::Denied));
    // A turn ends with another attempt: not before, or they would be as fast as the API server answers.
    for round in 0..2 * many.len() / MAX_DENIED {
        let watched: Vec<_> = namespaces.watched.keys().filter(|name| &***name != "readable").cloned().collect();
        watched.iter().for_each(|name| namespaces.failing(name, true));
        let orders = namespaces.want(None);
        assert_eq!(orders.len(), 2 * MAX_DENIED, "round {round}");
        for order in orders {
            let Order::Begin(namespace) = order else { continue };
            *tried.entry(Arc::clone(&namespace)).or_default() += 1;
            namespaces.failing(&namespace, true);
        }
        assert_eq!(namespaces.want(None), [], "round {round}");
    }
    assert!(tried.iter().all(|(name, times)| (3..=4).contains(times) || &**name == "readable"), "{tried:?}");
    // Somebody permits it.
    let next = namespaces.watched.keys().find(|name| &***name != "readable").cloned().unwrap();
    namespaces.listed(&next);
    let orders = namespaces.want(None);
    assert!(matches!(orders[..], [Order::Begin(_)]), "{orders:?}");
    assert!(!namespaces.unreadable().contains_key(&*next));
}
