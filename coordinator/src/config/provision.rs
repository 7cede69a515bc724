//! Whether the coordinator has workers started, and how.

use std::path::Path;
use std::time::Duration;

use coordinator_core::scaling::Scale;

use super::grpc::{GrpcConfig, Plaintext};
use super::layers::{ConfigError, Layers};
use super::{settings, values};
use crate::provision::docker::DockerOptions;

const DAY: u64 = 24 * 3600;

/// Who starts workers, beside the one that the coordinator may have itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provision {
    /// The operator does.
    Nobody,
    /// The coordinator does, as containers of a Docker engine.
    Docker(Box<DockerOptions>),
}

/// The word for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Nobody,
    Docker,
}

fn by(text: &str) -> Result<By, String> {
    match text {
        "none" => Ok(By::Nobody),
        "docker" => Ok(By::Docker),
        _ => Err("no such provisioner".to_owned()),
    }
}

/// Reads how workers are had.
pub(super) fn read(layers: &mut Layers, grpc: &GrpcConfig, state_dir: &Path) -> Result<Provision, ConfigError> {
    let by = layers.require(&settings::PROVISION, by)?;
    let workers_min = layers.require(&settings::WORKERS_MIN, values::count(0, 1_000))?;
    // Fewer than the least is no error: the least is then all there is.
    let workers_max = layers.require(&settings::WORKERS_MAX, values::count(1, 1_000))?.max(workers_min);
    let slots_per_worker = layers.require(&settings::WORKER_SLOTS, values::count(1, 4_096))?;
    let idle_for: Duration = layers.require(&settings::WORKER_IDLE, values::seconds(5, DAY))?;
    let scale =
        Scale { workers_min, workers_max, free_slots_low: slots_per_worker.div_ceil(4), slots_per_worker, idle_for };
    let image = layers.require(&settings::WORKER_IMAGE, values::text)?;
    let network = layers.require(&settings::WORKER_NETWORK, values::text)?;
    let memory_bytes = layers.require(&settings::WORKER_MEMORY, values::bytes(64 << 20, 1 << 50))?;
    let coordinator = layers.get(&settings::WORKER_COORDINATOR, values::text)?;
    Ok(match by {
        By::Nobody => Provision::Nobody,
        By::Docker => Provision::Docker(Box::new(DockerOptions {
            scale,
            image,
            network,
            coordinator,
            plaintext: grpc.plaintext == Plaintext::Anywhere,
            memory_bytes,
            directory: state_dir.join("provision"),
        })),
    })
}
