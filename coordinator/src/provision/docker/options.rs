//! What worker containers are like, and how many there may be.

use std::path::PathBuf;

use coordinator_core::scaling::Scale;

/// How workers are had from Docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerOptions {
    /// How many there may be, and when another is started or one ended.
    pub scale: Scale,
    /// The image; the engine must have it.
    pub image: String,
    /// The network that they are on.
    pub network: String,
    /// Where they find the coordinator, `host:port`; where it listens when absent.
    pub coordinator: Option<String>,
    /// How they speak with it.
    pub spoken: Spoken,
    /// Memory of each, in bytes.
    pub memory_bytes: u64,
    /// A directory of ours that the engine can mount files from.
    pub directory: PathBuf,
}

/// How workers in containers speak with the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoken {
    /// In plain text, on the host's loopback interface alone.
    PlaintextLocal,
    /// In plain text: the operator answers for the network.
    PlaintextAnywhere,
    /// With TLS.
    Tls {
        /// The file with the certificates by which they check it; given to each of them.
        authority: PathBuf,
    },
}
