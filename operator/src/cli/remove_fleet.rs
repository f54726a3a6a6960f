//! `remove-fleet`: ends the fleet of an installation before what runs it goes. `helm uninstall` runs it.

use std::{fmt::Debug, process::ExitCode, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::Failure;

/// Deletes the chart's default fleet and waits until its proxies have ended; `helm uninstall` runs it
///
/// Clients are served until the last proxy has drained. Proxies that take longer than --timeout are left to Kubernetes, which
/// ends them all the same.
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
    #[arg(long, value_name = "DURATION", default_value = "4m")]
    timeout: crds::Duration,
}

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(remove(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn remove(args: &Args) -> Result<(), Failure> {
    let client = Client::try_default().await?;
    let Args { namespace, manifest, fleet, timeout } = args;
    delete::<ConfigMap>(&client, namespace, manifest).await?;
    delete::<crds::GatewayFleet>(&client, namespace, fleet).await?;
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let label = planner::fleet::label_value(fleet);
    let of_fleet =
        ListParams::default().labels(&format!("app.kubernetes.io/name=sluice-proxy,sluice.dev/fleet={label}"));
    let until = Instant::now() + timeout.std();
    let mut told = None;
    loop {
        let left = pods.list_metadata(&of_fleet).await?.items.len();
        if left == 0 {
            println!("ok       no proxy of GatewayFleet {namespace}/{fleet} is left");
            return Ok(());
        }
        if told != Some(left) {
            println!("waiting  {left} proxies of GatewayFleet {namespace}/{fleet} serve what they have begun");
            told = Some(left);
        }
        if Instant::now() + PAUSE > until {
            println!("left     {left} proxies have not ended yet; Kubernetes ends them");
            return Ok(());
        }
        sleep(PAUSE).await;
    }
}

async fn delete<K>(client: &Client, namespace: &str, name: &str) -> Result<(), Failure>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    match Api::<K>::namespaced(client.clone(), namespace).delete(name, &DeleteParams::background()).await {
        Ok(_) => println!("deleted  {} {namespace}/{name}", K::kind(&())),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(format!("{} {namespace}/{name}: {error}", K::kind(&())).into()),
    }
    Ok(())
}
