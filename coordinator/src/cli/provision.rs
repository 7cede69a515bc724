//! The flags about workers that the coordinator starts.

use clap::Args;

#[derive(Debug, Args)]
pub(super) struct ProvisionFlags {
    /// Who starts and ends other workers: none, docker or kubernetes [env: PROVISION]
    #[arg(long, value_name = "HOW", global = true, help_heading = "Settings")]
    provision: Option<String>,

    /// The least workers that there are, with --provision [default: 1] [env: WORKERS_MIN]
    #[arg(long, value_name = "COUNT", global = true, help_heading = "Settings")]
    workers_min: Option<String>,

    /// The most workers that there are, with --provision [default: 4] [env: WORKERS_MAX]
    #[arg(long, value_name = "COUNT", global = true, help_heading = "Settings")]
    workers_max: Option<String>,

    /// The image of workers, with --provision docker [default: codegen-mcp/worker:latest] [env: WORKER_IMAGE]
    #[arg(long, value_name = "IMAGE", global = true, help_heading = "Settings")]
    worker_image: Option<String>,

    /// The engine's network that workers are on, with --provision docker [default: bridge] [env: WORKER_NETWORK]
    #[arg(long, value_name = "NETWORK", global = true, help_heading = "Settings")]
    worker_network: Option<String>,

    /// Where containers of workers find this server [default: what --grpc says] [env: WORKER_COORDINATOR]
    #[arg(long, value_name = "HOST:PORT", global = true, help_heading = "Settings")]
    worker_coordinator: Option<String>,
}

impl ProvisionFlags {
    /// Each flag with what was given.
    pub(super) fn given(&self) -> [(&'static str, Option<String>); 6] {
        [
            ("--provision", self.provision.clone()),
            ("--workers-min", self.workers_min.clone()),
            ("--workers-max", self.workers_max.clone()),
            ("--worker-image", self.worker_image.clone()),
            ("--worker-network", self.worker_network.clone()),
            ("--worker-coordinator", self.worker_coordinator.clone()),
        ]
    }
}
