//! Packages: what may be asked for, and where it may come from.

mod index;
mod marker;
mod requirement;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use index::{HostPort, IndexUrl, InvalidUrl};
pub use requirement::{InvalidRequirement, Requirement, canonical_name};

/// The most requirements of one call.
pub const REQUIREMENTS_MAX: usize = 100;
/// Where a session's packages are, below its workspace: the interpreter's user base.
pub const USER_BASE: &str = ".codegen/python";

/// How a worker may reach package indexes. A proxy's address may hold a password, so `Debug` leaves it out.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageAccess {
    /// The indexes that may be used, the default first; none: nothing is installed from the network.
    pub indexes: Vec<IndexUrl>,
    /// Further hosts that hold the files to which an index points.
    pub file_hosts: Vec<HostPort>,
    /// Hosts of the two lists above that the operator named: they may lie in a private network.
    pub named_hosts: Vec<HostPort>,
    /// The proxy for `https` indexes, by URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_proxy: Option<String>,
    /// The proxy for `http` indexes, by URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_proxy: Option<String>,
    /// Hosts that are reached without a proxy, separated by commas, as `NO_PROXY` lists them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
    /// A file of certificates (PEM) that are trusted instead of pip's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl fmt::Debug for PackageAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackageAccess")
            .field("indexes", &self.indexes)
            .field("file_hosts", &self.file_hosts)
            .field("named_hosts", &self.named_hosts)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}
