//! Levels portable and reduced, where the kernel ends nothing with a sandbox's init: whatever is left holds up nobody, and no
//! end is told before it is gone.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use codegen_types::Limits;
use sandbox::{Backend, SandboxEnd};

use crate::room::{PYTHON, Room, backend, descendants_of, eventually, host_processes, within};

/// Forks generation after generation, each of which ends at once, in a session of its own.
const CHAINS: &str = r"
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(15, sys.argv[1].encode())
for _ in range(6):
    if os.fork() == 0:
        while True:
            try:
                if os.fork(): os._exit(0)
                os.setsid()
            except OSError: pass
open('grown', 'w').close()
time.sleep(1000)
";

/// Stops all other processes of its user id, over and over, from one generation to the next.
const STOPPER: &str = r"
import os, signal, sys
user = int(sys.argv[2])
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
open(sys.argv[1], 'w').close()
while True:
    try: os.kill(-1, signal.SIGSTOP)
    except OSError: pass
    try:
        if os.fork(): os._exit(0)
    except OSError: pass
";

/// How long a stopper may take to begin.
const BEGINS: Duration = Duration::from_secs(2);

fn named(name: &str) -> usize {
    let comm = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    host_processes().iter().filter(|(pid, _, _)| comm(*pid).trim() == name).count()
}

pub async fn no_end_is_told_while_a_chain_of_forks_lives() {
    let neighbour = Room::new().await;
    for round in 0..4 {
        let room = Room::new().await;
        let name = format!("chain-{}", room.init);
        let running = room.start(&[PYTHON, "-I", "-c", CHAINS, &name]).await;
        // Each generation is gone before all processes are looked at, so that it tells by itself that it began.
        eventually("the chains grow", || room.workspace.join("grown").exists()).await;
        let pid = rustix::process::Pid::from_raw(room.init).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        assert_eq!(neighbour.python("print(6 * 7)").await, "42");
        assert_eq!(within(room.sandbox.ended()).await, SandboxEnd::Crashed);
        assert_eq!(named(&name), 0, "round {round}");
        drop(running);
    }
}

/// As on a kernel whose Landlock has no scopes of signals: the stopper is bound by no rules, and has the session's user id.
fn stopper(uid: u32) -> Child {
    let directory = tempfile::tempdir().unwrap();
    let began = directory.path().join("began");
    fs::write(&began, "").unwrap();
    std::os::unix::fs::chown(&began, Some(uid), Some(uid)).unwrap();
    for path in [std::env::temp_dir().as_path(), directory.path()] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    }
    fs::remove_file(&began).unwrap();
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o733)).unwrap();
    loop {
        let mut command = Command::new(PYTHON);
        let command = command.args(["-I", "-c", STOPPER]).arg(&began).arg(uid.to_string()).current_dir("/");
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + BEGINS;
        while Instant::now() < deadline {
            if began.exists() {
                return child;
            }
            std::thread::yield_now();
        }
        // Whoever ends what an earlier one left may have met it before it began.
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

pub async fn whoever_stops_all_processes_of_a_user_id_holds_up_nobody() {
    let neighbour = Room::new().await;
    for _ in 0..4 {
        let room = Room::new().await;
        let uid = room.uid;
        let mut stopper = tokio::task::spawn_blocking(move || stopper(uid)).await.unwrap();
        let (_, worked) = tokio::join!(within(room.sandbox.destroy()), neighbour.python("print(6 * 7)"));
        assert_eq!(worked, "42");
        // Its id is free, and so nothing of the chain is left.
        assert!(!backend().await.held().contains(&uid));
        stopper.wait().unwrap();
        // The same before a sandbox gets an id under which an earlier life left something.
        let mut stopper = tokio::task::spawn_blocking(move || self::stopper(uid)).await.unwrap();
        let again = within(Room::try_under(Some(uid), Limits::default(), &[])).await.unwrap();
        assert_eq!(again.python("print(6 * 7)").await, "42");
        stopper.wait().unwrap();
    }
}

/// A control group whose processes do not even die.
struct Freezer(PathBuf);

impl Freezer {
    /// Version 1 alone has those; `None` where this user may make none.
    fn make() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.split_once(":freezer:"))?.1;
        let name = format!("codegen-test-{}", std::process::id());
        let directory = PathBuf::from("/sys/fs/cgroup/freezer").join(own.trim_start_matches('/')).join(name);
        fs::create_dir(&directory).ok()?;
        Some(Self(directory))
    }

    fn freeze(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
        fs::write(self.0.join("freezer.state"), "FROZEN").unwrap();
    }

    fn thaw(&self) {
        fs::write(self.0.join("freezer.state"), "THAWED").unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        let _ = fs::remove_dir(&self.0);
    }
}

pub async fn what_does_not_die_holds_up_nobody_and_keeps_its_user_id() {
    let Some(freezer) = Freezer::make() else {
        println!("SKIPPED: no control group of version 1 that freezes can be made here");
        return;
    };
    let room = Room::new().await;
    let (uid, sandbox) = (room.uid, room.sandbox.clone());
    let running = room.start(&["/bin/sleep", "1000"]).await;
    let frozen = *descendants_of(room.init).last().unwrap();
    freezer.freeze(frozen);
    let ending = tokio::spawn(async move { sandbox.destroy().await });
    let again = tokio::spawn(async move { Room::try_under(Some(uid), Limits::default(), &[]).await });
    for _ in 0..5 {
        let other = Room::new().await;
        assert_ne!(other.uid, uid);
        assert_eq!(other.python("print(6 * 7)").await, "42");
        within(other.sandbox.destroy()).await;
    }
    assert!(host_processes().iter().any(|(pid, _, _)| *pid == frozen), "it lives");
    assert!(!ending.is_finished() && !again.is_finished(), "neither is it gone, nor has another sandbox its id");
    assert!(backend().await.held().contains(&uid));
    freezer.thaw();
    assert!(within(ending).await.unwrap() >= 3);
    let again = within(again).await.unwrap().unwrap();
    assert!(!host_processes().iter().any(|(pid, _, _)| *pid == frozen), "it is gone");
    assert_eq!(again.python("print(6 * 7)").await, "42");
    drop(running);
}
