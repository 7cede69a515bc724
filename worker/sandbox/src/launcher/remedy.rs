//! What an operator can do when the host refuses a sandbox.

use std::fs;
use std::io;

use crate::protocol::OpenFailure;

const APPARMOR: &str = "kernel.apparmor_restrict_unprivileged_userns";
const CONTAINER: &str =
    "in a container, use a seccomp profile that permits user namespaces, and `--security-opt systempaths=unconfined`";

/// Cloning into namespaces failed.
pub(super) fn for_clone(error: &io::Error) -> OpenFailure {
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => permission_remedy(),
        Some(libc::ENOSPC | libc::EUSERS) => "raise `user.max_user_namespaces` (sysctl)".into(),
        Some(libc::EINVAL) => "run a kernel with all namespaces configured".into(),
        Some(libc::EAGAIN) => "raise the limit on processes of this user (`ulimit -u`, pids control group)".into(),
        _ => CONTAINER.into(),
    };
    OpenFailure { remedy: Some(remedy), ..OpenFailure::at("make namespaces", error) }
}

/// Setting up inside failed. Where AppArmor restricts user namespaces, they can be made but give no capabilities.
pub(super) fn for_setup(failure: OpenFailure) -> OpenFailure {
    if failure.remedy.is_none() && sysctl(APPARMOR) == Some(1) {
        return OpenFailure { remedy: Some(permission_remedy()), ..failure };
    }
    failure
}

fn permission_remedy() -> String {
    if sysctl(APPARMOR) == Some(1) {
        format!("`sysctl -w {APPARMOR}=0`, or load an AppArmor profile for this binary that allows `userns`")
    } else if sysctl("kernel.unprivileged_userns_clone") == Some(0) {
        "`sysctl -w kernel.unprivileged_userns_clone=1`".into()
    } else if sysctl("user.max_user_namespaces") == Some(0) {
        "`sysctl -w user.max_user_namespaces=15000`".into()
    } else {
        CONTAINER.into()
    }
}

fn sysctl(name: &str) -> Option<i64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
