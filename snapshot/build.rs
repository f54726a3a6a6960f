//! Compiles the protocol with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["resources.proto", "control.proto"], ["proto"])?;
    let mut config = tonic_prost_build::configure()
        .bytes(".")
        // What is decoded may take no more memory than it is worth.
        .codec_path("crate::codec::Bounded")
        // What may be secret stays out of logs, /debug and `plan`: Debug is written by hand, Serialize redacts.
        .type_attribute(".sluice.v1", "#[derive(serde::Serialize)]");
    for (field, with) in [
        ("Fleet.access_log_level", "access_log_level"),
        ("PathMatch.kind", "path_kind"),
        ("Cluster.protocol", "cluster_protocol"),
        ("Limit.scope", "limit_scope"),
        ("Credential.kind", "credential_kind"),
        ("AccessRule.action", "access_action"),
    ] {
        let attribute = format!("#[serde(serialize_with = \"crate::sensitive::{with}\")]");
        config = config.field_attribute(format!("sluice.v1.{field}"), attribute);
    }
    // By type: bytes in a resource are secret, but for those that are named here.
    let mut opaque = vec!["sluice.v1.PutEntry".to_owned()];
    for message in files.file.iter().filter(|file| file.name() == "resources.proto").flat_map(|file| &file.message_type)
    {
        let bytes = message.field.iter().filter(|field| field.r#type().as_str_name() == "TYPE_BYTES");
        for path in bytes.map(|field| format!("{}.{}", message.name(), field.name())) {
            let with = if path == "Certificate.chain_pem" { "text" } else { "redact" };
            let attribute = format!("#[serde(serialize_with = \"crate::sensitive::{with}\")]");
            config = config.field_attribute(format!("sluice.v1.{path}"), attribute);
            opaque.push(format!("sluice.v1.{}", message.name()));
        }
    }
    config = config.skip_debug(opaque);
    config.compile_fds(files)?;
    Ok(())
}
