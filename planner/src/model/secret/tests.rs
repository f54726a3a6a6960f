//! What is wrong with certificates and keys, and when they end.

use super::*;

const CERTIFICATE: &str = "MAcwADAAAwEA"; // a sequence of two empty sequences and a bit string
const KEY: &str = "MAcCAQAwAAQA"; // a sequence of 0, an empty sequence and no octets

fn pem(label: &str, body: &str) -> String {
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// What is found, by its beginning; empty: nothing.
#[track_caller]
fn check(fault: fn(&[u8]) -> Option<String>, pem: &str, expect: &str) {
    let found = fault(pem.as_bytes()).unwrap_or_default();
    assert!(found.starts_with(expect) && found.is_empty() == expect.is_empty(), "{found:?} of {pem}");
}

#[test]
fn certificates() {
    let good = pem("CERTIFICATE", CERTIFICATE);
    check(chain_fault, &good, "");
    check(chain_fault, &format!("leaf\n{good}{good}").replace('\n', "\r\n"), "");
    for nothing in ["", "AAAA", &pem("PRIVATE KEY", KEY)] {
        check(chain_fault, nothing, "is no PEM certificate: it needs a block");
    }
    check(chain_fault, "-----BEGIN CERTIFICATE-----\nAAAA\n", "is no PEM certificate: a block has no -----END line");
    check(
        chain_fault,
        &pem("CERTIFICATE", "?"),
        "is no PEM certificate: what stands between BEGIN and END is not base64",
    );
    for other in ["", "bm90IGEga2V5", KEY, "MAcwADAA", "MAcwADAAAwEAAA=="] {
        check(chain_fault, &format!("{good}{}", pem("CERTIFICATE", other)), "certificate 2 in it is none");
    }
}

#[test]
fn keys() {
    check(key_fault, &pem("PRIVATE KEY", KEY), "");
    // The parameters of a curve may come first.
    check(key_fault, &format!("{}{}", pem("EC PARAMETERS", "BgA="), pem("EC PRIVATE KEY", "MAUCAQEEAA==")), "");
    check(key_fault, &pem("RSA PRIVATE KEY", "MBsCAQACAQACAQACAQACAQACAQACAQACAQACAQA="), "");
    check(key_fault, &pem("RSA PRIVATE KEY", KEY), "is no private key");
    check(key_fault, &pem("PRIVATE KEY", CERTIFICATE), "is no private key");
    check(key_fault, &pem("PRIVATE KEY", "bm90IGEga2V5"), "is no private key");
    check(key_fault, &pem("ENCRYPTED PRIVATE KEY", KEY), "is encrypted");
    check(key_fault, &pem("CERTIFICATE", CERTIFICATE), "is no PEM private key: it needs a block");
    check(key_fault, &pem("PRIVATE KEY", "!k3y"), "is no PEM private key: what stands");
    check(key_fault, "-----BEGIN PRIVATE KEY-----\nk3y", "is no PEM private key: a block has no -----END line");
}

#[test]
fn lengths() {
    let long = [&[SEQUENCE, 0x82, 0x01, 0x00][..], &[0x04, 0x81, 0xfd], &[7; 253]].concat();
    assert_eq!(sequence(&long), Some(vec![OCTET_STRING]));
    for cut in 0..long.len() {
        assert_eq!(sequence(&long[..cut]), None, "{cut} bytes");
    }
    for length in [0x80, 0x85, 0xff] {
        assert_eq!(sequence(&[SEQUENCE, length, 0, 0, 0, 0, 0, 0]), None);
    }
    assert_eq!(sequence(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
}

const A: (&str, &str) = (include_str!("../../../testdata/tls/a.crt"), include_str!("../../../testdata/tls/a.key"));
const B: (&str, &str) = (include_str!("../../../testdata/tls/b.crt"), include_str!("../../../testdata/tls/b.key"));

#[test]
fn a_key_belongs_to_the_first_certificate() {
    let fault = |chain: &str, key: &str| pair_fault(chain.as_bytes(), key.as_bytes()).unwrap_or_default();
    assert_eq!(fault(A.0, A.1), "");
    assert_eq!(fault(&format!("{}{}", B.0, A.0), B.1), "");
    for (chain, key) in [(A.0.to_owned(), B.1), (format!("{}{}", A.0, B.0), B.1)] {
        assert!(fault(&chain, key).starts_with("is not the key of the first certificate"), "{}", fault(&chain, key));
    }
    // Both look like what they should be, and can't be used.
    assert!(!fault(&pem("CERTIFICATE", CERTIFICATE), A.1).is_empty());
    let shape = fault(A.0, &pem("PRIVATE KEY", KEY));
    assert!(shape.starts_with("can't serve by"), "{shape}");
}

#[test]
fn when_a_certificate_ends() {
    let at = |chain: &str| expires(chain.as_bytes()).map(|at| at.to_string());
    assert_eq!(at(A.0).as_deref(), Some("2036-11-25T22:14:47Z"));
    // After 2049 the year has four digits.
    assert_eq!(at(&format!("{}{}", B.0, A.0)).as_deref(), Some("2126-11-04T22:14:47Z"));
    for other in ["", A.1, &pem("CERTIFICATE", CERTIFICATE), &pem("CERTIFICATE", "bm90IGEga2V5")] {
        assert_eq!(at(other), None);
    }
}
