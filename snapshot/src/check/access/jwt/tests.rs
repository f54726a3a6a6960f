use super::*;
use crate::proto::{ClaimHeader, CredentialSource, RequiredClaim, credential_source::Source};

/// RFC 7515 appendix A.3.
const KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

fn good() -> JwtProvider {
    JwtProvider {
        issuer: "https://id.example".into(),
        from: vec![CredentialSource { source: Some(Source::Header("authorization".into())) }],
        jwks: format!(r#"{{"keys":[{KEY}]}}"#).into(),
        ..JwtProvider::default()
    }
}

#[track_caller]
fn check(change: impl Fn(&mut JwtProvider), expect: Option<&str>) {
    let mut changed = good();
    change(&mut changed);
    assert_eq!(provider(&changed).err().map(|unfit| unfit.field).as_deref(), expect);
}

#[test]
fn what_is_asked_of_tokens() {
    check(|_| {}, None);
    check(|p| p.issuer.clear(), Some("issuer"));
    check(|p| p.issuer = "i".repeat(MAX_TEXT_BYTES + 1), Some("issuer"));
    check(|p| p.audiences = vec!["a".into(), String::new()], Some("audiences[1]"));
    check(|p| p.audiences = vec!["a".into(); MAX_ENTRIES + 1], Some("audiences"));
    check(|p| p.leeway_seconds = 60, None);
    check(|p| p.leeway_seconds = 61, Some("leeway"));
    check(|p| p.scopes = vec!["orders.read".into()], None);
    for scope in ["a b", "a\"", "a\\", "a\n", "é"] {
        check(|p| p.scopes = vec!["a".into(), scope.into()], Some("scopes[1]"));
    }
    let required = |claim: &str, values: &[&str]| RequiredClaim {
        claim: claim.into(),
        values: values.iter().map(|value| (*value).into()).collect(),
    };
    check(|p| p.required_claims = vec![required("/a/b", &["c"]), required("a.b", &[])], None);
    check(|p| p.required_claims = vec![required("/a~2", &[])], Some("requiredClaims[0].claim"));
    check(|p| p.required_claims = vec![required("a", &[""])], Some("requiredClaims[0].values[0]"));
    check(|p| p.required_claims = vec![required("a", &[]); MAX_ENTRIES + 1], Some("requiredClaims"));
}

#[test]
fn where_tokens_are_and_what_backends_are_told() {
    check(|p| p.from.clear(), Some("from"));
    check(|p| p.from = vec![CredentialSource::default()], Some("from[0]"));
    let header = |claim: &str, header: &str| ClaimHeader { claim: claim.into(), header: header.into() };
    check(|p| p.claim_headers = vec![header("sub", "x-user")], None);
    check(|p| p.claim_headers = vec![header("", "x-user")], Some("claimToHeaders[0].claim"));
    for name in ["host", "content-length", "a b", ""] {
        check(|p| p.claim_headers = vec![header("sub", name)], Some("claimToHeaders[0].header"));
    }
    check(|p| p.claim_headers = vec![header("sub", "x-user"); MAX_ENTRIES + 1], Some("claimToHeaders"));
}

#[test]
fn keys_that_others_can_read_are_public() {
    let set = |keys: &[&str]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
    let with = |keys: &[&str], expect: Option<&str>| check(|p| p.jwks = set(keys).into(), expect);
    let private = KEY.replace('}', r#","d":"AQ"}"#);
    let symmetric = format!(r#"{{"kty":"oct","alg":"HS256","k":"{}"}}"#, "A".repeat(43));
    with(&[KEY], None);
    with(&[KEY, r#"{"kty":"x"}"#], None);
    for keys in [&[][..], &[r#"{"kty":"x"}"#], &[KEY, &private], &[KEY, &symmetric]] {
        with(keys, Some("jwks.inline"));
    }
    for text in ["", "{}", &set(&[KEY]).replace("\"kty\"", "\"kty\":\"EC\",\"kty\"")] {
        check(|p| p.jwks = text.to_owned().into(), Some("jwks.inline"));
    }
    check(|p| p.jwks = format!("{}{}", set(&[KEY]), " ".repeat(MAX_JWKS_BYTES)).into(), Some("jwks.inline"));
    let mut provider = good();
    provider.jwks = set(&[KEY, r#"{"kty":"x"}"#]).into();
    let (keys, unusable) = super::keys(&provider).unwrap();
    assert_eq!((keys.len(), unusable), (1, vec![UnusableKey { index: 1, cause: Unusable::UnknownType }]));
}
