//! Sets of keys: what is left out, and why, and what a token may be signed by.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use jwt::{KeySet, KeySetError, MAX_JWKS_BYTES, MAX_KEYS, Origin, Reason, Unusable, UnusableKey, Verifier};
use serde_json::{Value, json};

use self::support::{ALGORITHMS, ATTACKS, ISSUES, NOW_MS, asked, claims, encode, header, key_set};

fn parse(set: &Value, origin: Origin) -> Result<(KeySet, Vec<UnusableKey>), KeySetError> {
    KeySet::parse(set.to_string().as_bytes(), origin)
}

fn verify(keys: &KeySet, token: &str) -> Result<(), Reason> {
    Verifier::new(asked(), [].into_iter()).verify(token.as_bytes(), keys, NOW_MS).map(|_| ())
}

/// The key of an algorithm, with members changed; `null`: taken out.
fn changed(algorithm: &str, members: &Value) -> Value {
    let mut jwk = ISSUES.jwk(algorithm);
    for (name, value) in members.as_object().unwrap() {
        jwk[name] = value.clone();
        if value.is_null() {
            jwk.as_object_mut().unwrap().remove(name);
        }
    }
    jwk
}

#[test]
fn a_key_that_can_not_be_used_is_left_out_and_told() {
    let (n, _) = ISSUES.rsa_numbers();
    let (x, y) = ISSUES.point("ES256");
    let even = [&n[..255], &[n[255] & 0xfe]].concat();
    let off_the_curve = [&y[..31], &[y[31] ^ 1]].concat();
    let mut cases = vec![
        ("RS256", json!({"kty": "DSA"}), Unusable::UnknownType),
        ("RS256", json!({"kty": null}), Unusable::UnknownType),
        ("RS256", json!({"kty": "rsa"}), Unusable::UnknownType),
        ("ES256", json!({"crv": "secp256k1"}), Unusable::UnknownType),
        ("ES256", json!({"crv": null}), Unusable::UnknownType),
        ("EdDSA", json!({"crv": "Ed448"}), Unusable::UnknownType),
        ("EdDSA", json!({"crv": "X25519"}), Unusable::UnknownType),
        ("RS256", json!({"alg": "none"}), Unusable::WrongAlgorithm),
        ("RS256", json!({"alg": "HS256"}), Unusable::WrongAlgorithm),
        ("RS256", json!({"alg": "ES256"}), Unusable::WrongAlgorithm),
        ("RS256", json!({"alg": "RSA-OAEP"}), Unusable::WrongAlgorithm),
        ("ES256", json!({"alg": "ES384"}), Unusable::WrongAlgorithm),
        ("ES256", json!({"alg": "RS256"}), Unusable::WrongAlgorithm),
        ("ES256", json!({"alg": "HS256"}), Unusable::WrongAlgorithm),
        ("EdDSA", json!({"alg": "ES256"}), Unusable::WrongAlgorithm),
        ("HS256", json!({"alg": "RS256"}), Unusable::WrongAlgorithm),
        ("HS256", json!({"alg": "EdDSA"}), Unusable::WrongAlgorithm),
        ("HS256", json!({"alg": null}), Unusable::NoAlgorithm),
        ("RS256", json!({"use": "enc"}), Unusable::OtherUse),
        ("RS256", json!({"use": "SIG"}), Unusable::OtherUse),
        ("RS256", json!({"key_ops": ["sign"]}), Unusable::OtherUse),
        ("RS256", json!({"key_ops": []}), Unusable::OtherUse),
        ("RS256", json!({"key_ops": "verify"}), Unusable::OtherUse),
        ("RS256", json!({"use": 1}), Unusable::InvalidKey),
        ("RS256", json!({"kid": 1}), Unusable::InvalidKey),
        ("RS256", json!({"kid": "k".repeat(1025)}), Unusable::InvalidKey),
        ("RS256", json!({"alg": ["RS256"]}), Unusable::InvalidKey),
        ("RS256", json!({"n": encode(&n[128..])}), Unusable::WrongLength),
        ("RS256", json!({"n": encode([&[1], &n[1..255]].concat())}), Unusable::WrongLength),
        ("RS256", json!({"n": encode([&[0xff], &n[..], &n[..]].concat())}), Unusable::WrongLength),
        ("RS256", json!({"n": ""}), Unusable::WrongLength),
        ("RS256", json!({"n": encode(even)}), Unusable::InvalidKey),
        ("RS256", json!({"n": null}), Unusable::InvalidKey),
        ("RS256", json!({"n": format!("{}=", encode(&n))}), Unusable::InvalidKey),
        ("RS256", json!({"e": encode([1])}), Unusable::InvalidKey),
        ("RS256", json!({"e": encode([2])}), Unusable::InvalidKey),
        ("RS256", json!({"e": encode([0])}), Unusable::InvalidKey),
        ("RS256", json!({"e": ""}), Unusable::InvalidKey),
        ("RS256", json!({"e": encode([1, 0, 0, 0, 1])}), Unusable::InvalidKey),
        ("RS256", json!({"e": 65537}), Unusable::InvalidKey),
        ("ES256", json!({"y": encode(off_the_curve)}), Unusable::InvalidKey),
        ("ES256", json!({"x": encode([0; 32]), "y": encode([0; 32])}), Unusable::InvalidKey),
        ("ES256", json!({"x": encode([0xff; 32])}), Unusable::InvalidKey),
        ("ES256", json!({"x": encode(&x[1..])}), Unusable::InvalidKey),
        ("ES256", json!({"x": encode([&[0], &x[..]].concat())}), Unusable::InvalidKey),
        ("ES256", json!({"y": null}), Unusable::InvalidKey),
        ("ES384", json!({"crv": "P-256", "alg": "ES256"}), Unusable::InvalidKey),
        ("ES256", json!({"crv": "P-521", "alg": null}), Unusable::InvalidKey),
        ("EdDSA", json!({"x": encode([1; 31])}), Unusable::InvalidKey),
        ("EdDSA", json!({"x": encode([1; 33])}), Unusable::InvalidKey),
        ("HS256", json!({"k": encode([1; 31])}), Unusable::WrongLength),
        ("HS384", json!({"k": encode([1; 47])}), Unusable::WrongLength),
        ("HS512", json!({"k": encode([1; 63])}), Unusable::WrongLength),
        ("HS256", json!({"k": ""}), Unusable::WrongLength),
        ("HS256", json!({"k": encode([1; 1025])}), Unusable::WrongLength),
    ];
    for (algorithm, name) in [
        ("RS256", "d"),
        ("RS256", "p"),
        ("RS256", "q"),
        ("RS256", "dp"),
        ("RS256", "dq"),
        ("RS256", "qi"),
        ("RS256", "oth"),
        ("ES256", "d"),
        ("EdDSA", "d"),
    ] {
        cases.push((algorithm, json!({name: "AQ"}), Unusable::Private));
    }
    for (algorithm, members, cause) in cases {
        let jwk = changed(algorithm, &members);
        let alone = parse(&json!({"keys": [jwk]}), Origin::Secret);
        assert_eq!(
            alone.err(),
            Some(KeySetError::NoUsableKey(vec![UnusableKey { index: 0, cause }])),
            "{algorithm} {members}"
        );
        // Beside others, which go on, and the control: the key as it was.
        let (keys, unusable) =
            parse(&json!({"keys": [ISSUES.jwk("PS512"), jwk, ISSUES.jwk(algorithm)]}), Origin::Secret).unwrap();
        assert_eq!((keys.len(), unusable), (2, vec![UnusableKey { index: 1, cause }]));
        verify(&keys, &ISSUES.token(algorithm, &header(algorithm).to_string(), &claims().to_string())).unwrap();
    }
}

#[test]
fn a_symmetric_key_counts_where_it_is_secret() {
    let set = json!({"keys": [ISSUES.jwk("HS256"), ISSUES.jwk("RS256")]});
    let (keys, unusable) = parse(&set, Origin::Public).unwrap();
    assert_eq!((keys.len(), unusable), (1, vec![UnusableKey { index: 0, cause: Unusable::Symmetric }]));
    let token = ISSUES.token("HS256", &header("HS256").to_string(), &claims().to_string());
    assert_eq!(verify(&keys, &token), Err(Reason::UnknownKey));
    assert_eq!(verify(&parse(&set, Origin::Secret).unwrap().0, &token), Ok(()));
}

#[test]
fn what_is_no_set_is_refused() {
    let key = ISSUES.jwk("RS256");
    for text in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[1]}"#, r#"{"keys":null}"#, r#"{"keys":[]} x"#] {
        assert_eq!(KeySet::parse(text.as_bytes(), Origin::Secret).err(), Some(KeySetError::Malformed), "{text}");
    }
    let twice = format!(r#"{{"keys":[{key}],"keys":[{key}]}}"#);
    assert_eq!(KeySet::parse(twice.as_bytes(), Origin::Secret).err(), Some(KeySetError::Malformed));
    assert_eq!(parse(&json!({"keys": []}), Origin::Secret).err(), Some(KeySetError::NoUsableKey(vec![])));
    // A key alone is no set.
    assert_eq!(parse(&key, Origin::Secret).err(), Some(KeySetError::Malformed));
    let many = json!({"keys": vec![json!({"kty": "x"}); MAX_KEYS + 1]});
    assert_eq!(parse(&many, Origin::Secret).err(), Some(KeySetError::TooManyKeys));
    let long = format!("{}{}", " ".repeat(MAX_JWKS_BYTES), json!({"keys": [key]}));
    assert_eq!(KeySet::parse(long.as_bytes(), Origin::Secret).err(), Some(KeySetError::TooLong));
    let private = changed("RS256", &json!({"d": "AQ"}));
    let error = parse(&json!({"keys": [private]}), Origin::Secret).unwrap_err().to_string();
    assert!(error.starts_with("it has no key that can be used; keys[0]: it has private members"), "{error}");
}

#[test]
fn what_a_key_does_not_say_is_what_it_can_only_be() {
    let without = |algorithm: &str| changed(algorithm, &json!({"alg": null, "use": null}));
    for algorithm in ["RS256", "ES256", "ES384", "ES512", "EdDSA"] {
        let keys = key_set(&json!({"keys": [without(algorithm)]}));
        let token = ISSUES.token(algorithm, &header(algorithm).to_string(), &claims().to_string());
        assert_eq!(verify(&keys, &token), Ok(()), "{algorithm}");
    }
    let keys = key_set(&json!({"keys": [without("RS512")]}));
    for other in ["RS384", "RS512", "PS256"] {
        let token = ISSUES.token(other, &json!({"alg": other, "kid": "rs512"}).to_string(), &claims().to_string());
        assert_eq!(verify(&keys, &token), Err(Reason::WrongAlgorithm), "{other}");
    }
    // A zero before the modulus is what some issuers write; RFC 9864's name for EdDSA is another for the same.
    let (n, e) = ISSUES.rsa_numbers();
    let zeros = json!({"n": encode([&[0], &n[..]].concat()), "e": encode([&[0, 0], &e[..]].concat())});
    let keys = key_set(&json!({"keys": [changed("RS256", &zeros), changed("EdDSA", &json!({"alg": "Ed25519"}))]}));
    for (algorithm, name) in [("RS256", "RS256"), ("EdDSA", "EdDSA"), ("EdDSA", "Ed25519")] {
        let header = json!({"alg": name, "kid": algorithm.to_lowercase()}).to_string();
        assert_eq!(verify(&keys, &ISSUES.token(algorithm, &header, &claims().to_string())), Ok(()), "{name}");
    }
}

#[test]
fn keys_of_one_kid_are_tried_up_to_a_bound() {
    let named = |party: &support::Party, algorithm: &str, kid: Value| {
        let mut jwk = party.jwk(algorithm);
        jwk["kid"] = kid;
        if jwk["kid"].is_null() {
            jwk.as_object_mut().unwrap().remove("kid");
        }
        jwk
    };
    let token = |header: Value| ISSUES.token("RS256", &header.to_string(), &claims().to_string());
    let of_name = token(json!({"alg": "RS256", "kid": "a"}));
    let of_none = token(json!({"alg": "RS256"}));
    let wrong = named(&ATTACKS, "RS256", "a".into());
    let right = named(&ISSUES, "RS256", "a".into());
    // One `kid` for two types of keys, and for two keys of one type (RFC 7517 section 4.5).
    let keys = key_set(&json!({"keys": [named(&ISSUES, "ES256", "a".into()), wrong, right]}));
    assert_eq!((verify(&keys, &of_name), verify(&keys, &of_none)), (Ok(()), Ok(())));
    // The fifth of a name is left out.
    let set = json!({"keys": [wrong, wrong, wrong, wrong, right]});
    let (keys, unusable) = parse(&set, Origin::Secret).unwrap();
    assert_eq!((keys.len(), unusable), (4, vec![UnusableKey { index: 4, cause: Unusable::Duplicate }]));
    assert_eq!(verify(&keys, &of_name), Err(Reason::WrongSignature));
    // Without a name, four are tried, and of more none.
    let several = |count: usize| {
        let others = (0..count).map(|n| named(&ATTACKS, "RS256", n.to_string().into()));
        let jwks: Vec<_> = others.chain([named(&ISSUES, "RS256", "a".into())]).collect();
        key_set(&json!({"keys": jwks}))
    };
    assert_eq!(verify(&several(3), &of_none), Ok(()));
    assert_eq!(verify(&several(4), &of_none), Err(Reason::KeyIdMissing));
    assert_eq!(verify(&several(90), &of_name), Ok(()));
    // A key without a name answers to each.
    let keys = key_set(&json!({"keys": [named(&ISSUES, "RS256", Value::Null)]}));
    assert_eq!((verify(&keys, &of_name), verify(&keys, &of_none)), (Ok(()), Ok(())));
    assert_eq!(
        verify(&key_set(&json!({"keys": ALGORITHMS.map(|of| ISSUES.jwk(of))})), &of_name),
        Err(Reason::UnknownKey)
    );
}
