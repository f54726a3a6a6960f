//! The filters of one rule, and how a request goes through them: forth in the order of their stages, back the other way.

use super::{Ctx, Filter, Flow, LocalReply, Resume, Wait};
use crate::message::{RequestHead, ResponseHead};

/// The filters of one rule, sorted by stage.
#[derive(Default)]
pub struct Chain {
    filters: Vec<Box<dyn Filter>>,
    sees_responses: bool,
    answers_preflights: bool,
}

/// The place of a filter in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(usize);

/// How far a chain came with a request.
pub enum Outcome {
    /// Every filter lets it go on.
    Passed,
    /// The filter at this place answers.
    Replied(Place, LocalReply),
    /// The filter at this place waits; then the chain goes on there ([`Chain::resume`]).
    Waits(Place, Wait),
}

/// The filters that see a response on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwind {
    /// All of them: the response is new, whoever made it.
    All,
    /// Those before the filter at this place, which had the response in store: when it came to be stored, the others had
    /// seen it.
    Before(Place),
}

impl Chain {
    /// Sorts filters into the proxy's order; those of one stage keep theirs.
    pub fn new(mut filters: Vec<Box<dyn Filter>>) -> Self {
        filters.sort_by_key(|f| f.stage());
        let sees_responses = filters.iter().any(|f| f.sees_responses());
        let answers_preflights = filters.iter().any(|f| f.answers_preflights());
        Self { filters, sees_responses, answers_preflights }
    }

    /// Whether a filter answers preflights.
    pub fn answers_preflights(&self) -> bool {
        self.answers_preflights
    }

    /// Runs the request's way, until a filter answers or waits.
    pub fn on_request(&self, head: &mut RequestHead, ctx: &mut Ctx) -> Outcome {
        self.run(0, head, ctx)
    }

    /// Goes on with a request at the filter that has waited.
    pub fn resume(&self, at: Place, resume: Resume, head: &mut RequestHead, ctx: &mut Ctx) -> Outcome {
        ctx.state.is_of(at.0);
        match resume(head, ctx) {
            Flow::Continue => self.run(at.0 + 1, head, ctx),
            Flow::Reply(reply) => Outcome::Replied(at, reply),
            Flow::Wait(wait) => Outcome::Waits(at, wait),
        }
    }

    fn run(&self, from: usize, head: &mut RequestHead, ctx: &mut Ctx) -> Outcome {
        for (i, filter) in self.filters.iter().enumerate().skip(from) {
            ctx.state.is_of(i);
            match filter.on_request(head, ctx) {
                Flow::Continue => {}
                Flow::Reply(reply) => return Outcome::Replied(Place(i), reply),
                Flow::Wait(wait) => return Outcome::Waits(Place(i), wait),
            }
        }
        Outcome::Passed
    }

    /// Whether anything happens on the response's way.
    pub fn sees_responses(&self) -> bool {
        self.sees_responses
    }

    /// Runs the response's way, last filter first. `request`: as it was sent upstream, or as far as it came.
    pub fn on_response(&self, head: &mut ResponseHead, request: &RequestHead, ctx: &mut Ctx, unwind: Unwind) {
        if !self.sees_responses {
            return;
        }
        let end = match unwind {
            Unwind::All => self.filters.len(),
            Unwind::Before(place) => place.0,
        };
        for (i, filter) in self.filters.iter().enumerate().take(end).rev() {
            ctx.state.is_of(i);
            filter.on_response(head, request, ctx);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderName, HeaderValue, Method, Request, StatusCode};

    use super::*;
    use crate::{
        filter::{
            Stage,
            testing::{caller, ctx},
        },
        telemetry::Waiter,
    };

    /// Keeps the method that it saw, and tells it the response.
    struct Step {
        stage: Stage,
        name: &'static str,
        flow: fn() -> Flow,
    }

    impl Filter for Step {
        fn stage(&self) -> Stage {
            self.stage
        }

        fn on_request(&self, head: &mut RequestHead, ctx: &mut Ctx) -> Flow {
            ctx.state.keep(format!("{} {}", self.name, head.method));
            (self.flow)()
        }

        fn sees_responses(&self) -> bool {
            true
        }

        fn on_response(&self, head: &mut ResponseHead, request: &RequestHead, ctx: &mut Ctx) {
            let kept = ctx.state.take::<String>().unwrap_or_else(|| format!("{} nothing", self.name));
            assert!(ctx.state.get::<String>().is_none(), "taken once");
            let seen = HeaderValue::try_from(format!("{kept} {}", request.uri.path())).unwrap();
            head.fields.append(HeaderName::from_static("seen"), seen);
        }
    }

    fn pass() -> Flow {
        Flow::Continue
    }

    fn reply() -> Flow {
        Flow::Reply(LocalReply {
            head: ResponseHead::new(StatusCode::OK),
            body: Bytes::new(),
            reason: "test",
            error_source: None,
        })
    }

    fn step(stage: Stage, name: &'static str, flow: fn() -> Flow) -> Box<dyn Filter> {
        Box::new(Step { stage, name, flow })
    }

    fn request() -> RequestHead {
        RequestHead::from(Request::builder().method(Method::PUT).uri("/a").body(()).unwrap().into_parts().0)
    }

    fn seen(chain: &Chain, request: &RequestHead, ctx: &mut Ctx, unwind: Unwind) -> Vec<String> {
        let mut head = ResponseHead::new(StatusCode::OK);
        chain.on_response(&mut head, request, ctx, unwind);
        head.fields.get_all("seen").map(|seen| String::from_utf8_lossy(seen).into_owned()).collect()
    }

    #[test]
    fn a_local_reply_is_seen_by_all_and_one_from_the_store_by_those_before_it() {
        let chain = || {
            Chain::new(vec![
                step(Stage::Rewrite, "rewrite", pass),
                step(Stage::Cache, "cache", reply),
                step(Stage::Authn, "authn", pass),
                step(Stage::Limits, "limits", pass),
            ])
        };
        for (unwind, expect) in [
            (false, &["rewrite nothing /a", "cache PUT /a", "limits PUT /a", "authn PUT /a"][..]),
            (true, &["limits PUT /a", "authn PUT /a"]),
        ] {
            let (chain, mut head, mut ctx) = (chain(), request(), ctx());
            let Outcome::Replied(place, _) = chain.on_request(&mut head, &mut ctx) else { panic!("no answer") };
            let unwind = if unwind { Unwind::Before(place) } else { Unwind::All };
            assert_eq!(seen(&chain, &head, &mut ctx, unwind), expect);
        }
    }

    fn waits(resume: Resume) -> Wait {
        Wait::new(Waiter::ExternalAuth, |_| async { resume })
    }

    #[tokio::test]
    async fn a_chain_goes_on_where_it_waited() {
        fn wait() -> Flow {
            let again = Box::new(|_: &mut RequestHead, ctx: &mut Ctx| {
                assert_eq!(ctx.state.get::<String>().map(String::as_str), Some("authz PUT"));
                Flow::Continue
            });
            let first = Box::new(move |head: &mut RequestHead, _: &mut Ctx| {
                head.uri = "/b".parse().unwrap();
                Flow::Wait(waits(again))
            });
            Flow::Wait(waits(first))
        }
        let chain = Chain::new(vec![
            step(Stage::Authz, "authz", wait),
            step(Stage::Authn, "authn", pass),
            step(Stage::Limits, "limits", pass),
        ]);
        let (mut head, mut ctx) = (request(), ctx());
        let Outcome::Waits(place, wait) = chain.on_request(&mut head, &mut ctx) else { panic!("no wait") };
        assert_eq!(head.uri.path(), "/a");
        let Outcome::Waits(again, wait) = chain.resume(place, wait.begin(caller()).await, &mut head, &mut ctx) else {
            panic!("no second wait")
        };
        assert_eq!(again, place);
        assert!(matches!(chain.resume(again, wait.begin(caller()).await, &mut head, &mut ctx), Outcome::Passed));
        assert_eq!(seen(&chain, &head, &mut ctx, Unwind::All), ["limits PUT /b", "authz PUT /b", "authn PUT /b"]);
    }
}
