//! Tokens that are not what they seem: truncated, oversized, encoded in more than one way, JSON that two parsers read
//! differently.

use jwt::{MAX_TOKEN_BYTES, Reason};

use crate::{
    Corpus, NOW_MS,
    support::{ISSUES, claims, encode, header},
    token,
};

pub(crate) fn run(corpus: &mut Corpus) {
    parts(corpus);
    sizes(corpus);
    base64(corpus);
    json(corpus);
}

fn parts(corpus: &mut Corpus) {
    corpus.group("truncated");
    let good = token("HS256");
    let parts: Vec<_> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("three parts") };
    let ends = [0, 1, header.len() - 1, header.len(), header.len() + 1, header.len() + 1 + claims.len()];
    for end in ends {
        corpus.attack(&format!("cut at {end}"), &good, &good[..end], Reason::Malformed);
    }
    corpus.attack("no signature", &good, format!("{header}.{claims}."), Reason::WrongSignature);
    corpus.attack("two bytes less", &good, &good[..good.len() - 3], Reason::WrongSignature);
    for attack in [
        format!(".{claims}.{signature}"),
        format!("{header}..{signature}"),
        format!("..{signature}"),
        "..".into(),
        ".".into(),
        "...".into(),
        format!(".{good}"),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!("{header}.{header}.{claims}.{signature}.{signature}"),
        format!("{header}.{claims}.{signature}.{claims}.{signature}"),
        format!("{header},{claims},{signature}"),
        format!("{header}. {claims}.{signature}"),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("{good}\0"),
        format!("Bearer {good}"),
        format!("\"{good}\""),
        format!("{good},{good}"),
        serde_json::json!({"protected": header, "payload": claims, "signature": signature}).to_string(),
    ] {
        // Claims are only looked at once the signature is right.
        let is_of_claims = attack.starts_with(&format!("{header}..")) || attack.starts_with(&format!("{header}. "));
        let reason = if is_of_claims { Reason::WrongSignature } else { Reason::Malformed };
        corpus.attack(&attack.replace(&good, "TOKEN"), &good, &attack, reason);
    }
    let empty = ISSUES.token("HS256", &super::header("HS256").to_string(), "");
    corpus.attack("no claims, and signed", &good, empty, Reason::Malformed);
}

/// A token of so many bytes.
fn of_size(bytes: usize) -> String {
    let with = |filler: usize| {
        let mut claims = claims();
        claims["filler"] = "x".repeat(filler).into();
        ISSUES.token("HS256", &header("HS256").to_string(), &claims.to_string())
    };
    // Three bytes become four characters.
    let fillers = (bytes * 3 / 4 - 600)..;
    fillers.map(with).find(|token| token.len() >= bytes).unwrap()
}

fn sizes(corpus: &mut Corpus) {
    corpus.group("oversized");
    let longest = of_size(MAX_TOKEN_BYTES);
    assert_eq!(longest.len(), MAX_TOKEN_BYTES);
    let larger = of_size(MAX_TOKEN_BYTES + 1);
    assert!(larger.len() <= MAX_TOKEN_BYTES + 2);
    corpus.attack("larger than may be", &longest, &larger, Reason::TooLong);
    corpus.attack("a megabyte", &longest, "e".repeat(1 << 20), Reason::TooLong);
    let wide: String = (0..64).map(|n| format!(",\"{n}\":0")).collect();
    let header = format!(r#"{{"alg":"HS256","kid":"hs256"{wide}}}"#);
    let attack = ISSUES.token("HS256", &header, &claims().to_string());
    corpus.attack("many members in the header", &longest, attack, Reason::Malformed);
    corpus.attack("a megabyte of dots", &longest, ".".repeat(1 << 20), Reason::TooLong);
    let good = token("HS256");
    for (name, text) in [("lists", "[".repeat(8_000)), ("objects", r#"{"a":"#.repeat(2_000))] {
        let header = format!(r#"{{"alg":"HS256","kid":"hs256","a":{text}"#);
        let attack = ISSUES.token("HS256", &header, &claims().to_string());
        corpus.attack(&format!("{name} in the header"), &good, attack, Reason::TooDeep);
        let attack = ISSUES.token("HS256", &super::header("HS256").to_string(), &format!(r#"{{"a":{text}"#));
        corpus.attack(&format!("{name} in the claims"), &good, attack, Reason::TooDeep);
    }
}

/// Several spellings of one part (RFC 7515 section 2, RFC 4648 sections 3.2 to 3.5).
fn base64(corpus: &mut Corpus) {
    corpus.group("base64");
    // Each part ends amid four characters, so that there are bits that stand for nothing, and padding that some would add.
    let claims_text =
        (0..3).map(|spaces| format!("{}{}", " ".repeat(spaces), claims())).find(|text| text.len() % 3 != 0).unwrap();
    let header_text = (0..3)
        .map(|spaces| format!("{}{}", " ".repeat(spaces), header("HS256")))
        .find(|text| text.len() % 3 != 0)
        .unwrap();
    let good = ISSUES.token("HS256", &header_text, &claims_text);
    let parts: Vec<&str> = good.split('.').collect();
    for place in 0..3 {
        let mut attack = |name: &str, changed: Vec<u8>| {
            let mut parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
            parts[place] = &changed;
            // What is signed is the text as it comes, of which the attacker has a signature: it is another.
            let mut attack = parts[..2].join(&b'.');
            let signature = if place == 2 { changed } else { encode(ISSUES.sign("HS256", &attack)).into_bytes() };
            attack.push(b'.');
            attack.extend(signature);
            // A part that is wrong is only looked at once what comes before is right: so all are signed.
            corpus.attack(&format!("{name} in part {place}"), &good, attack, Reason::Malformed);
        };
        let part = parts[place].as_bytes();
        let with = |at: usize, more: &[u8]| [&part[..at], more, &part[at..]].concat();
        let padding = "=".repeat(4 - part.len() % 4);
        attack("padding", with(part.len(), padding.as_bytes()));
        attack("one more =", with(part.len(), b"="));
        attack("a space", with(4, b" "));
        attack("a newline", with(4, b"\n"));
        attack("CR LF", with(76.min(part.len()), b"\r\n"));
        attack("a tab at the end", with(part.len(), b"\t"));
        attack("NUL", with(part.len(), b"\0"));
        attack("a percent sign", with(4, b"%"));
        attack("a character of the other alphabet", with(4, b"+"));
        attack("the other one", with(4, b"/"));
        attack("a letter that is none of ASCII", with(4, "é".as_bytes()));
        attack("a byte that is none of UTF-8", with(4, b"\xff"));
        attack("one character more", with(part.len(), &b"AAA"[..(5 - part.len() % 4) % 4]));
        // Bits after the last byte: four for two characters of the last four, two for three.
        let last = *part.last().unwrap();
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let value = alphabet.iter().position(|character| *character == last).unwrap();
        for bit in 0..(if part.len() % 4 == 2 { 4 } else { 2 }) {
            let changed = [&part[..part.len() - 1], &[alphabet[value | 1 << bit]]].concat();
            attack(&format!("bit {bit} after the end"), changed);
        }
    }
}

fn json(corpus: &mut Corpus) {
    corpus.group("duplicate members");
    let good = token("RS256");
    let headers = [
        r#"{"alg":"RS256","alg":"RS256","kid":"rs256"}"#,
        r#"{"alg":"none","alg":"RS256","kid":"rs256"}"#,
        r#"{"alg":"RS256","alg":"none","kid":"rs256"}"#,
        r#"{"alg":"RS256","\u0061lg":"none","kid":"rs256"}"#,
        r#"{"alg":"RS256","kid":"rs256","kid":"es256"}"#,
        r#"{"alg":"RS256","kid":"rs256","x":{"a":1,"a":1}}"#,
        r#"{"alg":"RS256","Alg":"none","kid":"rs256"}"#,
        r#"{"ALG":"none","alg":"RS256","kid":"rs256"}"#,
        r#"{"alg":"RS256","KID":"attacker","kid":"rs256"}"#,
        r#"{"alg":"RS256","kid":"rs256","Crit":["x"]}"#,
        r#"{"alg":"RS256","kid":"rs256","\u212aid":"attacker"}"#,
        r#"{"alg":"RS256","kid":"rs256","alg\u0000":"none"}"#,
    ];
    for header in headers {
        let attack = ISSUES.token("RS256", header, &claims().to_string());
        corpus.attack(header, &good, attack, Reason::AmbiguousMember);
    }
    let plain = claims().to_string();
    let plain = plain.strip_suffix('}').unwrap();
    for more in [
        r#""sub":"admin""#,
        r#""sub":"alice""#,
        r#""\u0073ub":"admin""#,
        r#""iss":"https://id.example""#,
        r#""aud":["orders"]"#,
        r#""exp":9999999999"#,
        r#""iat":0"#,
        r#""scope":"admin""#,
        r#""nbf":1,"nbf":1"#,
        r#""act":{"sub":"a","sub":"b"}"#,
        r#""list":[{"a":[{"b":1,"b":2}]}]"#,
        r#""Sub":"admin""#,
        r#""SUB":"admin""#,
        r#""\u017fub":"admin""#,
        r#""EXP":9999999999"#,
        r#""Iss":"x""#,
        r#""aUd":"x""#,
        r#""SCP":["admin"]"#,
        r#""sub\u0000":"admin""#,
        r#""\u0000":1"#,
    ] {
        let attack = ISSUES.token("RS256", &header("RS256").to_string(), &format!("{plain},{more}}}"));
        corpus.attack(more, &good, attack, Reason::AmbiguousMember);
    }
    for more in [r#""Email":"a","email":"b""#, r#""a":{"sub":1},"b":{"sub":1}"#, r#""x":{"SUB":1}"#] {
        let token = ISSUES.token("RS256", &header("RS256").to_string(), &format!("{plain},{more}}}"));
        corpus.accepted(more, token, NOW_MS);
    }
    corpus.group("JSON");
    let inner = |text: &str| text.trim_start_matches('{').trim_end_matches('}').to_owned();
    for (name, wrap) in [
        ("text after it", "{X}x"),
        ("an object after it", "{X}{}"),
        ("NUL after it", "{X}\0"),
        ("a BOM", "\u{feff}{X}"),
        ("a comment", "{X/**/}"),
        ("a line's comment", "{X}//"),
        ("a comma at the end", "{X,}"),
        ("no end", "{X"),
        ("a list", "[{X}]"),
        ("a string", "\"{}\""),
        ("a number", "1"),
        ("null", "null"),
        ("single quotes", "{X,'a':1}"),
        ("a name without quotes", "{X,a:1}"),
        ("a name that is a number", "{X,1:1}"),
        ("NaN", "{X,\"a\":NaN}"),
        ("Infinity", "{X,\"a\":-Infinity}"),
        ("a number that no float holds", "{X,\"a\":1e400}"),
        ("hexadecimal", "{X,\"a\":0x10}"),
        ("a leading zero", "{X,\"a\":01}"),
        ("a plus", "{X,\"a\":+1}"),
        ("a dot at the end", "{X,\"a\":1.}"),
        ("True", "{X,\"a\":True}"),
        ("a lone surrogate", "{X,\"a\":\"\\ud800\"}"),
        ("surrogates in the wrong order", "{X,\"a\":\"\\udc00\\ud800\"}"),
        ("an escape that is none", "{X,\"a\":\"\\x41\"}"),
        ("a newline in a string", "{X,\"a\":\"\n\"}"),
        ("a vertical tab between", "{X,\u{b}\"a\":1}"),
        ("a no-break space between", "{X,\u{a0}\"a\":1}"),
        ("an empty text", ""),
    ] {
        let header = wrap.replace('X', &inner(&header("RS256").to_string()));
        let attack = ISSUES.token("RS256", &header, &claims().to_string());
        corpus.attack(&format!("{name} in the header"), &good, attack, Reason::Malformed);
        let claims = wrap.replace('X', &inner(&claims().to_string()));
        let attack = ISSUES.token("RS256", &super::header("RS256").to_string(), &claims);
        corpus.attack(&format!("{name} in the claims"), &good, attack, Reason::Malformed);
    }
    for (name, bytes) in [
        ("no UTF-8", &b"\xff"[..]),
        ("an overlong slash", b"\xc0\xaf"),
        ("a surrogate in UTF-8", b"\xed\xa0\x80"),
        ("a cut character", b"\xc3"),
        ("beyond Unicode", b"\xf4\x90\x80\x80"),
    ] {
        let claims = format!(r#"{plain},"a":"#).into_bytes();
        let claims = [&claims, &b"\""[..], bytes, b"\"}"].concat();
        let signed = format!("{}.{}", encode(header("RS256").to_string()), encode(claims));
        let attack = format!("{signed}.{}", encode(ISSUES.sign("RS256", signed.as_bytes())));
        corpus.attack(name, &good, attack, Reason::Malformed);
    }
    for text in [
        format!("{plain},\"a\":\"\\ud83d\\ude00\",\"b\":1E2,\"c\":-0.0,\"d\":[],\"e\":{{}}}}"),
        format!(" \t\r\n{plain} \n}}\r "),
    ] {
        corpus.accepted(&text, ISSUES.token("RS256", &header("RS256").to_string(), &text), NOW_MS);
    }
}
