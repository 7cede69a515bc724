//! Whether the coordinator has workers started, and how.

use std::path::{Path, PathBuf};
use std::time::Duration;

use coordinator_core::scaling::Scale;

use super::grpc::{GrpcConfig, Plaintext};
use super::layers::{ConfigError, Layers};
use super::values::Why;
use super::{settings, values};
use crate::provision::docker::{DockerOptions, Spoken};
use crate::provision::kubernetes::KubernetesOptions;

const DAY: u64 = 24 * 3600;

/// Who starts workers, beside the one that the coordinator may have itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provision {
    /// The operator does.
    Nobody,
    /// The coordinator does, as containers of a Docker engine.
    Docker(Box<DockerOptions>),
    /// The coordinator does, as pods of a StatefulSet.
    Kubernetes(Box<KubernetesOptions>),
}

/// The word for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Nobody,
    Docker,
    Kubernetes,
}

fn by(text: &str) -> Result<By, String> {
    match text {
        "none" => Ok(By::Nobody),
        "docker" => Ok(By::Docker),
        "kubernetes" => Ok(By::Kubernetes),
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
    let authority = layers.get(&settings::WORKER_TLS_CA, values::directory)?;
    let statefulset = layers.require(&settings::WORKER_STATEFULSET, statefulset)?;
    Ok(match by {
        By::Nobody => Provision::Nobody,
        By::Docker => Provision::Docker(Box::new(DockerOptions {
            scale,
            image,
            network,
            coordinator,
            spoken: spoken(grpc, authority),
            memory_bytes,
            directory: state_dir.join("provision"),
        })),
        By::Kubernetes => Provision::Kubernetes(Box::new(KubernetesOptions { scale, statefulset })),
    })
}

/// Workers are spoken to with TLS where the port has it. By what they check it the operator says, else it is the authority that
/// workers are held to, else the certificate itself with those above it.
fn spoken(grpc: &GrpcConfig, authority: Option<PathBuf>) -> Spoken {
    match (&grpc.tls, grpc.plaintext) {
        (Some(tls), _) => {
            let known = || grpc.authority.clone().unwrap_or_else(|| tls.certificate.clone());
            Spoken::Tls { authority: authority.unwrap_or_else(known) }
        }
        (None, Plaintext::Anywhere) => Spoken::PlaintextAnywhere,
        (None, Plaintext::Local) => Spoken::PlaintextLocal,
    }
}

/// A name as Kubernetes has them, since it becomes a part of a path.
fn statefulset(text: &str) -> Result<String, Why> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = (1..=52).contains(&text.len()) && text.bytes().all(known);
    let is_name = is_name && !text.starts_with('-') && !text.ends_with('-');
    if is_name { Ok(text.to_owned()) } else { Err("not 1 to 52 small letters, digits or `-` between them".to_owned()) }
}
