//! Signatures that are no signatures of the key.

use jwt::Reason;
use serde_json::json;

use crate::{
    Corpus, NOW_MS,
    support::{ALGORITHMS, ATTACKS, ISSUES, claims, encode, header},
    token,
};

/// Orders of the curves' groups.
const ORDER_P256: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const ORDER_P384: &str =
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";
/// Order of Ed25519's group, the lowest byte first.
const ORDER_ED25519: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

pub(crate) fn run(corpus: &mut Corpus) {
    all(corpus);
    ecdsa(corpus);
    ed25519(corpus);
    rsa(corpus);
}

/// A good token with another signature.
fn signed_by(algorithm: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let good = token(algorithm);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let mut signature = ISSUES.sign(algorithm, signed.as_bytes());
    change(&mut signature);
    format!("{signed}.{}", encode(signature))
}

fn all(corpus: &mut Corpus) {
    corpus.group("signatures");
    for algorithm in ALGORITHMS {
        let mut attack = |name: &str, attack: String| {
            corpus.attack(&format!("{algorithm}: {name}"), token(algorithm), attack, Reason::WrongSignature);
        };
        attack("all zeros", signed_by(algorithm, |signature| signature.fill(0)));
        attack("all ones", signed_by(algorithm, |signature| signature.fill(0xff)));
        attack("one bit", signed_by(algorithm, |signature| signature[0] ^= 1));
        attack("the last bit", signed_by(algorithm, |signature| *signature.last_mut().unwrap() ^= 0x80));
        attack("one byte less", signed_by(algorithm, |signature| signature.truncate(signature.len() - 1)));
        attack("one byte more", signed_by(algorithm, |signature| signature.push(0)));
        attack("a zero before", signed_by(algorithm, |signature| signature.insert(0, 0)));
        attack("a half", signed_by(algorithm, |signature| signature.truncate(signature.len() / 2)));
        attack("twice", signed_by(algorithm, |signature| signature.extend_from_within(..)));
        let (header, claims) = (header(algorithm).to_string(), claims().to_string());
        attack("another's key", ATTACKS.token(algorithm, &header, &claims));
        let mut admin = crate::claims();
        admin["sub"] = "admin".into();
        let good = token(algorithm);
        let parts: Vec<_> = good.split('.').collect();
        attack("other claims", format!("{}.{}.{}", parts[0], encode(admin.to_string()), parts[2]));
        let other = json!({"typ": "JWT", "kid": algorithm.to_lowercase(), "alg": algorithm}).to_string();
        attack("another header", format!("{}.{}.{}", encode(other), parts[1], parts[2]));
        // The claims' dot moved: what is signed is the same text only if the dot is part of it.
        let claims_alone = ISSUES.sign(algorithm, parts[1].as_bytes());
        attack("of the claims alone", format!("{}.{}.{}", parts[0], parts[1], encode(claims_alone)));
    }
}

/// CVE-2022-21449 (zeros), and twins: (r, n - s) is as good as (r, s). Neither RFC 7518 nor FIPS 186-5 forbids the twin, some
/// signers make it half of the time, and nothing here takes a signature for a name: it passes.
fn ecdsa(corpus: &mut Corpus) {
    corpus.group("ECDSA");
    for (algorithm, order) in [("ES256", ORDER_P256), ("ES384", ORDER_P384)] {
        let order = hex(order);
        let half = order.len();
        let mut attack = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let attack = signed_by(algorithm, change);
            corpus.attack(&format!("{algorithm}: {name}"), token(algorithm), attack, Reason::WrongSignature);
        };
        attack("r is zero", &|signature| signature[..half].fill(0));
        attack("s is zero", &|signature| signature[half..].fill(0));
        attack("r is the order", &|signature| signature[..half].copy_from_slice(&order));
        attack("s is the order", &|signature| signature[half..].copy_from_slice(&order));
        attack("both are the order", &|signature| {
            signature[..half].copy_from_slice(&order);
            signature[half..].copy_from_slice(&order);
        });
        attack("r and s are one", &|signature| {
            signature.fill(0);
            signature[half - 1] = 1;
            signature[2 * half - 1] = 1;
        });
        attack("r and s changed places", &|signature| signature.rotate_left(half));
        attack("in DER", &|signature| {
            let integer = |bytes: &[u8]| [&[2, bytes.len() as u8 + 1, 0], bytes].concat();
            let both = [integer(&signature[..half]), integer(&signature[half..])].concat();
            *signature = [&[0x30, both.len() as u8], &both[..]].concat();
        });
        let twin = signed_by(algorithm, |signature| {
            let low = subtract(&order, &signature[half..]);
            signature[half..].copy_from_slice(&low);
        });
        corpus.accepted(&format!("{algorithm}: the twin"), twin, NOW_MS);
    }
    // A signature of another curve, by a key of the issuer.
    for (kid, other) in
        [("ES256", "ES384"), ("ES256", "ES512"), ("ES384", "ES256"), ("ES512", "ES256"), ("ES512", "ES384")]
    {
        let attack = ISSUES.token(other, &header(kid).to_string(), &claims().to_string());
        corpus.attack(&format!("{other}'s for {kid}"), token(kid), attack, Reason::WrongSignature);
    }
}

/// RFC 8032 section 5.1.7: S below the order, so that there is one signature only.
fn ed25519(corpus: &mut Corpus) {
    corpus.group("Ed25519");
    let order = hex(ORDER_ED25519);
    let mut attack = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        corpus.attack(name, token("EdDSA"), signed_by("EdDSA", change), Reason::WrongSignature);
    };
    attack("S and the order", &|signature| {
        let mut carry = 0;
        for (byte, of_order) in signature[32..].iter_mut().zip(&order) {
            let sum = u16::from(*byte) + u16::from(*of_order) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
    });
    attack("S is zero", &|signature| signature[32..].fill(0));
    attack("S is the order", &|signature| signature[32..].copy_from_slice(&order));
    attack("R is zero", &|signature| signature[..32].fill(0));
    attack("R is the identity, S zero", &|signature| {
        signature.fill(0);
        signature[0] = 1;
    });
    attack("the key as R", &|signature| {
        let jwk = ISSUES.jwk("EdDSA");
        let key = data_encoding::BASE64URL_NOPAD.decode(jwk["x"].as_str().unwrap().as_bytes()).unwrap();
        signature[..32].copy_from_slice(&key);
    });
}

fn rsa(corpus: &mut Corpus) {
    corpus.group("RSA");
    let (n, _) = ISSUES.rsa_numbers();
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let mut attack = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let attack = signed_by(algorithm, change);
            corpus.attack(&format!("{algorithm}: {name}"), token(algorithm), attack, Reason::WrongSignature);
        };
        attack("the modulus", &|signature| signature.copy_from_slice(&n));
        attack("one", &|signature| {
            signature.fill(0);
            signature[255] = 1;
        });
        attack("modulus less the signature", &|signature| *signature = subtract(&n, signature));
        // The other padding, and each other hash.
        for other in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].into_iter().filter(|of| *of != algorithm) {
            let attack = ISSUES.token(other, &header(algorithm).to_string(), &claims().to_string());
            corpus.attack(&format!("{other}'s for {algorithm}"), token(algorithm), attack, Reason::WrongSignature);
        }
    }
    // A padding that anybody can write down: no RSA at all.
    let plain = signed_by("RS256", |signature| {
        signature.fill(0xff);
        signature[..2].copy_from_slice(&[0, 1]);
        signature[204] = 0;
    });
    corpus.attack("the padding itself", token("RS256"), plain, Reason::WrongSignature);
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// The difference of two numbers, the highest byte first.
fn subtract(from: &[u8], what: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    let mut difference: Vec<u8> = from
        .iter()
        .zip(what)
        .rev()
        .map(|(a, b)| {
            let of = i16::from(*a) - i16::from(*b) - borrow;
            borrow = i16::from(of < 0);
            of as u8
        })
        .collect();
    difference.reverse();
    difference
}
