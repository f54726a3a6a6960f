//! `Consumer`: who calls.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{k8s, text};

/// The label of a Secret that says as what credential it serves. Without it whoever may write Consumers, and not read Secrets,
/// would learn of all Secrets of the namespace by what becomes of credentials.
pub const CREDENTIAL_LABEL: &str = "sluice.dev/credential";

/// The value of [`CREDENTIAL_LABEL`] for API keys.
pub const API_KEY_CREDENTIAL: &str = "api-key";

/// Whether a Secret of this label and type serves as an API key. Tokens of ServiceAccounts, and certificates, never do.
pub fn is_api_key(label: Option<&str>, type_: Option<&str>) -> bool {
    label == Some(API_KEY_CREDENTIAL)
        && !matches!(type_, Some("kubernetes.io/service-account-token" | "kubernetes.io/tls"))
}

/// Who calls. Its labels are its tiers and groups, its credentials what it is known by.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "Consumer",
    plural = "consumers",
    doc = "Who calls. Its labels are its tiers and groups, its credentials what it is known by.",
    namespaced,
    status = "ConsumerStatus",
    derive = "PartialEq",
    shortname = "cons",
    category = "sluice",
    printcolumn(name = "Tier", type_ = "string", json_path = ".metadata.labels.tier"),
    printcolumn(name = "Credentials", type_ = "integer", json_path = ".status.credentials"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].reason"#
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Programmed")].message"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsumerSpec {
    /// Each of them is this consumer: several overlap while keys are rotated. Example:
    /// `[{type: APIKey, secretRef: {name: acme-key}}]`, of a Secret with the label `sluice.dev/credential: api-key`.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, a == b))")
        .message("the same credential is named twice")
        .reason(Reason::FieldValueDuplicate))]
    pub credentials: Vec<Credential>,
}

/// One credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credential {
    /// The one type there is so far.
    #[serde(rename = "type")]
    pub kind: CredentialType,
    /// The key of a Secret of this namespace that holds it. The Secret has the label `sluice.dev/credential: api-key`, and is not
    /// of type `kubernetes.io/tls` or `kubernetes.io/service-account-token`.
    pub secret_ref: SecretKeyRef,
}

/// What a credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CredentialType {
    /// An API key. Proxies get its SHA-256 only.
    #[serde(rename = "APIKey")]
    ApiKey,
}

/// Refers to a key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(schema_with = "text::subdomain")]
    pub name: String,
    /// The key within it.
    #[serde(default = "api_key")]
    #[schemars(schema_with = "text::secret_key")]
    pub key: String,
}

fn api_key() -> String {
    "api-key".into()
}

/// What the operator says of the consumer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerStatus {
    /// `Accepted`, `ResolvedRefs`, `Programmed`.
    #[schemars(schema_with = "k8s::conditions")]
    pub conditions: Vec<Condition>,
    /// The number of credentials that proxies know it by. 0 while no fleet serves a route of its namespace, or has room for it.
    pub credentials: u32,
}
