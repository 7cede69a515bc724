//! Workers as pods of a StatefulSet: as many as free slots ask for.
//!
//! `options` says within what bounds, `cluster` speaks with the API server, and `keeper` looks at everything now and then and
//! sets the number of pods as `coordinator-core::scaling` decides. Everything else about pods is the manifest's and Kubernetes's.
//! Nothing is remembered beyond this process: one that starts again finds the number where it left it.
//!
//! All but the options needs the cargo feature `k8s`.

#[cfg(feature = "k8s")]
mod cluster;
#[cfg(feature = "k8s")]
mod keeper;
mod options;
#[cfg(all(test, feature = "k8s"))]
mod tests;

use std::error::Error;

#[cfg(feature = "k8s")]
pub use cluster::ClusterError;
pub use options::KubernetesOptions;

use crate::operators::Operators;
use crate::session::Sessions;
use crate::supervisor::Supervisor;
use crate::workers::Workers;

/// No cluster is at hand.
#[derive(Debug, thiserror::Error)]
pub enum NoCluster {
    /// Nothing says where it is.
    #[error(
        "nothing says how to reach the API server: this is no pod with a service account's token \
         (automountServiceAccountToken), and neither KUBECONFIG nor ~/.kube/config names a cluster"
    )]
    Unknown(#[source] Box<dyn Error + Send + Sync>),
    /// What says so cannot be used.
    #[error("what says how to reach the API server cannot be used")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// This program cannot speak with one.
    #[error("this program was built without the cargo feature `k8s`")]
    NotBuilt,
}

/// Starts keeping workers. That the API server refuses something, or cannot be reached, is no reason not to start: it is said
/// and tried again.
///
/// # Errors
/// [`NoCluster`] when nothing says where the API server is.
#[cfg(feature = "k8s")]
pub async fn start(
    options: KubernetesOptions,
    workers: Workers,
    sessions: Sessions,
    operators: Operators,
    supervisor: &Supervisor,
) -> Result<(), NoCluster> {
    let cluster = cluster::Cluster::find(&options.statefulset).await?;
    let keeper = keeper::Keeper::new(options.scale, cluster, workers, sessions, operators);
    let stop = supervisor.token();
    supervisor.spawn("Kubernetes provisioner", crate::supervisor::OnEnd::Shutdown, async move {
        let _stopped = stop.run_until_cancelled(keeper.run()).await;
    });
    Ok(())
}

/// Says that this program cannot.
///
/// # Errors
/// [`NoCluster::NotBuilt`].
#[cfg(not(feature = "k8s"))]
pub async fn start(
    _: KubernetesOptions,
    _: Workers,
    _: Sessions,
    _: Operators,
    _: &Supervisor,
) -> Result<(), NoCluster> {
    Err(NoCluster::NotBuilt)
}
