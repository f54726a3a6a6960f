//! Against the `regex` crate, and what hostile patterns cost.

use std::time::{Duration, Instant};

use proptest::{prelude::*, sample::select};

use super::*;
use crate::check::reason;

fn matches(pattern: &str, value: &str) -> bool {
    compile(pattern).unwrap().compare(value.as_bytes()).matches
}

#[track_caller]
fn check(pattern: &str, fitting: &[&str], others: &[&str]) {
    for value in fitting {
        assert!(matches(pattern, value), "{pattern} {value}");
    }
    for value in others {
        assert!(!matches(pattern, value), "{pattern} {value}");
    }
}

#[track_caller]
fn refused(pattern: &str, expect: &str) {
    let fault = compile(pattern).map(drop).unwrap_err();
    assert_eq!(fault.reason(), expect, "{pattern:?}: {fault}");
    assert_eq!(verdict(pattern).map(drop), Err(fault));
}

#[test]
fn the_whole_value_matches() {
    check("/users/[0-9]+", &["/users/1", "/users/123"], &["/users/", "/users/1/", "x/users/1", "/users/1\n"]);
    check("a|b", &["a", "b"], &["ab", "ax", "xb"]);
    check("^/a$", &["/a"], &["/a/", "/ab"]);
    check("/a(/.*)?", &["/a", "/a/", "/a/b"], &["/ab"]);
    check(".*admin.*", &["admin", "/x/admin/y"], &["/adm in"]);
    check("(?i)/API", &["/api", "/Api"], &["/apis"]);
    check("", &[""], &["a"]);
    check(r"\bfoo\b.*", &["foo", "foo bar"], &["foobar"]);
    check("(?m)^a$", &["a"], &["a\nb", "b\na"]);
}

/// A pattern is parsed alone: none of these closes what stands around it, opens a comment over it, or turns it into another.
#[test]
fn nothing_escapes_from_a_pattern() {
    for pattern in [
        "/only)|(?:/admin.*",
        ")",
        "(",
        "a)(b",
        "/a)|(/admin",
        "(?x)/a )|( /admin",
        "[",
        "a\\",
        "(?",
        "(?x",
        "(?:",
        "x{2",
        "x{,2}",
        "*",
        "(?P<a",
        "[[:alpha:]",
        "\\x{",
        "\\Q)|(?:/admin\\E",
    ] {
        refused(pattern, reason::INVALID_REGEX);
    }
    // A comment ends with the pattern.
    check("(?x)/only # ", &["/only"], &["/only/admin", "/admin", "/only # "]);
    check("(?x)/only # )|(?:/admin.*", &["/only"], &["/admin", "/only/admin"]);
    check("/only|", &["/only", ""], &["/only/admin"]);
    check("/only\\n?", &["/only"], &["/only/admin"]);
    check("(?m)/only$", &["/only"], &["/only\n/admin"]);
    check("(?U)/a.*", &["/a", "/a/b"], &["/b"]);
}

#[test]
fn classes_are_those_of_re2() {
    check(r"\d+", &["19"], &["١٩"]);
    check(r"\w+", &["a_1"], &["é"]);
    check(r"[\w.-]+", &["a.b-c"], &["é"]);
    check(r"\D", &["a"], &["1"]);
    check(r"[^\d]+", &["é", "ab"], &["1"]);
    check("[äö]", &["ä"], &["a", "äö"]);
    check(r"\pL+", &["aé"], &["1"]);
    check(".*", &["é", ""], &["\n"]);
    check("é.*", &["é", "éa"], &["a"]);
    // Bytes that are no text.
    assert!(compile("caf.").unwrap().compare(b"caf\xe9").matches);
}

#[test]
fn what_a_path_begins_with() {
    let prefix = |pattern: &str| compile(pattern).unwrap().prefix().to_owned();
    assert_eq!(prefix("/users/[0-9]+"), "/users/");
    assert_eq!(prefix("^/users$"), "/users");
    assert_eq!(prefix("(/a/b)/.*"), "/a/b/");
    // Not what alternatives share.
    assert_eq!(prefix("/a|/b"), "");
    assert_eq!(prefix("(?i)/a"), "/");
    assert_eq!(prefix(".*"), "");
    assert_eq!(prefix("(/a)?/b"), "");
}

/// What people write, each with some room.
#[test]
fn what_people_write_is_small() {
    for pattern in [
        "/users/[0-9]+/orders/[^/]+",
        r"/api/v\d+/.*",
        r"/.*\.(jpg|jpeg|png|gif|css|js|svg|webp|woff2)",
        "/[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}(/.*)?",
        "(?i)/api/accounts/[0-9]{1,10}/statements/(latest|all|[0-9]{4}-[0-9]{2})",
        "[a-z0-9-]{1,63}(/[a-z0-9-]{1,63}){3}",
        r"[\w-]{1,63}(\.[\w-]{1,63})*",
        "/[^/]{1,255}",
        "Mozilla.*(Chrome|Firefox|Safari)/[0-9]+.*",
        r"(.*; )?session=[^;]+(;.*)?",
        "^/foo(/|$)(.*)",
        r"\w+/\w+/\w+",
        "Bearer [A-Za-z0-9._~+/-]+=*",
    ] {
        let weight = verdict(pattern).unwrap();
        println!("{weight:>8} {pattern}");
        assert!(weight < 128 << 10, "{pattern}: {weight}");
    }
    let words: Vec<String> = (0..60).map(|i| format!("product-{}", i * 7919 % 1000)).collect();
    verdict(&format!("/shop/({})/.*", words.join("|"))).unwrap();
}

/// The worst that was found, of the length that a path's or a value's expression may have.
fn hostile() -> Vec<String> {
    let letters: Vec<char> = ('0'..='z').filter(char::is_ascii_alphanumeric).collect();
    let each = |count: usize, part: &dyn Fn(char) -> String| -> String {
        letters.iter().cycle().take(count).map(|c| part(*c)).collect()
    };
    vec![
        "a?".repeat(500) + &"a".repeat(500),
        ".*x".repeat(340),
        each(62, &|c| format!(".*{c}")),
        each(340, &|c| format!("{c}?.")),
        each(340, &|c| format!(".?{c}?")),
        each(1360, &|c| format!(".*{c}")),
        (0..120).map(|i| format!(".*{}.*{}|", letters[i % 62], letters[(i * 7 + 3) % 62])).collect(),
        "\\pL".repeat(340),
        "(?i)".to_owned() + &"\\pL".repeat(1360),
        "(?i)[".to_owned() + &"\\W".repeat(2000) + "]",
        "(?i)[".to_owned() + &"[^a]".repeat(1000) + "]",
        "(?i)[".to_owned() + &"¡-𐀀".repeat(500) + "]",
        "[".to_owned() + &"a&&".repeat(500) + "a]",
        "((((a{10}){10}){10}){10}){10}".into(),
        "(((.{10}){10}){10}){10}".into(),
        "((((){1000}){1000}){1000}){1000}".into(),
        "(((^|$){1000}){1000}){1000}".into(),
        "((.?){30}){30}".into(),
        ".*a.{12}".into(),
        "(.*/)*(a|b|c)*.*(a|b)[a-c]{10}".into(),
        "a|".repeat(2000),
        "(".repeat(99) + "a" + &")*".repeat(99),
        "(".repeat(2000) + &")".repeat(2000),
        "x".repeat(4096),
        "(x+x+)+y".into(),
        "(?i)".to_owned() + &"s".repeat(1000),
        "(?i)".to_owned() + &"[k-s].*".repeat(140),
        "(\\b|\\B)*".repeat(100),
        "(a*)*".repeat(200),
        "[^a]?".repeat(800),
    ]
}

/// Time to find out, and time to match what got through: both bounded by the limits above, not by luck.
#[test]
fn hostile_patterns_cost_little() {
    let value: Vec<u8> = b"/ab/xy09Zs".iter().copied().cycle().take(8192).collect();
    let (mut slowest, mut longest) = (Duration::ZERO, Duration::ZERO);
    for pattern in hostile() {
        let start = Instant::now();
        let got = Expression::new(&pattern);
        let took = start.elapsed();
        let shown: String = pattern.chars().take(30).collect();
        match got {
            Ok(expression) => {
                let start = Instant::now();
                let compared = expression.compare(&value);
                longest = longest.max(start.elapsed());
                assert!(compared.steps <= value.len());
                let memory = expression.automaton.memory_usage();
                assert!(memory <= MAX_COMPILED, "{shown}: {memory}");
                println!("{shown:30} {took:>12.1?} {memory:>8} bytes, weighs {}", expression.weight());
            }
            Err(fault) => println!("{shown:30} {took:>12.1?} {fault}"),
        }
        slowest = slowest.max(took);
    }
    println!("slowest {slowest:.1?} (goal 10 ms, built for release), 8 KiB matched in {longest:.1?} (goal 20 µs)");
    // Without optimisation, on a machine that does other things.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

fn pattern() -> impl Strategy<Value = String> {
    let leaf = select(
        &["a", "b", "/", ".", "[ab]", "[^a]", "(?i:A)", "^", "$", r"\w", r"\W", r"\d", r"\b", "[^/]", "/a/", ""][..],
    );
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join("|"))),
            (inner, select(&["*", "+", "?", "{2}", "{0,3}", "*?"][..]))
                .prop_map(|(part, op)| format!("(?:{part}){op}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn matches_what_the_regex_crate_matches(pattern in pattern(), values in proptest::collection::vec("[abAB/1\n ]{0,8}", 1..8)) {
        let expression = Expression::new(&pattern).unwrap();
        let oracle = regex::Regex::new(&format!(r"\A(?:{pattern})\z")).unwrap();
        for value in values {
            prop_assert_eq!(expression.compare(value.as_bytes()).matches, oracle.is_match(&value), "{} {:?}", pattern, value);
            if expression.compare(value.as_bytes()).matches {
                prop_assert!(value.starts_with(expression.prefix()), "{} {:?}", pattern, value);
            }
        }
    }

    #[test]
    fn any_pattern_is_fine(pattern in r"[\(\)\[\]\{\}\|\*\+\?\\a-c0-9\^\$\.\-:#xi,&~é]{0,40}", value in ".*") {
        let got = Expression::new(&pattern);
        let oracle = regex::Regex::new(&pattern);
        match (got, oracle) {
            (Ok(expression), _) => drop(expression.compare(value.as_bytes())),
            (Err(Fault::Syntax(_)), oracle) => prop_assert!(oracle.is_err(), "{}", pattern),
            (Err(Fault::TooComplex(_)), _) => {}
        }
    }

    #[test]
    fn any_text_is_a_pattern_or_none(pattern in ".*") {
        let _ = Expression::new(&pattern);
    }
}
