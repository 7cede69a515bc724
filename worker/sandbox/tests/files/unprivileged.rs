//! The same promises for a worker that is not root.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::geteuid;

const UNPRIVILEGED_UID: u32 = 1_000;

#[test]
fn everything_holds_for_an_unprivileged_worker() {
    if !geteuid().is_root() {
        // The other tests are that already.
        return;
    }
    // The link under /proc leads to this program even where its directory is closed to that user.
    let run = Command::new("/proc/self/exe")
        .args(["--test-threads=2", "--skip", "unprivileged"])
        .uid(UNPRIVILEGED_UID)
        .gid(UNPRIVILEGED_UID)
        .current_dir("/")
        .env_clear()
        .env("TMPDIR", "/tmp")
        .output()
        .expect("the tests start");
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    let passed = said.lines().filter(|line| line.starts_with("test ") && line.ends_with("... ok")).count();
    assert!(passed >= 40, "{passed} tests ran: {said}");
}
