//! Compiles the protocol with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["resources.proto", "control.proto"], ["proto"])?;
    let mut config = tonic_prost_build::configure()
        .bytes(".")
        // What is decoded may take no more memory than it is worth.
        .codec_path("crate::codec::Bounded")
        // Private keys stay out of logs, /debug and `plan`: Debug is written by hand, Serialize redacts.
        .skip_debug(["sluice.v1.Certificate", "sluice.v1.PutEntry"])
        .type_attribute(".sluice.v1", "#[derive(serde::Serialize)]");
    for (field, with) in [
        ("Certificate.private_key_pem", "redact"),
        ("Certificate.chain_pem", "text"),
        ("Fleet.access_log_level", "access_log_level"),
        ("PathMatch.kind", "path_kind"),
        ("Cluster.protocol", "cluster_protocol"),
        ("Limit.scope", "limit_scope"),
    ] {
        let attribute = format!("#[serde(serialize_with = \"crate::sensitive::{with}\")]");
        config = config.field_attribute(format!("sluice.v1.{field}"), attribute);
    }
    config.compile_fds(files)?;
    Ok(())
}
