//! `remove-fleet`: ends the fleet of an installation before what runs it goes. `helm uninstall` runs it.

use std::{process::ExitCode, time::Duration};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Preconditions},
};
use tokio::time::{Instant, sleep};

use super::Failure;
use crate::default_fleet::is_owned;

/// Deletes the chart's default fleet and waits until its proxies have ended; `helm uninstall` runs it
///
/// Clients are served until the last proxy has drained. Proxies that take longer than --timeout are left to Kubernetes, which
/// ends them all the same. Nothing is deleted where helm did not install the ConfigMap, such as from a manifest that `helm
/// template` made, and no fleet that is not the ConfigMap's.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The namespace of the installation.
    #[arg(long)]
    namespace: String,
    /// The ConfigMap with the fleet's manifest: as long as it is there, the operator makes the fleet anew.
    #[arg(long, value_name = "CONFIGMAP")]
    manifest: String,
    /// The name of the GatewayFleet.
    #[arg(long)]
    fleet: String,
    /// How long it may take.
    #[arg(long, value_name = "DURATION", default_value = "150s")]
    timeout: crds::Duration,
}

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The annotation that helm writes on all that it installs, and on nothing else.
const RELEASE: &str = "meta.helm.sh/release-name";

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(remove(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn remove(args: &Args) -> Result<(), Failure> {
    let client = Client::try_default().await?;
    let Args { namespace, manifest, fleet, timeout } = args;
    let (config_map, id) = (format!("ConfigMap {namespace}/{manifest}"), format!("GatewayFleet {namespace}/{fleet}"));
    let manifests: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let Some(definition) = manifests.get_opt(manifest).await.map_err(|error| failure(&config_map, &error))? else {
        println!("ok       there is no {config_map}: nothing to remove");
        return Ok(());
    };
    if !definition.annotations().contains_key(RELEASE) {
        println!("ok       {config_map} is not of a release of helm (no annotation {RELEASE}): nothing is removed");
        return Ok(());
    }
    let fleets: Api<crds::GatewayFleet> = Api::namespaced(client.clone(), namespace);
    let found = fleets.get_metadata_opt(fleet).await.map_err(|error| failure(&id, &error))?;
    let ours = found.filter(|found| is_owned(&found.metadata, &definition));
    delete(&manifests, &definition.metadata, &config_map).await?;
    let Some(ours) = ours else {
        println!("ok       no {id} of that ConfigMap is there");
        return Ok(());
    };
    delete(&fleets, &ours.metadata, &id).await?;
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let label = planner::fleet::label_value(fleet);
    let of_fleet =
        ListParams::default().labels(&format!("app.kubernetes.io/name=sluice-proxy,sluice.dev/fleet={label}"));
    let until = Instant::now() + timeout.std();
    let mut told = None;
    loop {
        let left = pods.list_metadata(&of_fleet).await?.items.len();
        if left == 0 {
            println!("ok       no proxy of {id} is left");
            return Ok(());
        }
        if told != Some(left) {
            println!("waiting  {left} proxies of {id} serve what they have begun");
            told = Some(left);
        }
        if Instant::now() + POLL_INTERVAL > until {
            println!("left     {left} proxies have not ended yet; Kubernetes ends them");
            return Ok(());
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Deletes that very object.
async fn delete<K>(api: &Api<K>, object: &ObjectMeta, what: &str) -> Result<(), Failure>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let preconditions = Preconditions { uid: object.uid.clone(), resource_version: None };
    let params = DeleteParams::background().preconditions(preconditions);
    match api.delete(object.name.as_deref().unwrap_or_default(), &params).await {
        Ok(_) => println!("deleted  {what}"),
        // Of 409: another one has that name now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => return Err(failure(what, &error)),
    }
    Ok(())
}

fn failure(what: &str, error: &kube::Error) -> Failure {
    format!("{what}: {error}").into()
}
