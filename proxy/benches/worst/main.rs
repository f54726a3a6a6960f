//! What heads cost that are meant to cost more than they weigh, beside a clean one: `cargo bench -p proxy --profile e2e
//! --bench worst`. The goal: none more than 3 times as much for each KiB.

#![allow(missing_docs, clippy::unwrap_used)]

mod inputs;

use inputs::{Before, WORST, clean};

fn main() {
    // `cargo test --benches` runs this too; there it only has to compile.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let mut before = Before::new();
    let clean = clean();
    let each = before.cost(&clean, 200);
    println!("{:<40} {:>6} bytes {each:>9.0} ns", "clean", clean.len());
    for (name, make) in WORST {
        for size in [1 << 10, 8 << 10, 30 << 10] {
            let head = make(size);
            let cost = before.cost(&head, 50);
            let fair = each * (head.len() as f64 / clean.len() as f64).max(1.0);
            println!("{name:<40} {:>6} bytes {cost:>9.0} ns  {:>6.2} x", head.len(), cost / fair);
        }
    }
}
