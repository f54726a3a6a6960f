use super::*;
use crate::world::World;

fn fleet() -> ObjectRef {
    ObjectRef { kind: Kind::GatewayFleet, namespace: "sys".into(), name: "default".into() }
}

fn consumer(namespace: &str, number: usize, label: usize) -> Sourced {
    let source = ObjectRef { kind: Kind::Consumer, namespace: namespace.into(), name: format!("c{number}") };
    let label = proto::Label { name: "tier".into(), value: "x".repeat(label) };
    let resource = proto::Consumer { labels: vec![label], credentials: vec![] };
    sourced(source.key(snapshot::Kind::Consumer), resource::Kind::Consumer(resource), &source)
}

/// How many of each namespace fit, and how many problems are told.
fn fit(consumers: &[Sourced]) -> (BTreeMap<String, usize>, usize) {
    let world = World::default();
    let mut problems = Problems::new(&world);
    let mut counts = BTreeMap::new();
    for consumer in fitting(&fleet(), &consumers.iter().collect::<Vec<_>>(), &mut problems) {
        *counts.entry(consumer.source.namespace.clone()).or_default() += 1;
    }
    (counts, problems.into_sorted().len())
}

#[test]
fn a_crowd_of_consumers_leaves_room_for_those_of_others() {
    let crowd = (0..2 * MAX_CONSUMERS).map(|i| consumer("crowd", i, 1));
    let few = (0..10).map(|i| consumer("few", i, 1));
    let (counts, problems) = fit(&crowd.chain(few).collect::<Vec<_>>());
    assert_eq!(counts["few"], 10);
    assert_eq!(counts["crowd"], MAX_CONSUMERS - 10);
    assert_eq!(problems, MAX_CONSUMERS + 10);
}

#[test]
fn so_do_few_large_ones() {
    let large = (0..20).map(|i| consumer("large", i, MAX_CONSUMER_BYTES / 10));
    let (counts, _) = fit(&large.chain([consumer("few", 0, 1)]).collect::<Vec<_>>());
    assert_eq!((counts["few"], counts["large"]), (1, 9));
}
