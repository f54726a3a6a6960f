//! Provider `JWT`: tokens that an issuer signed.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::CredentialSource;
use crate::{
    Duration,
    common::{FRAMING_MESSAGE, NOT_FRAMING},
    schema::text,
};

/// JSON Web Tokens of one issuer (RFC 7519), verified by its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtProvider {
    /// Issuer, as `iss` of its tokens has it, to the letter. Example: `https://id.example`.
    #[schemars(schema_with = "claim_text")]
    pub issuer: String,
    /// Names of this API, of which `aud` must have one. Default: tokens that have no `aud`, since one that says for whom
    /// it is must be refused by everybody else. Example: `[orders]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "claim_texts")]
    pub audiences: Vec<String>,
    /// Type, as `typ` of the header must have it, such as `at+jwt`. Default: `JWT`, `at+jwt`, `JOSE` or none.
    #[serde(rename = "typ", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "text::token")]
    pub typ: Option<String>,
    /// Tolerance for clocks that differ, up to `60s`: `exp` counts so much later, `nbf` and `iat` so much earlier.
    #[serde(default = "leeway")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('60s')")
        .message("clocks differ by 60s at most: set them right"))]
    pub leeway: Duration,
    /// Claims that tokens must have besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub required_claims: Vec<RequiredClaim>,
    /// Scopes that tokens must have, all of them, in `scope` or else in `scp`. One that lacks some is answered 403.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "scopes")]
    pub scopes: Vec<String>,
    /// Where a request may have its token; the first that is there counts. In `Authorization` it stands behind `Bearer`.
    #[serde(default = "authorization")]
    #[schemars(length(min = 1, max = 8))]
    pub from: Vec<CredentialSource>,
    /// Whether backends get the token. Default: it is taken out of every place named here.
    #[serde(default)]
    pub forward: bool,
    /// Claims that backends get as header fields, in place of whatever a client sends there. Example:
    /// `[{claim: sub, header: X-User}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, a.header.lowerAscii() == b.header.lowerAscii()))")
        .message("the same header field is named twice")
        .reason(Reason::FieldValueDuplicate))]
    pub claim_to_headers: Vec<ClaimToHeader>,
    /// The keys by which tokens are verified.
    pub jwks: Jwks,
}

/// A claim that a token must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequiredClaim {
    /// Its name, or within claims a JSON Pointer, such as `/realm_access/roles`.
    #[schemars(schema_with = "claim_text")]
    pub claim: String,
    /// The values of which it must have one; of a list, one element. Default: any but null.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "claim_texts")]
    pub values: Vec<String>,
}

/// A claim and the header field that backends get it in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimToHeader {
    /// Its name, or within claims a JSON Pointer. Texts, whole numbers and booleans are passed on, and lists of them with commas
    /// between; the field is left out where it would say something else.
    #[schemars(schema_with = "claim_text")]
    pub claim: String,
    /// The header field.
    #[schemars(schema_with = "text::header_name")]
    #[x_kube(validation = Rule::new(NOT_FRAMING).message(FRAMING_MESSAGE).reason(Reason::FieldValueForbidden))]
    pub header: String,
}

/// A JSON Web Key Set (RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jwks {
    /// The set itself, of public keys, as the issuer publishes it. Example: `{"keys": [...]}`.
    #[schemars(length(min = 1, max = 65536))]
    pub inline: String,
}

fn leeway() -> Duration {
    Duration::from_secs(30)
}

fn authorization() -> Vec<CredentialSource> {
    vec![CredentialSource { header: Some("Authorization".into()), query: None, cookie: None }]
}

/// What a claim is compared with, or named by.
fn claim_text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 1024})
}

fn claim_texts(generator: &mut SchemaGenerator) -> Schema {
    list(&claim_text(generator))
}

/// RFC 6749 section 3.3.
fn scopes(_: &mut SchemaGenerator) -> Schema {
    list(&json_schema!({"type": "string", "pattern": r"^[!#-\[\]-~]+$", "maxLength": 256}))
}

fn list(items: &Schema) -> Schema {
    json_schema!({"type": "array", "minItems": 1, "maxItems": 16, "x-kubernetes-list-type": "atomic", "items": items})
}
