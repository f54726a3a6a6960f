//! Who calls: the first provider whose credential a request has decides.

use std::{borrow::Cow, sync::Arc};

use arc_swap::ArcSwap;
use snapshot::{
    Hash,
    check::{Unfit, reason},
    credential::{Digest, MAX_API_KEY},
    proto::{self, auth_provider},
};

use super::{
    credentials::{Places, Presented, Source},
    failures::Failures,
    jwt::{Accepted, Jwt, Tokens},
    refusal::Refusal,
};
use crate::{
    consumers::{Consumer, Consumers},
    filter::Ctx,
    lookup::Lookup,
    message::RequestHead,
    wall_clock,
};

/// How a policy knows callers.
pub(super) struct Authentication {
    /// The namespace whose consumers it knows.
    namespace: Box<str>,
    consumers: Arc<ArcSwap<Consumers>>,
    providers: Box<[Provider]>,
    anonymous: bool,
    /// `None`: any number of failures.
    failures: Option<Failures>,
}

/// One way in which callers are known. A further one is a variant here.
enum Provider {
    ApiKey(ApiKey),
    Jwt(Box<Jwt>),
}

/// API keys of consumers.
struct ApiKey {
    from: Box<[Source]>,
    forward: bool,
}

/// The number of a provider, and what it knows of the caller.
pub(super) type Known = (usize, Caller);

/// A caller that is known.
pub(super) enum Caller {
    Consumer(Arc<Consumer>),
    /// Who has a token, and is no consumer.
    Token(Arc<Accepted>),
}

impl Authentication {
    /// `policy`: the hash of the policy that it is a part of, and its namespace.
    pub(super) fn compile(
        authentication: &proto::Authentication,
        policy: (Hash, &str),
        consumers: Arc<ArcSwap<Consumers>>,
        tokens: &Arc<Tokens>,
        failures: Option<Failures>,
    ) -> Result<Self, Unfit> {
        let mut providers = vec![];
        for (i, provider) in authentication.providers.iter().enumerate() {
            let within = |e: Unfit| Unfit { field: format!("authentication.providers[{i}].{}", e.field), ..e };
            providers.push(Provider::compile(provider, (policy, i), tokens).map_err(within)?);
        }
        let (namespace, providers) = (policy.1.into(), providers.into());
        Ok(Self { namespace, consumers, providers, anonymous: authentication.anonymous, failures })
    }

    /// The places whose content backends are not to get, for each provider that knows the caller, and at last where none
    /// does. What a provider with `forward` verified stays, and nothing that nobody did.
    pub(super) fn taken_out(&self) -> Box<[Places]> {
        let of = |knows: Option<&Provider>| {
            let kept = knows.filter(|provider| provider.forwards()).map_or(&[][..], Provider::places);
            let all = self.providers.iter().flat_map(|provider| provider.places().iter().chain(provider.told()));
            all.filter(|source| !kept.contains(source)).collect()
        };
        self.providers.iter().map(Some).chain([None]).map(of).collect()
    }

    /// All places that may hold a credential.
    pub(super) fn places(&self) -> Places {
        self.providers.iter().flat_map(Provider::places).collect()
    }

    /// Who calls; `None`: nobody that is known, which may be.
    pub(super) fn known(&self, head: &RequestHead, ctx: &Ctx) -> Result<Option<Known>, Refusal> {
        let lookup = Lookup::new(head.uri.query(), &head.fields);
        for (number, provider) in self.providers.iter().enumerate() {
            let credential = match provider.presented(head, &lookup) {
                Presented::Nothing => continue,
                Presented::Several => return Err(Refusal::Several(number)),
                Presented::One(credential) => credential,
            };
            if let Some(seconds) = self.failures.as_ref().and_then(|failures| failures.wait_s(ctx)) {
                return Err(Refusal::TooManyFailures(number, seconds));
            }
            let caller = match provider {
                Provider::ApiKey(_) => self.consumer(&credential).map(Caller::Consumer).ok_or(Refusal::Invalid(number)),
                Provider::Jwt(jwt) => {
                    let accepted = jwt.verify(&credential, wall_clock::unix(ctx.started));
                    accepted.map(Caller::Token).map_err(|reason| Refusal::Token(number, reason))
                }
            };
            if caller.as_ref().is_err_and(|refusal| refusal.is_guess()) {
                self.failures.iter().for_each(|failures| failures.count(ctx));
            }
            return caller.map(|caller| Some((number, caller)));
        }
        if self.anonymous { Ok(None) } else { Err(Refusal::Missing) }
    }

    /// The consumer whose key it is; `None`: it is none. Longer ones are no keys, and not worth hashing.
    fn consumer(&self, key: &[u8]) -> Option<Arc<Consumer>> {
        if key.len() > MAX_API_KEY {
            return None;
        }
        self.consumers.load().find(&self.namespace, &Digest::of_api_key(key)).cloned()
    }
}

impl Provider {
    fn compile(
        provider: &proto::AuthProvider,
        place: ((Hash, &str), usize),
        tokens: &Arc<Tokens>,
    ) -> Result<Self, Unfit> {
        match &provider.provider {
            Some(auth_provider::Provider::ApiKey(keys)) => ApiKey::compile(keys).map(Self::ApiKey),
            Some(auth_provider::Provider::Jwt(jwt)) => {
                Jwt::compile(jwt, place, tokens).map(|jwt| Self::Jwt(Box::new(jwt)))
            }
            None => Err(Unfit::new("type", reason::UNKNOWN_PROVIDER, "a provider that this version does not know")),
        }
    }

    fn places(&self) -> &[Source] {
        match self {
            Self::ApiKey(keys) => &keys.from,
            Self::Jwt(jwt) => jwt.places(),
        }
    }

    /// Fields that say what was verified, and are not the client's to write.
    fn told(&self) -> &[Source] {
        match self {
            Self::ApiKey(_) => &[],
            Self::Jwt(jwt) => jwt.told(),
        }
    }

    fn forwards(&self) -> bool {
        match self {
            Self::ApiKey(keys) => keys.forward,
            Self::Jwt(jwt) => jwt.forwards(),
        }
    }

    /// The credential that a request brings for it.
    fn presented<'a>(&self, head: &'a RequestHead, lookup: &Lookup<'a>) -> Presented<Cow<'a, [u8]>> {
        match self {
            Self::ApiKey(keys) => keys.presented(head, lookup),
            Self::Jwt(jwt) => jwt.presented(head, lookup),
        }
    }
}

impl ApiKey {
    fn compile(keys: &proto::ApiKeyProvider) -> Result<Self, Unfit> {
        Ok(Self { from: Source::compile_all("apiKey.from", &keys.from)?, forward: keys.forward })
    }

    /// The key that a request brings, in the first place that has one.
    fn presented<'a>(&self, head: &'a RequestHead, lookup: &Lookup<'a>) -> Presented<Cow<'a, [u8]>> {
        let mut places = self.from.iter().map(|source| source.presented(head, lookup, self.forward));
        Presented::first(&mut places, self.forward)
    }
}
