//! Getting workers: the embedded one, a child process of this coordinator; containers of a Docker engine; pods of a Kubernetes
//! cluster.

mod backoff;
pub mod docker;
pub mod embedded;
pub mod kubernetes;
mod remembered;
mod stderr;

use std::net::SocketAddr;

use crate::config::Provision;
use crate::identity::Tokens;
use crate::operators::Operators;
use crate::session::Sessions;
use crate::supervisor::Supervisor;
use crate::workers::Workers;

/// Why no workers can be provisioned.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// Not as containers.
    #[error(transparent)]
    Docker(#[from] docker::ProvisionError),
    /// Not as pods.
    #[error("workers cannot be had from Kubernetes")]
    Kubernetes(#[from] kubernetes::NoCluster),
}

/// Starts whoever starts workers, beside the embedded one.
///
/// # Errors
/// [`ProvisionError`] when that is certain to fail.
pub async fn start(
    provision: Provision,
    listens_at: Option<SocketAddr>,
    workers: Workers,
    sessions: Sessions,
    operators: Operators,
    tokens: Tokens,
    supervisor: &Supervisor,
) -> Result<(), ProvisionError> {
    match provision {
        Provision::Nobody => Ok(()),
        Provision::Docker(options) => {
            Ok(docker::start(*options, listens_at, workers, sessions, tokens, supervisor).await?)
        }
        Provision::Kubernetes(options) => {
            Ok(kubernetes::start(*options, workers, sessions, operators, supervisor).await?)
        }
    }
}
