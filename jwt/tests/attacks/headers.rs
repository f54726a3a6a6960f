//! Attacks by the header: other algorithms, other keys, extensions.

use aws_lc_rs::hmac;
use data_encoding::BASE64;
use jwt::Reason;
use serde_json::json;

use crate::{
    Corpus,
    support::{ALGORITHMS, ATTACKS, ISSUES, claims, encode, header, mac},
    token,
};

pub(crate) fn run(corpus: &mut Corpus) {
    confusion(corpus);
    none(corpus);
    key_ids(corpus);
    keys_of_the_token(corpus);
    extensions(corpus);
    types(corpus);
}

/// Another algorithm than the key's (RFC 8725 section 2.1, CVE-2015-9235, CVE-2016-5431).
fn confusion(corpus: &mut Corpus) {
    corpus.group("algorithm confusion");
    for key in ALGORITHMS {
        for claimed in ALGORITHMS.into_iter().filter(|claimed| *claimed != key) {
            let mut header = header(key);
            header["alg"] = claimed.into();
            let header = header.to_string();
            // Signed as the header says, where one has a key for that: it is the issuer's.
            let attack = ISSUES.token(claimed, &header, &claims().to_string());
            corpus.attack(&format!("{claimed} by the key for {key}"), token(key), attack, Reason::WrongAlgorithm);
        }
    }
    // HMAC by what is public of a key, in the forms in which implementations keep it.
    let rsa = ISSUES.rsa_der();
    let (n, _) = ISSUES.rsa_numbers();
    let pem = |label: &str, der: &[u8]| {
        let lines: Vec<_> = BASE64.encode(der).into_bytes().chunks(64).map(<[u8]>::to_vec).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----", String::from_utf8(lines.join(&b'\n')).unwrap())
    };
    // SubjectPublicKeyInfo: rsaEncryption, and the key as a BIT STRING.
    let spki =
        [
            &[
                0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
                0x05,
            ][..],
            &[0x00, 0x03, 0x82, 0x01, 0x0f, 0x00],
            &rsa,
        ]
        .concat();
    let (x, y) = ISSUES.point("ES256");
    let point = [&[4], &x[..], &y].concat();
    for (name, kid, secret) in [
        ("a modulus", "rs256", n),
        ("a public key in DER", "rs256", rsa.clone()),
        ("a SubjectPublicKeyInfo", "rs256", spki.clone()),
        ("a SubjectPublicKeyInfo in PEM", "rs256", pem("PUBLIC KEY", &spki).into_bytes()),
        ("the same with a newline", "rs256", format!("{}\n", pem("PUBLIC KEY", &spki)).into_bytes()),
        ("a public key in PEM", "rs256", pem("RSA PUBLIC KEY", &rsa).into_bytes()),
        ("a JWK", "rs256", ISSUES.jwk("RS256").to_string().into_bytes()),
        ("a point", "es256", point),
        ("its x", "es256", x),
        ("a public key of Ed25519", "eddsa", ISSUES.jwk("EdDSA")["x"].to_string().into_bytes()),
        ("nothing", "rs256", vec![]),
    ] {
        for key_id in [Some(kid), None] {
            let mut header = json!({"alg": "HS256"});
            if let Some(key_id) = key_id {
                header["kid"] = key_id.into();
            }
            let signed = format!("{}.{}", encode(header.to_string()), encode(claims().to_string()));
            let attack = format!("{signed}.{}", encode(mac(hmac::HMAC_SHA256, &secret, signed.as_bytes())));
            let reason = if key_id.is_some() { Reason::WrongAlgorithm } else { Reason::WrongSignature };
            corpus.attack(&format!("HMAC by {name}"), token("RS256"), attack, reason);
        }
    }
}

/// No signature at all (CVE-2015-2951, CVE-2018-1000531, CVE-2020-28042).
fn none(corpus: &mut Corpus) {
    corpus.group("none");
    let claims = claims().to_string();
    for alg in [
        "none", "None", "NONE", "nOnE", "none ", " none", "", "null", "hs256", "RS256 ", "HS257", "RSA1_5", "dir",
        "A128KW",
    ] {
        for kid in [Some("rs256"), None] {
            let mut header = json!({"alg": alg});
            if let Some(kid) = kid {
                header["kid"] = kid.into();
            }
            let unsigned = format!("{}.{}.", encode(header.to_string()), encode(&claims));
            corpus.attack(
                &format!("{alg:?} and no signature"),
                token("RS256"),
                &unsigned,
                Reason::UnsupportedAlgorithm,
            );
        }
        let signed = ISSUES.token("RS256", &json!({"alg": alg, "kid": "rs256"}).to_string(), &claims);
        corpus.attack(&format!("{alg:?} and a signature"), token("RS256"), signed, Reason::UnsupportedAlgorithm);
    }
    for algorithm in ALGORITHMS {
        let good = token(algorithm);
        let (signed, _) = good.rsplit_once('.').unwrap();
        corpus.attack(&format!("{algorithm} and no signature"), &good, format!("{signed}."), Reason::WrongSignature);
    }
    for alg in [json!(null), json!(0), json!(true), json!(["RS256"]), json!({"RS256": 1}), json!("<gone>")] {
        corpus.header(&format!("alg is {alg}"), &json!({"alg": alg}), Reason::Malformed);
    }
}

/// A `kid` that is a path, a query, or another type (RFC 8725 section 3.10).
fn key_ids(corpus: &mut Corpus) {
    corpus.group("kid injection");
    let claims = claims().to_string();
    for kid in [
        "../../../../dev/null",
        "/dev/null",
        "x' UNION SELECT 'key",
        "rs256' OR '1'='1",
        "rs256\0",
        "rs256 ",
        "RS256",
        "rs25",
        "rs2566",
        "*",
        "",
        "https://attacker.example/key",
        "$(cat key)",
        "rs256,es256",
        "0",
        "__proto__",
        "ｒs256",
    ] {
        // By an empty secret, which is what lies in /dev/null, and by the attacker's own.
        let header = json!({"alg": "HS256", "kid": kid}).to_string();
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let attack = format!("{signed}.{}", encode(mac(hmac::HMAC_SHA256, b"", signed.as_bytes())));
        corpus.attack(&format!("{kid:?} and an empty secret"), token("HS256"), attack, Reason::UnknownKey);
        let attack = ATTACKS.token("RS256", &json!({"alg": "RS256", "kid": kid}).to_string(), &claims);
        corpus.attack(&format!("{kid:?} and another key"), token("RS256"), attack, Reason::UnknownKey);
    }
    corpus.header("a long one", &json!({"kid": "k".repeat(8_000)}), Reason::UnknownKey);
    for kid in [json!(null), json!(0), json!(["rs256"]), json!({"$ne": ""}), json!(true)] {
        corpus.header(&format!("kid is {kid}"), &json!({"kid": kid}), Reason::Malformed);
    }
}

/// Keys that the token brings, or says where to find (RFC 8725 section 3.10, CVE-2018-0114).
fn keys_of_the_token(corpus: &mut Corpus) {
    corpus.group("keys of the token");
    let claims = claims().to_string();
    let jwk = ATTACKS.jwk("RS256");
    for (name, value) in [
        ("jwk", jwk.clone()),
        ("jku", json!("https://attacker.example/jwks.json")),
        ("jku", json!("https://id.example/jwks.json")),
        ("jku", json!("file:///etc/passwd")),
        ("jku", json!("http://169.254.169.254/latest/meta-data")),
        ("x5u", json!("https://attacker.example/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
        ("keys", json!([jwk])),
    ] {
        for kid in ["rs256", "attacker"] {
            let header = json!({"alg": "RS256", "kid": kid, name: value}).to_string();
            let attack = ATTACKS.token("RS256", &header, &claims);
            // What is in these fields is not read, whoever wrote it.
            let control =
                ISSUES.token("RS256", &json!({"alg": "RS256", "kid": "rs256", name: value}).to_string(), &claims);
            let reason = if kid == "rs256" { Reason::WrongSignature } else { Reason::UnknownKey };
            corpus.attack(&format!("{name} {value}, kid {kid}"), control, attack, reason);
        }
    }
    let mut own = jwk;
    own["kid"] = "rs256".into();
    let attack = ATTACKS.token("RS256", &json!({"alg": "RS256", "jwk": own}).to_string(), &claims);
    let control = ISSUES.token("RS256", &json!({"alg": "RS256", "jwk": own}).to_string(), &claims);
    corpus.attack("jwk without kid", control, attack, Reason::WrongSignature);
}

/// Extensions that are not understood (RFC 7515 section 4.1.11, CVE-2025-59420), and those that change what is signed.
fn extensions(corpus: &mut Corpus) {
    corpus.group("extensions");
    for members in [
        json!({"crit": ["bork"], "bork": 1}),
        json!({"crit": ["bork"]}),
        json!({"crit": []}),
        json!({"crit": ["alg"]}),
        json!({"crit": ["exp"], "exp": 1}),
        json!({"crit": ["b64"], "b64": true}),
        json!({"crit": ["b64"], "b64": false}),
        json!({"crit": "b64"}),
        json!({"crit": null}),
        json!({"crit": {}}),
        json!({"crit": [1]}),
        json!({"b64": false}),
        json!({"b64": "false"}),
        json!({"b64": 0}),
        json!({"b64": null}),
        json!({"zip": "DEF"}),
        json!({"zip": null}),
    ] {
        corpus.header(&members.to_string(), &members, Reason::UnsupportedHeader);
    }
}

/// Tokens of another kind in place of one for access (RFC 8725 sections 2.8 and 3.11).
fn types(corpus: &mut Corpus) {
    corpus.group("types");
    for typ in [
        "logout+jwt",
        "dpop+jwt",
        "secevent+jwt",
        "application/logout+jwt",
        "JWE",
        "jwt ",
        "",
        "at+jwt;x",
        "application/",
    ] {
        corpus.header(&format!("{typ:?}"), &json!({"typ": typ}), Reason::WrongType);
    }
    for typ in [json!(null), json!(["JWT"]), json!(1)] {
        corpus.header(&typ.to_string(), &json!({"typ": typ}), Reason::Malformed);
    }
    let with = |typ: &str| {
        let mut header = header("ES256");
        crate::merge(&mut header, &json!({"typ": typ}));
        ISSUES.token("ES256", &header.to_string(), &claims().to_string())
    };
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/JWT", "JOSE", "<gone>"] {
        corpus.accepted(typ, with(typ), crate::NOW_MS);
    }
    corpus.asked.typ = Some("at+jwt".into());
    for typ in ["JWT", "<gone>", "id+jwt", "application/jwt", "at"] {
        for control in ["at+jwt", "application/at+JWT"] {
            corpus.attack(&format!("{typ:?} for at+jwt"), with(control), with(typ), Reason::WrongType);
        }
    }
}
