//! Who calls: the first provider whose credential a request has decides.

use std::{borrow::Cow, sync::Arc};

use arc_swap::ArcSwap;
use snapshot::{
    check::Unfit,
    credential::{Digest, MAX_API_KEY},
    proto::{self, auth_provider},
};

use super::{
    credentials::{Places, Presented, Source},
    failures::Failures,
    refusal::Refusal,
};
use crate::{
    consumers::{Consumer, Consumers},
    filter::Ctx,
    lookup::Lookup,
    message::RequestHead,
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
}

/// API keys of consumers.
struct ApiKey {
    from: Box<[Source]>,
    forward: bool,
}

/// The number of a provider, and whom it knows the caller for.
pub(super) type Known = (usize, Arc<Consumer>);

impl Authentication {
    pub(super) fn compile(
        authentication: &proto::Authentication,
        namespace: &str,
        consumers: Arc<ArcSwap<Consumers>>,
        failures: Option<Failures>,
    ) -> Result<Self, Unfit> {
        let mut providers = vec![];
        for (i, provider) in authentication.providers.iter().enumerate() {
            let within = |e: Unfit| Unfit { field: format!("authentication.providers[{i}].{}", e.field), ..e };
            providers.push(Provider::compile(provider).map_err(within)?);
        }
        let (namespace, providers) = (namespace.into(), providers.into());
        Ok(Self { namespace, consumers, providers, anonymous: authentication.anonymous, failures })
    }

    /// The places whose credentials backends are not to get.
    pub(super) fn taken_out(&self) -> Places {
        self.providers.iter().flat_map(Provider::taken_out).collect()
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
            let Some(consumer) = provider.consumer(&credential, &self.namespace, &self.consumers.load()) else {
                self.failures.iter().for_each(|failures| failures.count(ctx));
                return Err(Refusal::Invalid(number));
            };
            return Ok(Some((number, consumer)));
        }
        if self.anonymous { Ok(None) } else { Err(Refusal::Missing) }
    }
}

impl Provider {
    fn compile(provider: &proto::AuthProvider) -> Result<Self, Unfit> {
        match &provider.provider {
            Some(auth_provider::Provider::ApiKey(keys)) => ApiKey::compile(keys).map(Self::ApiKey),
            None => Err(Unfit::new("type", "UnknownProvider", "a provider that this version does not know")),
        }
    }

    fn places(&self) -> &[Source] {
        match self {
            Self::ApiKey(keys) => &keys.from,
        }
    }

    fn taken_out(&self) -> &[Source] {
        match self {
            Self::ApiKey(keys) if keys.forward => &[],
            Self::ApiKey(_) => self.places(),
        }
    }

    /// The credential that a request brings for it.
    fn presented<'a>(&self, head: &'a RequestHead, lookup: &Lookup<'a>) -> Presented<Cow<'a, [u8]>> {
        match self {
            Self::ApiKey(keys) => keys.presented(head, lookup),
        }
    }

    /// The consumer of a namespace that the credential is of; `None`: it is none.
    fn consumer(&self, credential: &[u8], namespace: &str, consumers: &Consumers) -> Option<Arc<Consumer>> {
        match self {
            // Longer ones are no keys, and not worth hashing.
            Self::ApiKey(_) if credential.len() > MAX_API_KEY => None,
            Self::ApiKey(_) => consumers.find(namespace, &Digest::of_api_key(credential)).cloned(),
        }
    }
}

impl ApiKey {
    fn compile(keys: &proto::ApiKeyProvider) -> Result<Self, Unfit> {
        let mut from = vec![];
        for (i, source) in keys.from.iter().enumerate() {
            let within = |e: Unfit| Unfit { field: format!("apiKey.from[{i}].{}", e.field), ..e };
            from.push(Source::compile(source).map_err(within)?);
        }
        Ok(Self { from: from.into(), forward: keys.forward })
    }

    /// The key that a request brings, in the first place that has one.
    fn presented<'a>(&self, head: &'a RequestHead, lookup: &Lookup<'a>) -> Presented<Cow<'a, [u8]>> {
        let mut places = self.from.iter().map(|source| source.presented(head, lookup));
        places.find(|found| !matches!(found, Presented::Nothing)).unwrap_or(Presented::Nothing)
    }
}
