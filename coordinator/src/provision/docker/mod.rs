//! Workers as containers of a Docker engine: started and ended by how many slots are free.
//!
//! `options` says within what bounds, `engine` speaks with the engine, `identity` and `authority` keep what a worker joins
//! with, and `keeper` looks at everything now and then and does what `coordinator-core::scaling` decides. What is ours has our label, so
//! that a coordinator that starts again takes up what it finds.

mod authority;
mod engine;
mod identity;
mod keeper;
mod options;

use std::net::SocketAddr;

pub use authority::AuthorityError;
pub use engine::EngineError;
pub use identity::OwnerError;
pub use options::{DockerOptions, Spoken};

use crate::identity::Tokens;
use crate::session::Sessions;
use crate::supervisor::{OnEnd, Supervisor};
use crate::workers::Workers;
use engine::Engine;
use identity::Identities;
use keeper::Keeper;

/// Why no workers can be provisioned.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The engine cannot be used.
    #[error("workers cannot be had from Docker")]
    Engine(#[from] EngineError),
    /// Workers have nowhere to join.
    #[error("no port is listened at on which workers could join; choose one with --grpc")]
    Nowhere,
    /// What workers join with cannot be kept.
    #[error("what workers join with cannot be kept")]
    Owner(#[from] OwnerError),
}

/// Starts keeping workers. They are left to themselves when the coordinator ends, and taken up when it starts again.
///
/// # Errors
/// [`ProvisionError`] when the engine does not answer, or does not have the image, or workers cannot be given what they join with.
pub async fn start(
    options: DockerOptions,
    listens_at: Option<SocketAddr>,
    workers: Workers,
    sessions: Sessions,
    tokens: Tokens,
    supervisor: &Supervisor,
) -> Result<(), ProvisionError> {
    let identities = Identities::open(&options.directory, &options.spoken, tokens)?;
    let given = options.coordinator.clone().or_else(|| Some(listens_at?.to_string()));
    let coordinator = given.ok_or(ProvisionError::Nowhere)?;
    let engine = Engine::connect(&options, coordinator, identities.owner()).await?;
    let keeper = Keeper::new(options.scale, engine, identities, workers, sessions, supervisor.clone());
    let stop = supervisor.token();
    supervisor.spawn("Docker provisioner", OnEnd::Shutdown, async move {
        let _stopped = stop.run_until_cancelled(keeper.run()).await;
    });
    Ok(())
}
