//! The launcher.

use std::os::fd::OwnedFd;

/// The worker's end of the socket to its launcher.
#[derive(Debug)]
pub struct LauncherSocket(pub(crate) OwnedFd);
