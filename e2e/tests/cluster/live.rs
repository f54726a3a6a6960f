//! A change of a route is live at once on every proxy, under load.

use std::time::{Duration, Instant};

use e2e::{
    cluster::{Fleet, Place, sluice},
    harness::pause,
};

use crate::{MIXED, assert_clean, bound, long, seconds};

const MEDIAN: Duration = Duration::from_millis(200);
const WORST: Duration = Duration::from_secs(1);

#[test]
fn changes_are_live_at_once() {
    let sluice = sluice().unwrap();
    let place = Place::new(&sluice, "live", &Fleet::fixed(2)).unwrap();
    // The route that carries the load is the one that changes: version N reaches the upstream as /vN.
    let version = |number: usize| place.rewrite_yaml("hot", "/hot", &format!("/v{number}."));
    place.apply(&version(0)).unwrap();
    place.until("/hot", 200, "/v0.", seconds(20)).unwrap();
    place.until_programmed("hot", seconds(20)).unwrap();
    let proxies = place.proxy_targets().unwrap();
    assert_eq!(proxies.len(), 2, "{proxies:?}");
    let load = place.load(&format!("{MIXED} --rate 300 --path /hot --ws-path /hot")).unwrap();
    pause(seconds(2));

    let changes = if long() { 200 } else { 40 };
    let (mut from_start, mut from_return) = (Vec::new(), Vec::new());
    for number in 1..=changes {
        let started = Instant::now();
        place.apply(&version(number)).unwrap();
        let returned = Instant::now();
        for proxy in &proxies {
            place.until_at(proxy, "/hot", 200, &format!("/v{number}."), seconds(20)).unwrap();
        }
        from_start.push(started.elapsed());
        from_return.push(returned.elapsed());
    }
    let report = load.stop().unwrap();
    for (from, times) in [("start", &mut from_start), ("return", &mut from_return)] {
        times.sort();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        let (median, worst) = (at(50), at(99));
        println!(
            "{changes} changes, from the apply's {from} to all proxies: p50 {median:.0?}, p99 {worst:.0?}, max {:.0?}",
            at(100)
        );
        assert!(median <= bound(MEDIAN) && worst <= bound(WORST), "p50 {median:?}, p99 {worst:?}");
    }
    println!("{report}");
    assert_clean(&report);
}
