use super::{super::certificate, *};

const START: &str = "2026-01-01T00:00:00Z";

fn start() -> Timestamp {
    START.parse().unwrap()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

/// What the leader does if it looks once an hour over a year, as `day: event`.
fn timeline(absent: std::ops::Range<i64>) -> Vec<String> {
    let mut lives: Vec<(char, Life)> = vec![];
    let (mut next, mut signs, mut events) = ('A', None, vec![]);
    for hour in 0..200 * 24 {
        if absent.contains(&(hour / 24)) {
            continue;
        }
        let now = start() + hours(hour);
        let mut say = |what: String| events.push(format!("{}+{}h: {what}", hour / 24, hour % 24));
        let plain: Vec<Life> = lives.iter().map(|(_, life)| *life).collect();
        let change = change(&plain, now);
        for at in change.drop.iter().rev() {
            say(format!("{} dropped", lives.remove(*at).0));
        }
        if change.add {
            lives.push((next, Life { from: now, until: now + LIFETIME }));
            say(format!("{next} made"));
            next = char::from_u32(next as u32 + 1).unwrap();
        }
        let plain: Vec<Life> = lives.iter().map(|(_, life)| *life).collect();
        let signer = lives[signer(&plain, now).unwrap()].0;
        if signs != Some(signer) {
            say(format!("{signer} signs"));
        }
        signs = Some(signer);
        assert!(lives.len() <= 2, "{lives:?}");
    }
    events
}

#[test]
fn each_is_trusted_before_it_signs_and_until_what_it_signed_has_ended() {
    let expect = [
        "0+0h: A made",
        "0+0h: A signs", // Nobody had learned another.
        "60+0h: B made",
        "61+0h: B signs",
        "62+1h: A dropped", //
        "120+0h: C made",
        "121+0h: C signs",
        "122+1h: B dropped", //
        "180+0h: D made",
        "181+0h: D signs",
        "182+1h: C dropped",
    ];
    assert_eq!(timeline(0..0), expect);
}

#[test]
fn an_operator_that_was_away_catches_up() {
    // Until a day before the end of the first: it signs to its end.
    let expect = ["0+0h: A made", "0+0h: A signs", "89+12h: B made"];
    let late = timeline(1..89);
    assert_eq!(late[..2], expect[..2]);
    assert_eq!(late[2..5], ["89+0h: B made", "90+0h: A dropped", "90+0h: B signs"]);
    // Beyond the end: there is nothing to wait for.
    assert_eq!(timeline(1..100)[2..5], ["100+0h: A dropped", "100+0h: B made", "100+0h: B signs"]);
    // While a change is under way.
    let expect = ["60+0h: B made", "63+0h: A dropped", "63+0h: B signs"];
    assert_eq!(timeline(61..63)[2..5], expect);
}

#[test]
fn no_authority_is_dropped_for_one_that_ended() {
    let (old, dead) = (
        Life { from: start(), until: start() + LIFETIME },
        Life { from: start() + hours(1), until: start() + hours(2) },
    );
    let now = start() + hours(24 * 10);
    assert_eq!(change(&[old, dead], now), Change { drop: vec![1], add: false });
    assert_eq!(signer(&[old, dead], now), Some(0));
    assert_eq!(signer(&[dead], now), None);
    assert_eq!(change(&[], now), Change { drop: vec![], add: true });
}

#[test]
fn what_is_written_is_read_again() {
    let mut all = Authorities::default();
    assert!(all.signer(start()).is_none());
    for day in [0, 60] {
        let now = start() + hours(day * 24) + SignedDuration::from_millis(1500);
        all = all.changed(now).unwrap().unwrap();
    }
    let read = Authorities::parse(all.bundle().as_bytes(), all.keys().as_bytes()).unwrap();
    assert_eq!((&read, read.lives()), (&all, all.lives()));
    let lives = read.lives();
    assert_eq!(
        (lives.len(), lives[1].from, lives[1].until),
        (2, start() + hours(1440) + SignedDuration::from_secs(1), start() + hours(3600) + SignedDuration::from_secs(1))
    );
    assert_eq!(read.changed(start() + hours(61 * 24)).unwrap(), None);
    // What one of them signed, all trust.
    let leaf = certificate::server(&read.0[1], &["a.b.svc".into()], start() + hours(1500)).unwrap().0;
    let (_, leaf) = X509Certificate::from_der(&leaf.certificate).unwrap();
    let (_, second) = X509Certificate::from_der(&read.0[1].certificate).unwrap();
    leaf.verify_signature(Some(second.public_key())).unwrap();
}

#[test]
fn content_that_is_wrong_is_named() {
    let (one, two) = (Authority::new(start()).unwrap(), Authority::new(start()).unwrap());
    let crt = |a: &Authority| x509::pem("CERTIFICATE", &a.certificate);
    let key = |a: &Authority| a.key.serialize_pem();
    let refused = |crt: &str, key: &str| Authorities::parse(crt.as_bytes(), key.as_bytes()).unwrap_err().to_string();
    assert_eq!(refused(&crt(&one), &key(&two)), "ca.key: not the key of the certificate at the same place in ca.crt");
    assert_eq!(refused(&crt(&one), ""), "ca.key: not as many keys as ca.crt has certificates");
    assert_eq!(refused("", ""), "ca.crt: no certificate, or too many");
    let many = 0..9;
    let (crts, keys): (String, String) = many.map(|_| (crt(&one), key(&one))).unzip();
    assert_eq!(refused(&crts, &keys), "ca.crt: no certificate, or too many");
    let (leaf, own) = certificate::server(&one, &["a".into()], start()).unwrap();
    let leaf = x509::pem("CERTIFICATE", &leaf.certificate);
    assert_eq!(refused(&leaf, &x509::pem("PRIVATE KEY", own.secret_der())), "ca.crt: not a certificate authority");
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    assert_eq!(refused(&crt(&one), &p384), "ca.key: not a P-256 private key");
    assert_eq!(
        refused("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &key(&one)),
        "ca.crt: not certificates in PEM"
    );
}
