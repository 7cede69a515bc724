//! The checks of `doctor`, one function each. None of them changes anything.

use std::io;
use std::net::TcpListener;
use std::path::Path;

use codegen_audit::Verdict;
use codegen_types::IsolationLevel;

use super::Check;
use super::probe::Probed;
use crate::config::{Config, GrpcListen};
use crate::server::state_dir::{AUDIT_DIR, StateDir};

const MIB: u64 = 1 << 20;
/// Below this, a session can hardly do anything, in bytes.
const DISK_BYTES_MIN: u64 = 100 * MIB;

pub(super) fn isolation(config: &Config, probed: Result<&Probed, &String>) -> Check {
    let found = match probed {
        Ok(found) => &found.isolation,
        Err(why) => return Check::problem("isolation", why.as_str(), "see the message; report it if it means nothing"),
    };
    let detail = format!("level `{}`, minimum `{}`", found.level, config.isolation_minimum);
    if found.level >= config.isolation_minimum {
        return Check::ok("isolation", detail);
    }
    let remedy = match found.level {
        IsolationLevel::None => "mend what is missing below; until then no session is run".to_owned(),
        level => format!(
            "mend what is missing below, or permit less knowingly with ISOLATION_MINIMUM={level}; until then no session is run"
        ),
    };
    Check::problem("isolation", detail, remedy)
}

pub(super) fn python(probed: Option<&Probed>) -> Check {
    let pythons = probed.into_iter().flat_map(|found| &found.runtimes).filter(|runtime| runtime.name == "python");
    let found: Vec<String> = pythons.map(|runtime| format!("{} at {}", runtime.version, runtime.path)).collect();
    if found.is_empty() {
        return Check::problem("python", "none found", "install Python 3.11 or later (Debian: apt install python3)");
    }
    Check::ok("python", found.join(", "))
}

pub(super) fn runtimes(probed: Option<&Probed>) -> Check {
    let others = probed.into_iter().flat_map(|found| &found.runtimes).filter(|runtime| runtime.name != "python");
    let found: Vec<String> =
        others.map(|runtime| format!("{} {} at {}", runtime.name, runtime.version, runtime.path)).collect();
    if found.is_empty() {
        Check::ok("other runtimes", "none found")
    } else {
        Check::ok("other runtimes", found.join(", "))
    }
}

pub(super) fn state_dir(config: &Config) -> Check {
    let path = &config.state_dir;
    if !path.exists() {
        return Check::ok("state", format!("{} (is made at the first start)", path.display()));
    }
    match StateDir::open(path) {
        Ok(_) => Check::ok("state", path.display().to_string()),
        Err(error) => {
            Check::problem("state", super::super::chain(&error), "mend its owner and permissions, or use --state-dir")
        }
    }
}

pub(super) fn server(config: &Config) -> Check {
    let Ok(state) = StateDir::open(&config.state_dir) else { return Check::ok("server", "not running") };
    match state.running_server() {
        Ok(Some(holder)) => Check::ok("server", format!("{holder}, at {}", state.front_socket().display())),
        Ok(None) => Check::ok("server", "not running; started on demand"),
        Err(error) => Check::problem("server", super::super::chain(&error), "mend the state directory"),
    }
}

pub(super) fn grpc_port(config: &Config) -> Check {
    let address = config.grpc.listen.address();
    let running = StateDir::open(&config.state_dir).ok().and_then(|state| state.running_server().ok().flatten());
    match (TcpListener::bind(address), config.grpc.listen) {
        (Ok(_free), _) => Check::ok("grpc port", format!("{address} is free")),
        (Err(error), _) if error.kind() == io::ErrorKind::AddrInUse && running.is_some() => {
            Check::ok("grpc port", format!("{address} is in use, and a server runs here"))
        }
        (Err(error), GrpcListen::Default(_)) => {
            let detail = format!("{address}: {error}; the server goes on without it, and remote workers cannot join");
            Check::warning("grpc port", detail, "free the port, or choose another with --grpc-port")
        }
        (Err(error), GrpcListen::Chosen(_)) => {
            Check::problem("grpc port", format!("{address}: {error}"), "choose another with --grpc or --grpc-port")
        }
    }
}

pub(super) fn disk(config: &Config) -> Check {
    let wanted = config.base_workspace.as_deref().unwrap_or(&config.state_dir);
    let Some(existing) = wanted.ancestors().find(|path| path.exists()) else {
        return Check::problem("disk", "no part of the path exists", "use another --state-dir");
    };
    let free = match free_bytes(existing) {
        Ok(free) => free,
        Err(error) => return Check::problem("disk", error.to_string(), "use another --state-dir"),
    };
    let detail = format!("{} MiB free at {}", free / MIB, existing.display());
    if free < DISK_BYTES_MIN {
        return Check::problem("disk", detail, "make room: the log fails closed when the disk is full");
    }
    if free < config.limits.workspace_bytes {
        return Check::warning("disk", detail, "less than one workspace may hold; make room or lower workspace_bytes");
    }
    Check::ok("disk", detail)
}

pub(super) fn audit_log(config: &Config) -> Check {
    let dir = config.state_dir.join(AUDIT_DIR);
    if !dir.exists() {
        return Check::ok("audit log", "none yet");
    }
    let found = codegen_audit::verify(&dir, None);
    let remedy = "`coordinator audit verify` says where; a server refuses to start until `coordinator audit repair`";
    match found.verdict {
        Verdict::Whole => {
            let detail = format!("whole: {} records, {} of them under a signed checkpoint", found.last, found.covered);
            Check::ok("audit log", detail)
        }
        Verdict::TornTail { torn_bytes, .. } => {
            let detail = format!("whole but for {torn_bytes} bytes of an unfinished record");
            Check::warning("audit log", detail, "nothing to do: the next start sets them aside")
        }
        Verdict::Tampered { at, .. } => {
            Check::problem("audit log", format!("record {} is not what was written", at.seq), remedy)
        }
        Verdict::CutAfterCheckpoint { last, covered } => {
            let detail = format!("it ends at record {last}, and a checkpoint covers {covered} records");
            Check::problem("audit log", detail, remedy)
        }
        Verdict::Unreadable { why } => Check::problem("audit log", why, "mend the state directory"),
    }
}

fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
