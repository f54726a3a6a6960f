//! What comes before the first limit costs as much as it weighs: no head is worth more work than its bytes, whatever it is
//! made of, and however large. The kind of each is told in `benches/worst/inputs.rs`.
//!
//! The goal, at most 3 times the cost of a clean head for each KiB, is what `cargo bench -p proxy --bench worst` shows; here
//! it is ten times that, since others use the machine too.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../benches/worst/inputs.rs"]
mod inputs;

use std::sync::{Mutex, PoisonError};

use inputs::{Before, WORST, clean, references};

/// What measures time runs alone.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn no_head_costs_more_than_its_bytes() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut before = Before::new();
    let clean = clean();
    assert!(before.http1(&clean.clone().into()), "the clean one comes to a limit");
    let each = before.cost(&clean, 40) / clean.len() as f64;
    let mut too_dear = vec![];
    for (name, make) in WORST {
        for size in [1 << 10, 8 << 10, 30 << 10] {
            let head = make(size);
            let times = before.cost(&head, 4) / (each * head.len().max(clean.len()) as f64);
            println!("{name}, {} bytes: {times:.1} times as much as clean", head.len());
            if times > 30.0 {
                too_dear.push((name, head.len(), times));
            }
        }
    }
    assert_eq!(too_dear, []);
}

/// What grows with the square of a head's size shows in its cost, however cheap a step of it is.
#[test]
fn eight_times_as_much_costs_eight_times_as_much() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut before = Before::new();
    for (name, make) in WORST {
        let [small, large] = [3 << 10, 24 << 10].map(make);
        let more = large.len() as f64 / small.len() as f64;
        let grows = before.cost(&large, 4) / before.cost(&small, 4);
        println!("{name}: {more:.1} times as large, {grows:.1} times as dear");
        assert!(grows <= 4.0 * more, "{name}: {more:.1} times as large, {grows:.1} times as dear");
    }
}

/// References to HPACK's table come to heads of HTTP/1.1's size at most, and cost what those cost.
#[test]
fn references_cost_what_they_come_to() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut before = Before::new();
    let clean = clean();
    let each = before.cost(&clean, 40) / clean.len() as f64;
    let size = 56 << 10;
    let start = std::time::Instant::now();
    for _ in 0..20 {
        before.http2(references(size));
    }
    let times = start.elapsed().as_nanos() as f64 / 20.0 / (each * size as f64);
    println!("{size} bytes of references: {times:.1} times as much as clean");
    assert!(times <= 30.0, "{times}");
}
