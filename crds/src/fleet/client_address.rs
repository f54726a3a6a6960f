//! Where the client's address is read from behind other proxies.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::k8s;

/// The proxies that stand between clients and this fleet, and the field in which they tell whose request it is. Each of them
/// adds the address that connected to it behind those that were there; so the list is read from its end, and what a client
/// writes there itself is never reached. An entry that is no address, such as `unknown`, ends it: then the last address that
/// was read is the client's. All that a request is judged by uses the result: limits by `ClientIP`, access
/// policies, the log, external authorization. Bounds on connections are for whoever connects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.trustedHops) != (has(self.trustedCIDRs) && size(self.trustedCIDRs) > 0)")
    .message("give one of trustedHops and trustedCIDRs: they say which proxies are believed"))]
pub struct ClientAddress {
    /// The field that these proxies write. No other one is read, since a client could write that itself.
    #[serde(default)]
    pub header: ClientAddressHeader,
    /// How many proxies there are, the one that connects to this fleet included. Right only if no client can connect past one
    /// of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub trusted_hops: Option<u32>,
    /// Where these proxies are, as CIDRs: the client is the last address of the list that is in none of them. Whoever connects
    /// from elsewhere is a client. Whoever is in these networks says whose its requests are: name no pods or nodes.
    #[serde(default, rename = "trustedCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "k8s::cidrs")]
    pub trusted_cidrs: Vec<String>,
}

/// The fields by which proxies tell whose request it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientAddressHeader {
    /// `X-Forwarded-For: 192.0.2.1, 198.51.100.2`, with or without ports.
    #[default]
    #[serde(rename = "X-Forwarded-For")]
    XForwardedFor,
    /// `Forwarded: for=192.0.2.1, for="[2001:db8::1]:4711"` (RFC 7239).
    Forwarded,
}
