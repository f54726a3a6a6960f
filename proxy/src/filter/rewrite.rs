//! Changes the host and the path that the backend sees.

use http::{HeaderValue, StatusCode, header::HOST, uri::PathAndQuery};
use snapshot::{
    check::{Unfit, reason},
    proto,
};

use super::{Ctx, Filter, Flow, Stage, local_reply::reply, path::PathChange};
use crate::message::RequestHead;

/// The filter that rewrites a URL.
pub(super) struct Rewrite {
    host: Option<HeaderValue>,
    path: PathChange,
}

impl Rewrite {
    pub(super) fn compile(rewrite: &proto::UrlRewrite) -> Result<Self, Unfit> {
        let host = match rewrite.hostname.as_str() {
            "" => None,
            name => Some(HeaderValue::from_str(name).map_err(|e| {
                Unfit::new("urlRewrite.hostname", reason::INVALID_HOSTNAME, format!("{name:?} is no hostname: {e}"))
            })?),
        };
        Ok(Self { host, path: PathChange::compile(rewrite.path.as_ref()) })
    }
}

impl Filter for Rewrite {
    fn stage(&self) -> Stage {
        Stage::Rewrite
    }

    fn on_request(&self, head: &mut RequestHead, ctx: &mut Ctx) -> Flow {
        if let Some(host) = &self.host {
            head.fields.insert(HOST, host.clone());
        }
        // `OPTIONS *` has no path.
        if matches!(self.path, PathChange::Keep) || head.uri.path() == "*" {
            return Flow::Continue;
        }
        let mut target = String::with_capacity(head.uri.path().len() + 64);
        self.path.write(head.uri.path(), ctx.prefix, &mut target);
        if let Some(query) = head.uri.query() {
            target.push('?');
            target.push_str(query);
        }
        // Both parts were valid; together they can only be too long.
        let Ok(target) = PathAndQuery::try_from(target) else {
            return reply(StatusCode::URI_TOO_LONG, "target_too_long", "The rewritten request target is too long.");
        };
        head.uri = target.into();
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proto::{PathRewrite, path_rewrite};

    use super::*;
    use crate::filter::testing::ctx;

    #[test]
    fn host_and_path_change_and_the_query_stays() {
        let path = path_rewrite::Rewrite::ReplacePrefixMatch("/v2".into());
        let rewrite =
            proto::UrlRewrite { hostname: "internal".into(), path: Some(PathRewrite { rewrite: Some(path) }) };
        let request = Request::builder().uri("/v1/a?b=%20").header(HOST, "public").body(()).unwrap();
        let mut head = RequestHead::from(request.into_parts().0);
        let mut ctx = ctx();
        ctx.prefix = 3;
        let flow = Rewrite::compile(&rewrite).unwrap().on_request(&mut head, &mut ctx);
        assert!(matches!(flow, Flow::Continue));
        assert_eq!(head.uri.to_string(), "/v2/a?b=%20");
        assert_eq!(head.fields.get(&HOST), Some(&b"internal"[..]));
    }
}
