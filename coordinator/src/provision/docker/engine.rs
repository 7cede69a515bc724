//! What is asked of the Docker engine.

use std::collections::HashMap;
use std::path::Path;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, ContainerSummary, ContainerSummaryStateEnum, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder,
};

use super::authority;
use super::identity::WorkerFiles;
use super::options::{DockerOptions, Spoken};

/// The label that says whose a container is.
const OWNER_LABEL: &str = "codegen-mcp.owner";
/// Where a worker finds its token.
const TOKEN_IN_CONTAINER: &str = "/run/secrets/worker-token";
/// Where a worker finds the certificates by which it checks the coordinator. The directory is mounted, since a file that is
/// replaced would stay what it was.
const AUTHORITY_IN_CONTAINER: &str = "/run/secrets/coordinator";
/// What a worker's container may do, and no more.
const SECCOMP: &str = include_str!("../../../../docker/seccomp-worker.json");
/// Processes and threads of a worker with all of its sessions.
const PIDS_MAX: i64 = 4_096;
/// How long a worker may take to let its tasks finish before it is killed, in seconds.
const STOP_SECONDS: i32 = 60;

/// Why the engine did not do something.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It does not answer, or says no.
    #[error("the Docker engine does not do what is needed")]
    Refused(#[from] bollard::errors::Error),
    /// It does not have the image.
    #[error("the Docker engine does not have the image {image}; build or pull it first")]
    NoImage {
        /// The image.
        image: String,
        /// What the engine said.
        source: bollard::errors::Error,
    },
}

/// A container of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its name, and the worker's.
    pub(super) name: String,
    /// Whether it runs, or will in a moment.
    pub(super) is_alive: bool,
}

/// The engine, and what containers of ours are like. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    docker: Docker,
    owner: String,
    /// Where workers find the coordinator.
    coordinator: String,
    options: DockerOptions,
}

impl Engine {
    /// Speaks with the engine that `DOCKER_HOST` names, else with the one of this machine.
    pub(super) async fn connect(
        options: &DockerOptions,
        coordinator: String,
        owner: &str,
    ) -> Result<Self, EngineError> {
        let docker = Docker::connect_with_defaults()?.negotiate_version().await?;
        let image = options.image.clone();
        docker.inspect_image(&image).await.map_err(|source| EngineError::NoImage { image, source })?;
        Ok(Self { docker, owner: owner.to_owned(), coordinator, options: options.clone() })
    }

    /// Every container of ours, whatever its state.
    pub(super) async fn list(&self) -> Result<Vec<Found>, EngineError> {
        let label = format!("{OWNER_LABEL}={}", self.owner);
        let filters = HashMap::from([("label".to_owned(), vec![label])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let containers = self.docker.list_containers(Some(options)).await?;
        Ok(containers.into_iter().filter_map(found).collect())
    }

    /// Starts a worker.
    pub(super) async fn start(&self, name: &str, files: &WorkerFiles) -> Result<(), EngineError> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        self.docker.create_container(Some(options), self.container(name, files)).await?;
        Ok(self.docker.start_container(name, None).await?)
    }

    /// Tells a worker to finish and end, and waits until it has.
    pub(super) async fn stop(&self, name: &str) -> Result<(), EngineError> {
        let options = StopContainerOptionsBuilder::default().t(STOP_SECONDS).build();
        Ok(self.docker.stop_container(name, Some(options)).await?)
    }

    /// Removes a worker with everything that it kept, alive or not.
    pub(super) async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        Ok(self.docker.remove_container(name, Some(options)).await?)
    }

    fn container(&self, name: &str, files: &WorkerFiles) -> ContainerCreateBody {
        let DockerOptions { image, spoken, scale, .. } = &self.options;
        let mut arguments = vec!["--coordinator".to_owned(), self.coordinator.clone()];
        match spoken {
            Spoken::PlaintextLocal => {}
            Spoken::PlaintextAnywhere => arguments.push("--insecure-plaintext".to_owned()),
            Spoken::Tls { .. } => {
                arguments.extend(["--tls-ca".to_owned(), format!("{AUTHORITY_IN_CONTAINER}/{}", authority::FILE)]);
            }
        }
        let environment = vec![
            format!("WORKER_ID={name}"),
            format!("WORKER_TOKEN_FILE={TOKEN_IN_CONTAINER}"),
            format!("MAX_SESSIONS={}", scale.slots_per_worker),
        ];
        ContainerCreateBody {
            image: Some(image.clone()),
            cmd: Some(arguments),
            env: Some(environment),
            labels: Some(HashMap::from([(OWNER_LABEL.to_owned(), self.owner.clone())])),
            host_config: Some(self.confinement(files)),
            ..ContainerCreateBody::default()
        }
    }

    /// As `docker/compose.yaml` has it: no capability, a read-only root, and what level full needs.
    fn confinement(&self, files: &WorkerFiles) -> HostConfig {
        let mounted = |path: &Path, place: &str| format!("{}:{place}:ro", path.display());
        let authority = files.authority.as_deref().map(|path| mounted(path, AUTHORITY_IN_CONTAINER));
        let binds = [mounted(&files.token, TOKEN_IN_CONTAINER)].into_iter().chain(authority).collect();
        let tmpfs = HashMap::from([("/tmp".to_owned(), "mode=1777,size=256m".to_owned())]);
        HostConfig {
            binds: Some(binds),
            network_mode: Some(self.options.network.clone()),
            memory: i64::try_from(self.options.memory_bytes).ok(),
            pids_limit: Some(PIDS_MAX),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned(), format!("seccomp={SECCOMP}")]),
            // Without an unmasked /proc the kernel lets no sandbox mount its own.
            masked_paths: Some(Vec::new()),
            readonly_paths: Some(Vec::new()),
            readonly_rootfs: Some(true),
            tmpfs: Some(tmpfs),
            init: Some(true),
            ..HostConfig::default()
        }
    }
}

fn found(container: ContainerSummary) -> Option<Found> {
    let name = container.names?.into_iter().next()?.trim_start_matches('/').to_owned();
    let is_alive = matches!(
        container.state?,
        ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED | ContainerSummaryStateEnum::RESTARTING
    );
    Some(Found { name, is_alive })
}
