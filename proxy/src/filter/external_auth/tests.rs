use http::Request;

use super::*;
use crate::{filter::testing::ctx, telemetry::Telemetry, upstream::ConnectError};

fn filter(auth: &proto::ExternalAuth) -> ExternalAuth {
    let mut slots = |key: &Key| Arc::new(ClusterSlot { key: key.clone(), cluster: arc_swap::ArcSwapOption::empty() });
    let mut parts = Parts { telemetry: &Telemetry::default(), slots: &mut slots };
    ExternalAuth::compile(auth, &mut parts).unwrap()
}

fn auth() -> proto::ExternalAuth {
    proto::ExternalAuth {
        cluster: "Cluster/ns/auth/80".into(),
        path: "/check/".into(),
        request_headers: vec!["cookie".into(), "x-tenant".into(), "authorization".into()],
        response_headers: vec!["x-user".into(), "x-groups".into()],
        timeout_ms: 1000,
        fail_open: false,
    }
}

fn request(target: &str) -> RequestHead {
    let request = Request::put(target)
        .header("Host", "shop.example")
        .header("Authorization", "Bearer t")
        .header("Cookie", "a=1")
        .header("Cookie", "b=2")
        .header("X-User", "root")
        .header("X-Groups", "admin")
        .header("Content-Type", "text/plain");
    RequestHead::from(request.body(()).unwrap().into_parts().0)
}

fn answer(status: u16, fields: &[(&'static str, &'static str)]) -> Result<Response, CallError> {
    let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
    for (name, value) in fields {
        head.fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok(Response { head, body: Ok(Bytes::from_static(b"why")) })
}

fn text(fields: &Fields) -> Vec<String> {
    let text = |bytes| String::from_utf8_lossy(bytes).to_lowercase();
    fields.iter().map(|(name, value)| text(name) + "=" + &text(value)).collect()
}

#[test]
fn a_service_is_told_what_the_filter_names_and_no_more() {
    let question = filter(&auth()).0.question(&request("/a/b?c=d")).unwrap();
    assert_eq!((question.method.as_str(), question.uri.to_string().as_str()), ("PUT", "/check/a/b?c=d"));
    assert_eq!(text(&question.fields), ["host=shop.example", "authorization=bearer t", "cookie=a=1", "cookie=b=2"]);
    let plain = filter(&proto::ExternalAuth { path: String::new(), ..auth() });
    assert_eq!(plain.0.question(&request("/a?b")).unwrap().uri.to_string(), "/a?b");
    assert_eq!(plain.0.question(&request("*")).unwrap().uri.to_string(), "/");
    assert!(matches!(plain.on_request(&mut request("/"), &mut ctx()), Flow::Wait(_)));
    let long = format!("/{}", "a".repeat(65_530));
    let Flow::Reply(reply) = filter(&auth()).on_request(&mut request(&long), &mut ctx()) else { panic!("no reply") };
    assert_eq!(reply.head.status, 414);
}

#[test]
fn what_the_service_says_of_a_request_is_in_place_of_what_its_client_says() {
    let filter = filter(&auth());
    let mut head = request("/");
    let said = answer(200, &[("x-user", "alice"), ("x-user", "al"), ("x-other", "1"), ("set-cookie", "s")]);
    assert!(matches!(filter.0.decide(said, &mut head), Flow::Continue));
    let expect = ["host=shop.example", "authorization=bearer t", "cookie=a=1", "cookie=b=2", "content-type=text/plain"];
    assert_eq!(text(&head.fields), [&expect[..], &["x-user=alice", "x-user=al"]].concat());
}

#[test]
fn a_refusal_is_the_clients_answer() {
    let filter = filter(&auth());
    for status in [301, 302, 401, 403, 429] {
        let said = answer(status, &[("www-authenticate", "Basic"), ("x-user", "nobody"), ("server", "auth")]);
        let Flow::Reply(reply) = filter.0.decide(said, &mut request("/")) else { panic!("{status} lets it pass") };
        assert_eq!((reply.head.status.as_u16(), &reply.body[..]), (status, &b"why"[..]));
        assert_eq!(text(&reply.head.fields), ["www-authenticate=basic", "x-user=nobody"]);
        assert_eq!((reply.reason, reply.error_source), ("external_auth_denied", None));
    }
}

#[test]
fn a_failure_closes_unless_the_filter_fails_open_and_what_clients_bring_about_always_does() {
    let closed = filter(&auth());
    let open = filter(&proto::ExternalAuth { fail_open: true, ..auth() });
    type Answer = fn() -> Result<Response, CallError>;
    let failures: [(Answer, &str, bool); 9] = [
        (|| answer(204, &[]), "external_auth_failed", false),
        (|| answer(304, &[]), "external_auth_failed", false),
        (|| answer(500, &[]), "external_auth_failed", false),
        (|| answer(503, &[]), "external_auth_failed", true),
        (|| Err(ConnectError::Exhausted.into()), "external_auth_failed", false),
        (|| Err(ConnectError::Timeout.into()), "external_auth_failed", true),
        (|| Err(CallError::Timeout), "external_auth_timeout", true),
        (|| Err(CallError::Full), "external_auth_busy", false),
        (|| Err(CallError::NoCluster), "external_auth_missing", false),
    ];
    for (failed, reason, opens) in failures {
        let Flow::Reply(reply) = closed.0.decide(failed(), &mut request("/")) else { panic!("{reason} lets it pass") };
        assert_eq!((reply.reason, reply.head.status.is_server_error()), (reason, true));
        assert!(reply.error_source.is_some());
        let mut head = request("/");
        assert_eq!(matches!(open.0.decide(failed(), &mut head), Flow::Continue), opens, "{reason}");
        let spoofed = text(&head.fields).iter().any(|field| field.starts_with("x-user"));
        assert_eq!(spoofed, !opens, "what goes on unchecked says nothing that only the service may say");
    }
}
