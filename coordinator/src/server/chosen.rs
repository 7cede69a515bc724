//! What the configuration chooses for sessions and for the embedded worker.

use std::path::PathBuf;

use super::state_dir::LockedStateDir;
use crate::config::{Config, EmbeddedWorker};
use crate::provision::embedded::EmbeddedOptions;
use crate::session::SessionOptions;

/// The settings of the session layer.
pub(super) fn session_options(config: &Config) -> SessionOptions {
    SessionOptions {
        ttl_default: config.session_max_age,
        cleanup_interval: config.cleanup_interval,
        retention: config.workspace_retention,
        retention_bytes: config.workspace_retention_bytes,
        limits: config.limits,
        quotas: config.quotas,
        isolation_minimum: config.isolation_minimum,
        egress: config.egress.clone(),
        reconnect_grace: config.worker_times.reconnect_grace,
        ..SessionOptions::default()
    }
}

/// The settings of the embedded worker, if there is to be one.
pub(super) fn embedded_options(config: &Config, state: &LockedStateDir) -> Option<EmbeddedOptions> {
    match config.embedded_worker {
        EmbeddedWorker::On => {}
        EmbeddedWorker::Off => return None,
    }
    let workspaces: PathBuf = config.base_workspace.clone().unwrap_or_else(|| state.workspaces_dir());
    Some(EmbeddedOptions {
        closed_above: state.above(&workspaces),
        sessions_max: config.max_sessions,
        reduced_sessions: config.reduced_sessions,
        isolation_minimum: config.isolation_minimum,
        log_level: config.log_level.as_str().to_owned(),
        search_path: config.search_path.clone(),
        spare_limits: Some(config.limits),
        packages: config.packages.clone(),
        ..EmbeddedOptions::new(state.worker_socket_for_child(), workspaces)
    })
}
