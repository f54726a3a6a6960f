use std::io::Read as _;

use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderName, Response, Uri, Version};
use proptest::prelude::*;

use super::*;
use crate::{
    body::{BodyStep as _, Next, Steps, testing::pass},
    filter::testing::ctx,
};

fn filter(types: &[&str], min_bytes: u64) -> Compression {
    let types = types.iter().map(|of| (*of).to_owned()).collect();
    Compression::compile(&proto::Compression { algorithms: vec![0], types, min_bytes }).unwrap()
}

fn request(method: Method, fields: &[(&'static str, &'static str)]) -> RequestHead {
    let field =
        |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let fields = fields.iter().map(field).collect();
    RequestHead { method, uri: Uri::from_static("/"), version: Version::HTTP_11, fields }
}

/// A response that would be coded, but for `change`; its fields then, and whether its body passes a step.
fn answered(
    filter: &Compression,
    mut request: RequestHead,
    (status, framing): (u16, Framing),
    fields: &[(&str, &str)],
) -> (HeaderMap, bool) {
    let mut ctx = ctx();
    assert!(matches!(filter.on_request(&mut request, &mut ctx), Flow::Continue));
    ctx.body = Some(BodyPlan { framing, steps: Steps::default(), has_room: true });
    let response = Response::builder().status(status);
    let response = fields.iter().fold(response, |response, (name, value)| response.header(*name, *value));
    let mut head = ResponseHead::from(response.body(()).unwrap().into_parts().0);
    filter.on_response(&mut head, &request, &mut ctx);
    (head.fields.to_map(), !ctx.body.unwrap().steps.is_empty())
}

fn gzip() -> RequestHead {
    request(Method::GET, &[("accept-encoding", "gzip")])
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn a_coded_response_says_so() {
    let fields = [JSON, ("etag", "\"a\""), ("accept-ranges", "bytes"), ("vary", "origin"), ("x", "y")];
    let (head, steps) = answered(&filter(&[], 1024), gzip(), (200, Framing::Length(1024)), &fields);
    assert!(steps);
    let all = |name: &str| head.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    assert_eq!(all("content-encoding"), [b"gzip"]);
    assert_eq!(all("vary"), [&b"origin"[..], b"accept-encoding"]);
    assert_eq!((all("etag"), all("x")), (vec![&b"W/\"a\""[..]], vec![&b"y"[..]]));
    assert!(all("accept-ranges").is_empty());
}

#[test]
fn one_that_could_have_been_coded_varies() {
    let filter = filter(&[], 1024);
    for accepts in ["identity", "br", "gzip;q=0"] {
        let request = request(Method::GET, &[("accept-encoding", accepts)]);
        let (head, steps) = answered(&filter, request, (200, Framing::Chunked), &[JSON, ("etag", "\"a\"")]);
        assert!(!steps && head.get("content-encoding").is_none());
        assert_eq!([&head["vary"], &head["etag"]], ["accept-encoding", "\"a\""]);
    }
    for said in ["*", "Accept-Encoding", "origin, ACCEPT-ENCODING"] {
        let (head, steps) = answered(&filter, gzip(), (200, Framing::Chunked), &[JSON, ("vary", said)]);
        assert!(steps);
        assert_eq!(head.get_all("vary").iter().collect::<Vec<_>>(), [said]);
    }
    // By a request that forbids it, it is not coded, and another one's would be.
    let request = request(Method::GET, &[("accept-encoding", "gzip"), ("cache-control", "no-cache, No-Transform")]);
    let (head, steps) = answered(&filter, request, (200, Framing::Chunked), &[JSON]);
    assert!(!steps && head.contains_key("vary"));
}

#[test]
fn what_is_left_as_it_is() {
    let check = |what: (u16, Framing), fields: &[(&str, &str)]| {
        let (head, steps) = answered(&filter(&[], 1024), gzip(), what, fields);
        assert!(!steps && !head.contains_key("vary") && head.len() == fields.len(), "{what:?} {fields:?}: {head:?}");
    };
    let whole = (200, Framing::Chunked);
    check((200, Framing::Length(1023)), &[JSON]);
    check((200, Framing::Empty), &[JSON]);
    check((204, Framing::Empty), &[JSON]);
    check((206, Framing::Chunked), &[JSON]);
    check((416, Framing::Chunked), &[JSON]);
    check(whole, &[JSON, ("content-range", "bytes 0-1/2")]);
    check(whole, &[]);
    check(whole, &[JSON, ("content-encoding", "br")]);
    check(whole, &[JSON, ("cache-control", "max-age=1, no-transform")]);
    check(whole, &[JSON, ("content-digest", "sha-256=:x:")]);
    check(whole, &[JSON, ("repr-digest", "sha-256=:x:")]);
    for media_type in ["image/png", "application/grpc+json", "application/jsonx", "applicationjson", "*/*"] {
        check(whole, &[("content-type", media_type)]);
    }
}

#[test]
fn media_types() {
    let is = |types: &[&str], media_type: &str| {
        answered(&filter(types, 0), gzip(), (200, Framing::Length(1)), &[("content-type", media_type)]).1
    };
    for media_type in ["text/plain", "TEXT/event-stream", "application/JSON;charset=utf-8", "image/svg+xml ; a=b"] {
        assert!(is(&[], media_type), "{media_type}");
    }
    assert!(is(&["image/*", "a/b"], "image/png") && is(&["image/*", "a/b"], "A/b"));
    assert!(!is(&["image/*", "a/b"], "text/plain") && !is(&["application/*"], "application/grpc-web+proto"));
}

#[test]
fn an_answer_to_head_has_the_fields_of_one_to_get() {
    let head = || request(Method::HEAD, &[("accept-encoding", "gzip")]);
    let filter = filter(&[], 1024);
    for length in [Some("5000"), None] {
        let fields: Vec<_> =
            [JSON, ("etag", "\"a\"")].into_iter().chain(length.map(|l| ("content-length", l))).collect();
        let (head, steps) = answered(&filter, head(), (200, Framing::Empty), &fields);
        assert!(!steps && !head.contains_key("content-length"));
        assert_eq!([&head["content-encoding"], &head["etag"]], ["gzip", "W/\"a\""]);
    }
    let (head, _) = answered(&filter, head(), (200, Framing::Empty), &[JSON, ("content-length", "5")]);
    assert_eq!((head.len(), &head["content-length"]), (2, &"5".parse::<HeaderValue>().unwrap()));
}

#[test]
fn what_is_not_modified_is_named_as_it_was() {
    let filter = filter(&[], 1024);
    let fields = [("etag", "\"a\""), ("content-length", "5000")];
    let (head, steps) = answered(&filter, gzip(), (304, Framing::Empty), &fields);
    assert!(!steps && head.len() == 2);
    assert_eq!([&head["etag"], &head["vary"]], ["W/\"a\"", "accept-encoding"]);
    let (head, _) = answered(&filter, request(Method::GET, &[]), (304, Framing::Empty), &fields);
    assert_eq!([&head["etag"], &head["vary"]], ["\"a\"", "accept-encoding"]);
}

/// What is never coded has a strong tag, and so had what a client got before it accepted a coding.
#[test]
fn a_tag_that_the_client_names_as_it_is_stays_so() {
    let filter = filter(&[], 1024);
    let fields = [("etag", "\"a\""), ("content-length", "5000")];
    for (named, expect) in [("\"a\"", "\"a\""), ("\"b\", \"a\"", "\"a\""), ("W/\"a\"", "W/\"a\""), ("*", "W/\"a\"")] {
        let request = request(Method::GET, &[("accept-encoding", "gzip"), ("if-none-match", named)]);
        let (head, _) = answered(&filter, request, (304, Framing::Empty), &fields);
        assert_eq!(head["etag"], expect, "{named}");
        assert_eq!(head.contains_key("content-length"), !expect.starts_with('W'), "{named}");
    }
}

#[test]
fn nothing_is_coded_for_http_1_0() {
    let (filter, mut request) = (filter(&[], 0), gzip());
    request.version = Version::HTTP_10;
    let (head, steps) = answered(&filter, request, (200, Framing::Length(5000)), &[JSON]);
    assert!(!steps && !head.contains_key("content-encoding") && head.contains_key("vary"));
}

#[test]
fn without_memory_nothing_is_coded() {
    let (filter, mut request, mut ctx) = (filter(&[], 0), gzip(), ctx());
    let _ = filter.on_request(&mut request, &mut ctx);
    ctx.body = Some(BodyPlan { framing: Framing::Chunked, steps: Steps::default(), has_room: false });
    let response = Response::builder().header("content-type", "text/plain").body(()).unwrap();
    let mut head = ResponseHead::from(response.into_parts().0);
    filter.on_response(&mut head, &request, &mut ctx);
    assert!(head.fields.get("content-encoding").is_none() && head.fields.get("vary").is_some());
    assert!(ctx.body.unwrap().steps.is_empty());
}

fn coder() -> Steps {
    let mut steps = Steps::default();
    steps.push(Gzip::default());
    steps
}

fn decoded(coded: &[u8]) -> Vec<u8> {
    let mut decoder = GzDecoder::new(coded);
    let mut text = vec![];
    decoder.read_to_end(&mut text).unwrap();
    assert!(decoder.into_inner().is_empty(), "something is behind the end");
    text
}

#[test]
fn trailers_lose_digests_of_what_was_coded() {
    let mut trailers: HeaderMap = [("content-digest", "a"), ("x", "y")]
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
        .into_iter()
        .collect();
    Gzip::default().trailers(&mut trailers);
    assert_eq!(trailers.len(), 1);
}

#[test]
fn what_came_before_a_pause_can_be_decoded() {
    let mut steps = coder();
    let coded = pass(&mut steps, &[(b"data: 1\n\n", Next::Pause)]).unwrap();
    let mut text = vec![0; 9];
    GzDecoder::new(&coded[..]).read_exact(&mut text).unwrap();
    assert_eq!(text, b"data: 1\n\n");
    // Cut there, it is not whole.
    assert!(GzDecoder::new(&coded[..]).read_to_end(&mut vec![]).is_err());
    let more = pass(&mut steps, &[(b"data: 2\n\n", Next::Pause), (b"", Next::Pause), (b"", Next::End)]).unwrap();
    assert_eq!(decoded(&[coded, more].concat()), b"data: 1\n\ndata: 2\n\n");
}

#[test]
fn nothing_is_a_body_too() {
    assert_eq!(decoded(&pass(&mut coder(), &[(b"", Next::End)]).unwrap()), b"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever it is cut into, and wherever it pauses.
    #[test]
    fn any_pieces_decode_to_the_same(
        pieces in proptest::collection::vec((prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..5000),
            (any::<u8>(), 0..60_000usize).prop_map(|(byte, count)| vec![byte; count]),
            "[a-z ]{0,2000}".prop_map(String::into_bytes),
        ], any::<bool>()), 0..8),
    ) {
        let next = |pauses: bool| if pauses { Next::Pause } else { Next::Piece };
        let mut all: Vec<(&[u8], Next)> = pieces.iter().map(|(piece, pauses)| (&piece[..], next(*pauses))).collect();
        all.push((b"", Next::End));
        let coded = pass(&mut coder(), &all).unwrap();
        let text: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece).copied().collect();
        prop_assert_eq!(decoded(&coded), text);
    }
}
