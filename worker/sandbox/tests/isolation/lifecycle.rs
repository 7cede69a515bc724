//! Ends: nothing outlives what it belongs to.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use codegen_types::{Layer, Limits};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use sandbox::{SandboxEnd, SandboxError};
use tempfile::TempDir;

use crate::limits::is_enforced;
use crate::room::{PYTHON, Room, Running, descendants, descendants_of, eventually, host_processes, is_root, within};

const ROLE: &str = "CODEGEN_TEST_ROLE";
/// The role of a worker in whose sandbox generations of forks follow one another.
const CHAINS: &str = "chains";

/// Writes the program that it is given and becomes it.
const BECOME: &str = r"
import os, sys
with open('program', 'wb') as f: f.write(bytes.fromhex(sys.argv[1]))
os.chmod('program', 0o700)
os.execv('program', ['program'])
";
/// How long chains of forks may go on when nobody is left but what ends them.
const CHAINS_DEADLINE: Duration = Duration::from_secs(120);

/// In a process started by a test here: be a worker with a busy sandbox until killed.
pub fn play_role() -> Option<ExitCode> {
    let role = std::env::var(ROLE).ok()?;
    crate::room::fork_launcher();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let room = Room::new().await;
        let running = if role == CHAINS { chains(&room).await } else { room.start(&["/bin/sleep", "1000"]).await };
        let pids: Vec<String> = descendants().iter().map(ToString::to_string).collect();
        println!("{}", pids.join(" "));
        let end = room.sandbox.ended().await;
        println!("{end:?}");
        drop(running);
    });
    // Whatever survived and holds what is read here must not keep this process from ending.
    runtime.shutdown_background();
    Some(ExitCode::SUCCESS)
}

/// Chains of forks that hold a copy of this process's stderr.
async fn chains(room: &Room) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("chains");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/isolation/chains.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-Wall", "-Werror", "-o"]).arg(&program).arg(source).env("PATH", "/usr/bin:/bin");
    assert!(compiler.status().expect("a C compiler is needed").success(), "it compiles");
    let program: String = std::fs::read(&program).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    let held = std::io::stderr().as_fd().try_clone_to_owned().unwrap();
    let running = room.try_start(&[PYTHON, "-I", "-c", BECOME, &program], &[], vec![(held, 3)]).await.unwrap();
    eventually("the chains grow", || room.workspace.join("grown").exists()).await;
    running
}

struct Worker {
    process: Child,
    descendants: Vec<i32>,
    /// What the worker leaves behind when it is killed.
    _scratch: TempDir,
}

fn worker() -> Worker {
    worker_with("worker", Stdio::inherit())
}

fn worker_with(role: &str, stderr: Stdio) -> Worker {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let mut process =
        command.env(ROLE, role).env("TMPDIR", scratch.path()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    let mut line = String::new();
    let mut reader = BufReader::new(process.stdout.as_mut().unwrap());
    reader.read_line(&mut line).unwrap();
    let descendants: Vec<i32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(descendants.len() >= 4, "launcher, init, supervisor, program: {line}");
    Worker { process, descendants, _scratch: scratch }
}

fn alive(pids: &[i32]) -> bool {
    host_processes().iter().any(|(pid, _, _)| pids.contains(pid))
}

fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

fn signal(pid: i32, signal: Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

pub async fn ending_the_launcher_ends_every_sandbox() {
    let Worker { mut process, descendants, _scratch } = worker();
    kill(descendants[0]);
    eventually("all inside is gone", || !alive(&descendants)).await;
    let mut said = String::new();
    process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said.trim(), "Crashed", "the worker is told");
    process.wait().unwrap();
}

/// Where the kernel ends nothing with init, which alone is left to do so when the launcher is killed.
pub async fn no_chain_of_forks_outlives_launcher_or_worker() {
    for killed in ["launcher", "worker", "launcher", "launcher", "launcher"] {
        let mut worker = worker_with(CHAINS, Stdio::piped());
        let held = worker.process.stderr.take().unwrap();
        if killed == "launcher" {
            kill(worker.descendants[0]);
        } else {
            worker.process.kill().unwrap();
        }
        worker.process.wait().unwrap();
        let said = until_let_go(held).unwrap_or_else(|| panic!("a chain outlived the {killed}"));
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// A launcher that is killed before it has seen to what a dead init left behind, whose supervisor is dead, too: the worker is
/// the only one who can.
pub async fn what_a_dead_init_left_does_not_outlive_a_launcher_that_is_killed_before_it_sees_to_it() {
    for _ in 0..2 {
        let mut worker = worker_with(CHAINS, Stdio::piped());
        let held = worker.process.stderr.take().unwrap();
        let launcher = worker.descendants[0];
        let inside = |pid: &i32| descendants_of(*pid).first().map(|supervisor| [*pid, *supervisor]);
        let guards = worker.descendants[1..].iter().find_map(inside).unwrap();
        signal(launcher, Signal::STOP);
        guards.into_iter().for_each(kill);
        eventually("init and supervisor are gone", || !alive(&guards)).await;
        kill(launcher);
        worker.process.wait().unwrap();
        assert!(!alive(&worker.descendants), "the worker ends after them");
        let said = until_let_go(held).expect("the chain outlived its init, the launcher and the worker");
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// What was written into a pipe until nobody held it any more; `None` when that takes too long.
fn until_let_go(mut pipe: impl Read + AsFd) -> Option<String> {
    let (mut said, deadline) = (Vec::new(), Instant::now() + CHAINS_DEADLINE);
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).try_into().unwrap();
        if rustix::event::poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&left)).unwrap() == 0 {
            return None;
        }
        let mut chunk = [0; 4096];
        match pipe.read(&mut chunk).unwrap() {
            0 => return Some(String::from_utf8_lossy(&said).into_owned()),
            len => said.extend(&chunk[..len]),
        }
    }
}

pub async fn control_groups_of_a_dead_launcher_are_removed_at_the_next_start() {
    let Worker { mut process, descendants, _scratch } = worker();
    let launcher = &descendants[..1];
    let had_groups = !groups_of(launcher).is_empty();
    assert_eq!(had_groups, is_root() && is_enforced(Layer::MemoryLimit).await);
    kill(launcher[0]);
    process.wait().unwrap();
    eventually("all inside is gone", || !alive(&descendants)).await;
    assert_eq!(!groups_of(launcher).is_empty(), had_groups, "nobody was left to remove them");
    let mut next = worker();
    assert!(groups_of(launcher).is_empty(), "the next start removes them");
    next.process.kill().unwrap();
    next.process.wait().unwrap();
}

pub async fn ending_the_worker_ends_launcher_and_sandboxes() {
    let Worker { mut process, descendants, _scratch } = worker();
    process.kill().unwrap();
    process.wait().unwrap();
    eventually("launcher and sandboxes are gone", || !alive(&descendants)).await;
    eventually("and their control groups", || groups_of(&descendants[..1]).is_empty()).await;
}

pub async fn destroying_a_sandbox_leaves_no_process_and_no_control_group() {
    let groups_before = groups();
    let room = Room::new().await;
    let init = room.init;
    let _running = room.start(&["/bin/sh", "-c", "trap '' TERM; sleep 100 & setsid sleep 100 & wait"]).await;
    eventually("they run", || {
        host_processes().iter().filter(|(pid, _, _)| descendants_of(init).contains(pid)).count() >= 4
    })
    .await;
    let inside = descendants_of(init);
    let killed = within(room.sandbox.destroy()).await;
    assert_eq!(killed as usize, inside.len() + 1);
    assert!(!alive(&inside) && !alive(&[init]));
    assert_eq!(within(room.sandbox.ended()).await, SandboxEnd::Destroyed);
    assert!(matches!(room.try_start(&["/bin/true"], &[], Vec::new()).await, Err(SandboxError::Gone)));
    eventually("its control groups are gone", || groups() <= groups_before).await;
}

/// How many control groups the sandboxes of this process's launcher have.
fn groups() -> usize {
    groups_of(&descendants()).len()
}

/// Control groups of the sandboxes of these launchers.
fn groups_of(launchers: &[i32]) -> Vec<PathBuf> {
    let own: Vec<String> = launchers.iter().map(|pid| format!("codegen-mcp.{pid}.")).collect();
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let ours =
                directory.file_name().is_some_and(|name| own.iter().any(|own| name.to_string_lossy().starts_with(own)));
            if ours {
                found.push(entry.path());
            }
            pending.push(entry.path());
        }
    }
    found
}

pub async fn dropping_a_sandbox_ends_it() {
    let room = Room::new().await;
    let init = room.init;
    drop(room);
    eventually("init is gone", || !alive(&[init])).await;
}

pub async fn a_refused_sandbox_is_an_error_and_never_a_weaker_one() {
    let before = descendants().len();
    let refused = Room::try_with(Limits::default(), &[std::path::Path::new("/proc")]).await.err();
    let Some(error @ SandboxError::Unavailable { .. }) = refused else { panic!("not refused: {refused:?}") };
    assert_eq!(error.failure().code, codegen_types::ErrorCode::IsolationUnavailable);
    assert!(error.to_string().contains("check system paths"), "{error}");
    // The launcher counts as one when this is the first test of its process.
    assert!(descendants().len() <= before.max(1));
}

pub async fn opening_and_starting_are_quick() {
    let mut opened = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let room = Room::new().await;
        opened.push(start.elapsed());
        within(room.sandbox.destroy()).await;
    }
    let room = Room::new().await;
    let mut started = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        let mut running = room.start(&["/bin/true"]).await;
        within(running.child.wait()).await.unwrap();
        started.push(start.elapsed());
    }
    opened.sort();
    started.sort();
    println!("open p50 {:?}, spawn and wait of /bin/true p50 {:?}", opened[10], started[25]);
    assert!(opened[10].as_millis() < 500 && started[25].as_millis() < 500);
}
