//! An issuer of tokens, with keys made here: for each algorithm one key, whose `kid` is the algorithm's name in lower case.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)] // each test uses some of it

use std::sync::LazyLock;

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
        RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    },
};
use data_encoding::BASE64URL_NOPAD;
use jwt::{KeySet, Origin, Requirements};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://id.example";
pub const AUDIENCE: &str = "orders";
/// Seconds since 1970.
pub const NOW: u64 = 1_800_000_000;
pub const NOW_MS: u64 = NOW * 1000;

pub const ALGORITHMS: [&str; 13] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
];

/// The keys of one party.
pub struct Party {
    secret: Vec<u8>,
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    p521: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

pub static ISSUES: LazyLock<Party> = LazyLock::new(|| Party::new(1));
pub static ATTACKS: LazyLock<Party> = LazyLock::new(|| Party::new(2));
pub static KEYS: LazyLock<KeySet> = LazyLock::new(|| ISSUES.keys(&ALGORITHMS));

impl Party {
    fn new(seed: u8) -> Self {
        Self {
            secret: (0..64).map(|i| i ^ seed).collect(),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            p384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
            p521: EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap(),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// The signature of a message by the key of an algorithm.
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(encoding, &random, message, &mut signature).unwrap();
            signature
        };
        match algorithm {
            "HS256" => mac(hmac::HMAC_SHA256, &self.secret, message),
            "HS384" => mac(hmac::HMAC_SHA384, &self.secret, message),
            "HS512" => mac(hmac::HMAC_SHA512, &self.secret, message),
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "RS384" => rsa(&RSA_PKCS1_SHA384),
            "RS512" => rsa(&RSA_PKCS1_SHA512),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "PS384" => rsa(&RSA_PSS_SHA384),
            "PS512" => rsa(&RSA_PSS_SHA512),
            "EdDSA" => self.ed25519.sign(message).as_ref().to_vec(),
            _ => self.ec(algorithm).sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }

    fn ec(&self, algorithm: &str) -> &EcdsaKeyPair {
        match algorithm {
            "ES256" => &self.p256,
            "ES384" => &self.p384,
            "ES512" => &self.p521,
            other => panic!("{other}"),
        }
    }

    /// A token of a header and claims as they are.
    pub fn token(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = encode(self.sign(algorithm, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The public key, or the secret, as a JWK.
    pub fn jwk(&self, algorithm: &str) -> Value {
        let mut jwk = match algorithm {
            "HS256" | "HS384" | "HS512" => json!({"kty": "oct", "k": encode(&self.secret)}),
            "EdDSA" => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(self.ed25519.public_key())}),
            "ES256" | "ES384" | "ES512" => {
                let (x, y) = self.point(algorithm);
                let curve = match algorithm {
                    "ES256" => "P-256",
                    "ES384" => "P-384",
                    _ => "P-521",
                };
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            _ => {
                let (n, e) = self.rsa_numbers();
                json!({"kty": "RSA", "n": encode(n), "e": encode(e)})
            }
        };
        jwk["alg"] = algorithm.into();
        jwk["kid"] = algorithm.to_lowercase().into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub fn keys(&self, algorithms: &[&str]) -> KeySet {
        let jwks: Vec<_> = algorithms.iter().map(|algorithm| self.jwk(algorithm)).collect();
        key_set(&json!({"keys": jwks}))
    }

    pub fn point(&self, algorithm: &str) -> (Vec<u8>, Vec<u8>) {
        let point = &self.ec(algorithm).public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        (x.to_vec(), y.to_vec())
    }

    /// The public key as PKCS #1 has it, in DER.
    pub fn rsa_der(&self) -> Vec<u8> {
        self.rsa.public_key().as_ref().to_vec()
    }

    /// Modulus and exponent.
    pub fn rsa_numbers(&self) -> (Vec<u8>, Vec<u8>) {
        let der = self.rsa_der();
        // SEQUENCE and INTEGER of 2048 bits and a sign: each with a length of two bytes.
        let (n, e) = der[8..].split_at(257);
        (n[1..].to_vec(), e[2..].to_vec())
    }
}

pub fn mac(hash: hmac::Algorithm, key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hash, key), message).as_ref().to_vec()
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

pub fn key_set(jwks: &Value) -> KeySet {
    let (keys, unusable) = KeySet::parse(jwks.to_string().as_bytes(), Origin::Secret).unwrap();
    assert_eq!(unusable, []);
    keys
}

pub fn header(algorithm: &str) -> Value {
    json!({"alg": algorithm, "kid": algorithm.to_lowercase(), "typ": "JWT"})
}

pub fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 300, "iat": NOW - 10, "scope": "read write"})
}

pub fn asked() -> Requirements {
    Requirements { issuer: ISSUER.into(), audiences: vec![AUDIENCE.into()], ..Requirements::default() }
}
