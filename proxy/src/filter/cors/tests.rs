use http::{HeaderMap, Request, header::VARY};

use super::*;
use crate::filter::testing::ctx;

fn cors(origins: &[&str]) -> proto::Cors {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    proto::Cors { allow_origins: words(origins), max_age_seconds: 600, ..proto::Cors::default() }
}

/// The fields of what a request is answered, and the status if it is answered here. The backend allows everything.
fn answered(cors: &proto::Cors, method: &str, fields: &[(&str, &str)]) -> (Option<u16>, HeaderMap) {
    let filter = Cors::compile(cors).unwrap();
    let request = Request::builder().method(method);
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let mut request = RequestHead::from(request.body(()).unwrap().into_parts().0);
    let mut ctx = ctx();
    let (status, mut head) = match filter.on_request(&mut request, &mut ctx) {
        Flow::Reply(reply) => (Some(reply.head.status.as_u16()), reply.head),
        Flow::Continue => {
            let mut head = ResponseHead::new(StatusCode::OK);
            for (name, value) in OF_RESPONSES.iter().zip(["https://evil.example", "true", "x-secret"]) {
                head.fields.append(name.clone(), HeaderValue::from_static(value));
            }
            (None, head)
        }
        Flow::Wait(_) => panic!("waits"),
    };
    filter.on_response(&mut head, &request, &mut ctx);
    (status, head.fields.to_map())
}

#[track_caller]
fn check(head: &HeaderMap, expect: &[(&HeaderName, &str)]) {
    let got: Vec<_> = head.iter().filter(|(name, _)| *name != "content-type").collect();
    assert_eq!(got.len(), expect.len(), "{head:?}");
    for (name, value) in expect {
        assert_eq!(head.get(*name).map(HeaderValue::as_bytes), Some(value.as_bytes()), "{name}: {head:?}");
    }
}

const SHOP: (&str, &str) = ("origin", "https://shop.example");
const EVIL: (&str, &str) = ("origin", "https://evil.example");
const ASKS: (&str, &str) = ("access-control-request-method", "PUT");

#[test]
fn pages_of_allowed_origins_may_read_the_answer() {
    let only = cors(&["https://shop.example", "https://*.shop.example"]);
    for origin in ["https://shop.example", "https://a.b.shop.example", "https://shop.example:443"] {
        let (status, head) = answered(&only, "PUT", &[("origin", origin)]);
        assert_eq!(status, None);
        check(&head, &[(&ACCESS_CONTROL_ALLOW_ORIGIN, origin), (&VARY, "origin")]);
    }
    for fields in [&[EVIL][..], &[], &[("origin", "null")], &[SHOP, SHOP], &[("origin", "")]] {
        let (status, head) = answered(&only, "PUT", fields);
        assert_eq!(status, None, "the browser keeps the answer from the page; the request is for others to judge");
        check(&head, &[(&VARY, "origin")]);
    }
    let credentials = proto::Cors { allow_credentials: true, expose_headers: vec!["x-a".into(), "x-b".into()], ..only };
    let (_, head) = answered(&credentials, "GET", &[SHOP]);
    check(
        &head,
        &[
            (&ACCESS_CONTROL_ALLOW_ORIGIN, SHOP.1),
            (&ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
            (&ACCESS_CONTROL_EXPOSE_HEADERS, "x-a, x-b"),
            (&VARY, "origin"),
        ],
    );
}

#[test]
fn all_origins_get_one_answer_unless_credentials_come() {
    let all = proto::Cors { expose_headers: vec!["*".into()], ..cors(&["*"]) };
    for fields in [&[EVIL][..], &[], &[("origin", "null")]] {
        let (_, head) = answered(&all, "GET", fields);
        check(&head, &[(&ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (&ACCESS_CONTROL_EXPOSE_HEADERS, "*")]);
    }
    let credentials = proto::Cors { allow_credentials: true, ..cors(&["*"]) };
    let (_, head) = answered(&credentials, "GET", &[("origin", "null")]);
    check(&head, &[(&VARY, "origin")]);
    let (_, head) = answered(&credentials, "GET", &[EVIL]);
    let expect =
        [(&ACCESS_CONTROL_ALLOW_ORIGIN, EVIL.1), (&ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"), (&VARY, "origin")];
    check(&head, &expect);
    check(&answered(&credentials, "GET", &[]).1, &[(&VARY, "origin")]);
}

#[test]
fn preflights_are_answered_here() {
    let some = proto::Cors {
        allow_methods: vec!["GET".into(), "PUT".into()],
        allow_headers: vec!["x-a".into(), "authorization".into()],
        ..cors(&["https://shop.example"])
    };
    let (status, head) = answered(&some, "OPTIONS", &[SHOP, ASKS]);
    assert_eq!(status, Some(204));
    let expect = [
        (&ACCESS_CONTROL_ALLOW_ORIGIN, SHOP.1),
        (&ACCESS_CONTROL_ALLOW_METHODS, "GET, PUT"),
        (&ACCESS_CONTROL_ALLOW_HEADERS, "x-a, authorization"),
        (&ACCESS_CONTROL_MAX_AGE, "600"),
        (&VARY, "origin"),
    ];
    check(&head, &expect);
    let (status, head) = answered(&some, "OPTIONS", &[EVIL, ASKS]);
    assert_eq!(status, Some(403));
    check(&head, &[(&VARY, "origin")]);
    let (status, head) = answered(&cors(&["*"]), "OPTIONS", &[SHOP, ASKS]);
    assert_eq!(status, Some(204));
    check(&head, &[(&ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (&ACCESS_CONTROL_MAX_AGE, "600")]);
    // Those that are none.
    for (method, fields) in [("OPTIONS", &[SHOP][..]), ("OPTIONS", &[ASKS]), ("PUT", &[SHOP, ASKS])] {
        assert_eq!(answered(&some, method, fields).0, None, "{method} {fields:?}");
    }
}

#[test]
fn any_method_and_any_field_are_those_that_are_asked_for() {
    let any = proto::Cors {
        allow_methods: vec!["*".into()],
        allow_headers: vec!["*".into()],
        allow_credentials: true,
        ..cors(&["https://shop.example"])
    };
    let asks = ("access-control-request-headers", "authorization,x-a");
    let (_, head) = answered(&any, "OPTIONS", &[SHOP, ASKS, asks]);
    let expect = [
        (&ACCESS_CONTROL_ALLOW_ORIGIN, SHOP.1),
        (&ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
        (&ACCESS_CONTROL_ALLOW_METHODS, "PUT"),
        (&ACCESS_CONTROL_ALLOW_HEADERS, "authorization,x-a"),
        (&ACCESS_CONTROL_MAX_AGE, "600"),
        (&VARY, "origin"),
    ];
    check(&head, &expect);
    let (_, head) = answered(&any, "OPTIONS", &[SHOP, ASKS]);
    assert!(!head.contains_key(ACCESS_CONTROL_ALLOW_HEADERS), "none is asked for");
}
