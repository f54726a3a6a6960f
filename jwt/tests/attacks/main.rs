//! Attacks on tokens: those of RFC 8725 and of published weaknesses of implementations. Each has its control, a token that
//! differs by the attack alone: that is accepted, and the attack is refused for its own reason.

#![allow(clippy::unwrap_used, clippy::panic)]

mod claims;
mod encodings;
mod headers;
mod signatures;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;

use jwt::{KeySet, Reason, RequiredClaim, Requirements, Verifier};
use serde_json::Value;

use self::support::{ALGORITHMS, ISSUES, KEYS, NOW_MS, asked, claims, header};

/// The least number of attacks.
const LEAST: usize = 150;

/// The attacks, and what they are tried on.
struct Corpus {
    group: &'static str,
    keys: &'static KeySet,
    asked: Requirements,
    counts: BTreeMap<&'static str, usize>,
    controls: usize,
    failures: Vec<String>,
}

impl Corpus {
    fn group(&mut self, group: &'static str) {
        self.group = group;
        self.asked = asked();
    }

    /// Tries an attack, beside its control.
    fn attack(&mut self, name: &str, control: impl AsRef<[u8]>, attack: impl AsRef<[u8]>, reason: Reason) {
        self.attack_at(name, (control.as_ref(), NOW_MS), (attack.as_ref(), NOW_MS), reason);
    }

    /// The same at two moments.
    fn attack_at(&mut self, name: &str, control: (&[u8], u64), attack: (&[u8], u64), reason: Reason) {
        *self.counts.entry(self.group).or_default() += 1;
        self.accepted(name, control.0, control.1);
        let verifier = Verifier::new(self.asked.clone(), ["sub"].into_iter());
        let result = verifier.verify(attack.0, self.keys, attack.1).map(|_| ());
        if result != Err(reason) || control == attack {
            self.failures.push(format!("{}: {name}: {result:?} instead of {reason:?}", self.group));
        }
    }

    /// Tries a token that must pass.
    fn accepted(&mut self, name: &str, token: impl AsRef<[u8]>, now_ms: u64) {
        self.controls += 1;
        let verifier = Verifier::new(self.asked.clone(), ["sub"].into_iter());
        if let Err(reason) = verifier.verify(token.as_ref(), self.keys, now_ms) {
            self.failures.push(format!("{}: {name}: the control is refused: {reason:?}", self.group));
        }
    }

    /// Tries an attack on the header of a token for RS256: these members in place of its own.
    fn header(&mut self, name: &str, members: &Value, reason: Reason) {
        let control = token("RS256");
        let mut changed = header("RS256");
        merge(&mut changed, members);
        let attack = ISSUES.token("RS256", &changed.to_string(), &claims().to_string());
        self.attack(name, control, attack, reason);
    }

    /// Tries an attack by the claims of a token: these members in place of its own.
    fn claims(&mut self, members: &Value, reason: Reason) {
        self.attack(&members.to_string(), token("ES256"), with_claims(members), reason);
    }
}

/// A good token.
fn token(algorithm: &str) -> String {
    ISSUES.token(algorithm, &header(algorithm).to_string(), &claims().to_string())
}

/// A token for ES256 whose claims are changed, and signed.
fn with_claims(members: &Value) -> String {
    let mut changed = claims();
    merge(&mut changed, members);
    ISSUES.token("ES256", &header("ES256").to_string(), &changed.to_string())
}

/// Puts members into an object; one that is `"<gone>"` is taken out.
fn merge(object: &mut Value, members: &Value) {
    let object = object.as_object_mut().unwrap();
    for (name, value) in members.as_object().unwrap() {
        object.remove(name);
        if value != "<gone>" {
            object.insert(name.clone(), value.clone());
        }
    }
}

fn required(path: &str, values: &[&str]) -> RequiredClaim {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    RequiredClaim { path: jwt::ClaimPath::parse(path).unwrap(), values }
}

#[test]
fn no_attack_passes_and_each_control_does() {
    let mut corpus =
        Corpus { group: "", keys: &KEYS, asked: asked(), counts: BTreeMap::new(), controls: 0, failures: vec![] };
    corpus.group("algorithms");
    for algorithm in ALGORITHMS {
        corpus.accepted(algorithm, token(algorithm), NOW_MS);
    }
    headers::run(&mut corpus);
    signatures::run(&mut corpus);
    encodings::run(&mut corpus);
    claims::run(&mut corpus);
    let attacks: usize = corpus.counts.values().sum();
    println!("{attacks} attacks, {} controls: {:?}", corpus.controls, corpus.counts);
    assert!(corpus.failures.is_empty(), "{:#?}", corpus.failures);
    assert!(attacks >= LEAST, "{attacks}");
}
