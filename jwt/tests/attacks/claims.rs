//! Tokens that are signed, and not for here, not now, or not enough.

use jwt::{MAX_LEEWAY_SECONDS, Reason};
use serde_json::{Value, json};

use crate::{
    Corpus, NOW_MS, required,
    support::{AUDIENCE, ISSUER, NOW},
    with_claims,
};

pub(crate) fn run(corpus: &mut Corpus) {
    times(corpus);
    numbers(corpus);
    issuers(corpus);
    audiences(corpus);
    claims(corpus);
    scopes(corpus);
}

/// Each edge, to the millisecond.
fn times(corpus: &mut Corpus) {
    corpus.group("times");
    for leeway in [0, 1, 30, MAX_LEEWAY_SECONDS, u64::MAX] {
        corpus.asked.leeway_seconds = leeway;
        let leeway_ms = leeway.min(MAX_LEEWAY_SECONDS) * 1000;
        let mut edge = |members: Value, good: u64, bad: u64, reason| {
            let token = with_claims(&members);
            let name = format!("{members} with {leeway}: {bad}");
            corpus.attack_at(&name, (token.as_bytes(), good), (token.as_bytes(), bad), reason);
        };
        let end = NOW_MS + leeway_ms;
        edge(json!({"exp": NOW}), end - 1, end, Reason::Expired);
        edge(json!({"exp": NOW}), end - 1, end + 1, Reason::Expired);
        edge(json!({"exp": NOW}), end - 1, u64::MAX, Reason::Expired);
        edge(json!({"exp": NOW as f64 + 0.5}), end + 499, end + 500, Reason::Expired);
        let begin = NOW_MS - leeway_ms;
        edge(json!({"nbf": NOW}), begin, begin - 1, Reason::NotYetValid);
        edge(json!({"nbf": NOW, "iat": 0}), begin, 0, Reason::NotYetValid);
        edge(json!({"nbf": NOW as f64 + 0.5}), begin + 500, begin + 499, Reason::NotYetValid);
        edge(json!({"iat": NOW}), begin, begin - 1, Reason::NotYetValid);
        edge(json!({"iat": NOW, "nbf": 0}), begin, begin - 1, Reason::NotYetValid);
    }
    corpus.group("times");
    for exp in [0, 1, -1, i64::MIN] {
        corpus.claims(&json!({"exp": exp}), Reason::Expired);
    }
    corpus.claims(&json!({"exp": "<gone>"}), Reason::MissingClaim);
    corpus.claims(&json!({"nbf": NOW + 1}), Reason::NotYetValid);
    corpus.claims(&json!({"iat": NOW + 1}), Reason::NotYetValid);
    // The end of the year 9999 is the last moment.
    corpus.accepted("9999", with_claims(&json!({"exp": 253_402_300_799_u64})), NOW_MS);
    corpus.accepted("without iat", with_claims(&json!({"iat": "<gone>"})), NOW_MS);
    corpus.accepted("exact floats", with_claims(&json!({"exp": NOW as f64 + 300.25, "iat": 1.0})), NOW_MS);
}

fn numbers(corpus: &mut Corpus) {
    corpus.group("dates that are none");
    for name in ["exp", "nbf", "iat"] {
        for value in [
            json!((NOW + 300).to_string()),
            json!("2030-01-01T00:00:00Z"),
            json!(""),
            json!(null),
            json!(true),
            json!(false),
            json!([NOW + 300]),
            json!([]),
            json!({}),
            // Milliseconds, and what one parser rounds, another cuts off, and a third wraps around.
            json!(NOW_MS + 300_000),
            json!(253_402_300_800_u64),
            json!(u64::MAX),
            json!(i64::MAX),
            json!(1e19),
            json!(1e300),
        ] {
            corpus.claims(&json!({name: value}), Reason::InvalidClaim);
        }
    }
}

fn issuers(corpus: &mut Corpus) {
    corpus.group("issuers");
    for value in [
        json!("<gone>"),
        json!(null),
        json!(""),
        json!("https://id.example/"),
        json!("http://id.example"),
        json!("https://ID.example"),
        json!("https://id.example.attacker.example"),
        json!("https://id.example@attacker.example"),
        json!("https://attacker.example/https://id.example"),
        json!("https://id.example "),
        json!(" https://id.example"),
        json!("https://id.example\0"),
        json!("https://id.example#"),
        json!("https://id.exampl"),
        json!([ISSUER]),
        json!({"iss": ISSUER}),
        json!(1),
        json!(true),
    ] {
        corpus.claims(&json!({"iss": value}), Reason::WrongIssuer);
    }
}

fn audiences(corpus: &mut Corpus) {
    corpus.group("audiences");
    for value in [
        json!("<gone>"),
        json!(""),
        json!("order"),
        json!("orders "),
        json!("Orders"),
        json!("orders,admin"),
        json!("orders admin"),
        json!("*"),
        json!([]),
        json!(["billing"]),
        json!(["order", "s"]),
        json!(["", "*", "Orders"]),
        json!(["[\"orders\"]"]),
    ] {
        corpus.claims(&json!({"aud": value}), Reason::WrongAudience);
    }
    for value in [
        json!(null),
        json!(0),
        json!(true),
        json!({}),
        json!({"orders": true}),
        json!({"0": AUDIENCE}),
        json!([[AUDIENCE]]),
        json!([AUDIENCE, 1]),
        json!([null, AUDIENCE]),
        json!([AUDIENCE, ["x"]]),
        json!([{"aud": AUDIENCE}]),
    ] {
        corpus.claims(&json!({"aud": value}), Reason::InvalidClaim);
    }
    for value in [json!([AUDIENCE]), json!(["billing", AUDIENCE]), json!([AUDIENCE, AUDIENCE])] {
        corpus.accepted(&value.to_string(), with_claims(&json!({"aud": value})), NOW_MS);
    }
    corpus.asked.audiences.push("billing".into());
    corpus.accepted("one of two", with_claims(&json!({"aud": "billing"})), NOW_MS);
    // RFC 7519 section 4.1.3: who is not named must refuse.
    corpus.asked.audiences.clear();
    let control = with_claims(&json!({"aud": "<gone>"}));
    for value in [json!(AUDIENCE), json!([AUDIENCE]), json!([]), json!("")] {
        let attack = with_claims(&json!({"aud": value}));
        corpus.attack(&format!("{value}, of nobody"), &control, attack, Reason::WrongAudience);
    }
}

fn claims(corpus: &mut Corpus) {
    corpus.group("required claims");
    let mut tries = |path: &str, values: &[&str], control: Value, attacks: &[Value]| {
        corpus.asked.claims = vec![required(path, values)];
        for attack in attacks {
            let name = format!("{path} {values:?}: {attack}");
            corpus.attack(&name, with_claims(&control), with_claims(attack), Reason::MissingClaim);
        }
    };
    let wrong = |name: &str| {
        let values =
            [json!("use"), json!("users"), json!("User"), json!("user "), json!(" user"), json!(["users"]), json!([])];
        let more =
            [json!([["user"]]), json!({"user": true}), json!(null), json!(1), json!("user,admin"), json!("<gone>")];
        values.into_iter().chain(more).map(|value| json!({name: value})).collect::<Vec<_>>()
    };
    tries("role", &["user"], json!({"role": "user"}), &wrong("role"));
    tries("role", &["admin", "user"], json!({"role": ["guest", "user"]}), &wrong("role"));
    tries(
        "email_verified",
        &["true"],
        json!({"email_verified": true}),
        &[
            json!({"email_verified": false}),
            json!({"email_verified": 1}),
            json!({"email_verified": [false]}),
            json!({}),
        ],
    );
    tries(
        "tenant",
        &["7"],
        json!({"tenant": 7}),
        &[json!({"tenant": 70}), json!({"tenant": 7.5}), json!({"tenant": -7})],
    );
    tries("tenant", &[], json!({"tenant": ""}), &[json!({"tenant": null}), json!({"Tenant_": 1})]);
    let nested = |roles: Value| json!({"realm_access": {"roles": roles}});
    tries(
        "/realm_access/roles",
        &["user"],
        nested(json!(["user"])),
        &[
            nested(json!(["admin"])),
            nested(json!({"0": "user"})),
            json!({"realm_access": ["roles", "user"]}),
            json!({"realm_access": "user"}),
            json!({"realm_access/roles": ["user"]}),
            json!({"realm_access.roles": ["user"]}),
            json!({"/realm_access/roles": ["user"]}),
            json!({"roles": ["user"]}),
        ],
    );
    // Another spelling of a claim that is asked for.
    corpus.asked.claims = vec![required("role", &["user"])];
    let control = with_claims(&json!({"role": "user"}));
    corpus.attack("Role", &control, with_claims(&json!({"role": "user", "Role": "admin"})), Reason::AmbiguousMember);
}

/// RFC 6750 section 3.1: `insufficient_scope`.
fn scopes(corpus: &mut Corpus) {
    corpus.group("scopes");
    corpus.asked.scopes = vec!["read".into(), "write".into()];
    let control = with_claims(&json!({}));
    for members in [
        json!({"scope": "<gone>"}),
        json!({"scope": ""}),
        json!({"scope": "read"}),
        json!({"scope": "read writes"}),
        json!({"scope": "read,write"}),
        json!({"scope": "read\twrite"}),
        json!({"scope": "read\u{a0}write"}),
        json!({"scope": "READ WRITE"}),
        json!({"scope": ["read write"]}),
        json!({"scope": ["read"]}),
        json!({"scope": [], "scp": ["read", "write"]}),
        json!({"scope": "", "scp": "read write"}),
        json!({"scope": "<gone>", "scp": "read"}),
        json!({"scope": "<gone>", "scopes": "read write"}),
        json!({"scope": "<gone>", "roles": ["read", "write"]}),
    ] {
        let attack = with_claims(&members);
        corpus.attack(&members.to_string(), &control, attack, Reason::InsufficientScope);
    }
    for value in [json!(null), json!(1), json!(true), json!({"read": true, "write": true}), json!(["read", "write", 1])]
    {
        corpus.claims(&json!({"scope": value}), Reason::InvalidClaim);
    }
    for members in [
        json!({"scope": "write  read"}),
        json!({"scope": ["admin", "write", "read"]}),
        json!({"scope": "<gone>", "scp": "read write"}),
        json!({"scope": "<gone>", "scp": ["write", "read"]}),
    ] {
        corpus.accepted(&members.to_string(), with_claims(&members), NOW_MS);
    }
}
