//! What must hold of any token and any set of keys.

#![allow(clippy::unwrap_used)]

mod support;

use jwt::{ClaimPath, KeySet, Origin, Reason, Verifier};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use self::support::{ALGORITHMS, ISSUES, KEYS, NOW_MS, asked, claims, encode, header};

/// A JSON value of any kind, and what looks like one.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        ".{0,8}".prop_map(|text| Value::from(text).to_string()),
        ".{0,4}",
    ];
    leaf.prop_recursive(20, 40, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(","))),
            vec((name(), inner), 0..4).prop_map(|list| {
                let members: Vec<_> =
                    list.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    const READ: [&str; 20] = [
        "alg", "kid", "typ", "crit", "b64", "iss", "aud", "exp", "nbf", "iat", "scope", "scp", "kty", "n", "e", "keys",
        "k", "x", "y", "crv",
    ];
    prop_oneof![select(&READ[..]).prop_map(str::to_owned), ".{0,4}"]
}

fn verify(token: &[u8], now_ms: u64) -> Result<(), Reason> {
    Verifier::new(asked(), ["sub"].into_iter()).verify(token, &KEYS, now_ms).map(|_| ())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_bytes_are_a_token(bytes in vec(any::<u8>(), 0..200), now in any::<u64>()) {
        prop_assert!(verify(&bytes, now).is_err());
    }

    #[test]
    fn no_json_without_a_signature_is_a_token(header in any_json(), claims in any_json(), signature in vec(any::<u8>(), 0..600)) {
        let token = format!("{}.{}.{}", encode(header), encode(claims), encode(signature));
        prop_assert!(verify(token.as_bytes(), NOW_MS).is_err());
    }

    #[test]
    fn signed_json_that_is_anything_never_panics(claims in any_json(), now in any::<u64>()) {
        let token = ISSUES.token("HS256", &header("HS256").to_string(), &claims);
        // Nobody is named by chance.
        prop_assert!(verify(token.as_bytes(), now).is_err());
    }

    #[test]
    fn claims_of_any_value_never_panic(name in name(), value in any_json(), path in "/?.{0,6}") {
        let mut text = claims().to_string();
        text.truncate(text.len() - 1);
        let text = format!("{text},{}:{value}}}", Value::from(name));
        let verifier = Verifier::new(asked(), [].into_iter());
        let token = ISSUES.token("HS256", &header("HS256").to_string(), &text);
        if let (Ok(verified), Ok(path)) = (verifier.verify(token.as_bytes(), &KEYS, NOW_MS), ClaimPath::parse(&path)) {
            let field = verified.claims.field(&path);
            prop_assert!(field.is_none_or(|field| !field.contains(['\r', '\n', '\0'])));
        }
    }

    #[test]
    fn no_byte_of_a_token_can_be_changed(algorithm in select(&ALGORITHMS[..]), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let token = ISSUES.token(algorithm, &header(algorithm).to_string(), &claims().to_string());
        prop_assert_eq!(verify(token.as_bytes(), NOW_MS), Ok(()));
        let mut changed = token.into_bytes();
        let at = at.index(changed.len());
        if changed[at] != to {
            changed[at] = to;
            prop_assert!(verify(&changed, NOW_MS).is_err());
        }
    }

    #[test]
    fn no_json_makes_a_set_of_keys_panic(json in any_json(), bytes in vec(any::<u8>(), 0..100), secret in any::<bool>()) {
        let origin = if secret { Origin::Secret } else { Origin::Public };
        let _ = KeySet::parse(&bytes, origin);
        let _ = KeySet::parse(json.as_bytes(), origin);
        let _ = KeySet::parse(format!("{{\"keys\":[{json}]}}").as_bytes(), origin);
    }

    #[test]
    fn no_values_make_a_key_panic(
        kty in select(&["RSA", "EC", "OKP", "oct"][..]),
        curve in select(&["P-256", "P-384", "P-521", "Ed25519"][..]),
        long in vec(any::<u8>(), 0..600),
        x in vec(any::<u8>(), 0..67),
        y in vec(any::<u8>(), 0..67),
    ) {
        let [long, x, y] = [long, x, y].map(encode);
        let key = json!({"kty": kty, "crv": curve, "n": long, "e": x, "k": long, "x": x, "y": y});
        let _ = KeySet::parse(json!({"keys": [key]}).to_string().as_bytes(), Origin::Secret);
    }
}
