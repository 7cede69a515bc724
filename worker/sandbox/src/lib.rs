//! Isolation of sessions: sandboxes behind a trait, and path-safe files.
//!
//! Owner of everything between a worker and the code of a session: the launcher process that makes sandboxes, the init
//! and supervisors inside them, the layers of isolation, and the check at start that says which of them hold. The only
//! crate with `unsafe` code, since namespaces and mounts have no safe wrapper.
//!
//! *Invariant*: the launcher, init and supervisors are single-threaded and never use tokio; nothing falls back to a
//! weaker isolation than the one that was asked for.

pub mod backend;
mod cgroups;
mod child;
pub mod datagram;
pub mod fake;
pub mod files;
mod init;
mod kernel;
pub mod launcher;
mod layers;
mod process;
mod protocol;
mod supervisor;
pub mod uids;

pub use backend::{
    Backend, BoxFuture, PROXY_CERTIFICATES, PROXY_PORT, Places, ProxySpec, Sandbox, SandboxEnd, SandboxError,
    SandboxSpec, Spawn,
};
pub use child::{Child, ChildEnd, SupervisorLost};
pub use fake::FakeBackend;
pub use init::may_be_shown;
pub use layers::computing::only_computing;
pub use layers::landlock::without_files;
pub use process::ProcessBackend;
