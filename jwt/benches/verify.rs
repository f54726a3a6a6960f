//! What a token costs, verified and remembered: `cargo bench -p jwt --profile e2e`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{hint::black_box, sync::Arc, time::Instant};

use jwt::{MAX_TOKEN_BYTES, Remembered, TokenId, Verifier};

use self::support::{ALGORITHMS, ISSUES, KEYS, NOW_MS, asked, claims, encode, header};

fn main() {
    // `cargo test --benches` runs this too; there it only has to compile.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let verifier = Verifier::new(asked(), ["sub"].into_iter());
    for algorithm in ALGORITHMS {
        let token = ISSUES.token(algorithm, &header(algorithm).to_string(), &claims().to_string());
        measure(&format!("verify: {algorithm}"), 3_000, |_| {
            black_box(verifier.verify(black_box(token.as_bytes()), &KEYS, NOW_MS)).unwrap();
        });
    }
    refused(&verifier);
    remembered();
}

/// What who has no key can make the proxy do.
fn refused(verifier: &Verifier) {
    let good = ISSUES.token("RS256", &header("RS256").to_string(), &claims().to_string());
    let (_, signature) = good.rsplit_once('.').unwrap();
    let members: Vec<_> = (0..).map(|n| format!("\"{n:x}\":0")).take(1_300).collect();
    let wide = format!("{{\"alg\":\"RS256\",{}}}", members.join(","));
    let filler = encode("x".repeat(11_000));
    for (what, token) in [
        ("a wrong signature", format!("{}.{}.{signature}", encode(header("RS256").to_string()), encode("{}"))),
        ("a wrong signature over 15 KB", format!("{}.{filler}.{signature}", encode(header("RS256").to_string()))),
        ("a header of 1,300 members", format!("{}..", encode(wide))),
        ("16 KiB of dots", ".".repeat(MAX_TOKEN_BYTES)),
        ("a megabyte", "e".repeat(1 << 20)),
    ] {
        measure(&format!("refuse: {what}"), 3_000, |_| {
            black_box(verifier.verify(black_box(token.as_bytes()), &KEYS, NOW_MS)).unwrap_err();
        });
    }
}

fn remembered() {
    let memory = Remembered::new(16 << 20);
    let token = |n: u64| format!("{n:0900}");
    let id = |token: &str| TokenId::new(b"policy", token.as_bytes());
    let tokens: Vec<String> = (0..10_000).map(token).collect();
    for token in &tokens {
        memory.insert(id(token), 1, (Arc::new(0), 200), u64::MAX, 0);
    }
    measure("remembered: one of 10,000, its hash included", 300_000, |i| {
        let token = &tokens[(i.wrapping_mul(0x9e37_79b9) % 10_000) as usize];
        black_box(memory.get(id(black_box(token)), 0)).unwrap();
    });
    measure("remembered: a new one for an old one", 100_000, |i| {
        memory.insert(id(&token(10_000 + i)), i % 7, (Arc::new(0), 200), u64::MAX, 0);
    });
    println!("remembered: {:?} entries and bytes", memory.size());
}

/// Short rounds, of which one is left alone by whatever else runs.
fn measure(what: &str, rounds: u64, mut work: impl FnMut(u64)) {
    const ROUND: u64 = 10;
    let mut best = f64::MAX;
    for round in 0..rounds / ROUND {
        let start = Instant::now();
        (round * ROUND..(round + 1) * ROUND).for_each(&mut work);
        best = best.min(start.elapsed().as_nanos() as f64 / ROUND as f64);
    }
    println!("{what:<60} {best:>9.0} ns");
}
