//! Sandboxes made ahead of need: given to one session each, never dead, and gone with their worker.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use codegen_types::{Limits, SessionId};

use crate::bench::{Bench, children, kill, poll};

const SPARES: usize = 6;
const PREPARED: usize = 2;

/// A worker whose spares are ready: each has its workspace, and the first ones' inits have started the interpreter.
async fn ready() -> (Bench, BTreeSet<u32>) {
    let bench = Bench::without_session(Some(Limits::default())).await;
    let inits = inits_but(&bench, &BTreeSet::new()).await;
    (bench, inits)
}

/// The inits of spares that are ready, as soon as they are all others than these.
async fn inits_but(bench: &Bench, others: &BTreeSet<u32>) -> BTreeSet<u32> {
    let until = Instant::now() + Duration::from_secs(20);
    poll(until, "spares are made", || {
        let inits: BTreeSet<u32> = children(launcher(bench)).into_iter().filter(|pid| !others.contains(pid)).collect();
        let prepared = inits.iter().filter(|init| !children(**init).is_empty()).count();
        (prepared == PREPARED && inits.len() == SPARES && spares(bench).len() == SPARES).then_some(inits)
    })
    .await
}

fn launcher(bench: &Bench) -> u32 {
    *children(bench.worker.id()).first().expect("the launcher")
}

/// The workspaces that wait for a session, each with its inode.
fn spares(bench: &Bench) -> BTreeMap<OsString, u64> {
    let entries = std::fs::read_dir(bench.workspaces()).into_iter().flatten().flatten();
    let waiting = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".spare-"));
    waiting.filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?.ino()))).collect()
}

fn workspace(bench: &Bench) -> PathBuf {
    bench.workspaces().join(bench.session.to_string())
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).expect("it is there").ino()
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The control groups of a launcher.
fn control_groups(launcher: u32) -> Vec<PathBuf> {
    let name = format!("codegen-mcp.{launcher}.");
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&name) {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            }
        }
    }
    found
}

async fn gone(inits: &BTreeSet<u32>, launcher: u32) {
    let until = Instant::now() + Duration::from_secs(60);
    poll(until, "their processes and control groups are gone", || {
        (!lives(launcher) && !inits.iter().any(|pid| lives(*pid)) && control_groups(launcher).is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_gets_a_sandbox_that_was_made_ahead_and_another_takes_its_place() {
    let (mut bench, inits) = ready().await;
    let waiting = spares(&bench);
    let opened = bench.open(Limits::default()).await;
    assert!(opened.workspace_created);
    assert!(waiting.values().any(|waited| *waited == inode(&workspace(&bench))), "the workspace that waited");
    let ran = bench.python("import os; print(os.getcwd()); open('made.txt', 'w').write('x')").await;
    assert_eq!((ran.exit_code(), ran.stdout.as_str()), (Some(0), "/workspace\n"), "{ran:?}");
    assert!(workspace(&bench).join("made.txt").exists());
    let still: BTreeSet<u32> = children(launcher(&bench)).into_iter().collect();
    assert!(still.is_superset(&inits), "no sandbox was ended for it");
    let until = Instant::now() + Duration::from_secs(20);
    poll(until, "another is made", || (spares(&bench).len() == SPARES).then_some(())).await;
}

#[tokio::test]
async fn more_sessions_than_spares_all_open() {
    let (mut bench, _) = ready().await;
    for _ in 0..SPARES + 2 {
        bench.session = SessionId::mint();
        bench.open(Limits::default()).await;
        assert!(workspace(&bench).exists());
    }
    assert_eq!(bench.python("print(1)").await.stdout, "1\n", "in the last one");
}

#[tokio::test]
async fn a_session_with_other_limits_gets_a_sandbox_of_its_own() {
    let (mut bench, inits) = ready().await;
    let waiting = spares(&bench);
    bench.open(Limits { processes: 7, ..Limits::default() }).await;
    assert!(!waiting.values().any(|waited| *waited == inode(&workspace(&bench))));
    assert_eq!(bench.python("print(1)").await.stdout, "1\n");
    assert_eq!(spares(&bench), waiting, "they still wait");
    assert!(inits.iter().all(|pid| lives(*pid)));
}

#[tokio::test]
async fn a_spare_that_died_is_not_given_to_a_session() {
    let (mut bench, inits) = ready().await;
    let waiting = spares(&bench);
    inits.iter().for_each(|pid| kill(*pid));
    let fresh = inits_but(&bench, &inits).await;
    assert_eq!(fresh.len(), SPARES);
    assert!(!spares(&bench).keys().any(|name| waiting.contains_key(name)), "others took their place");
    bench.open(Limits::default()).await;
    let ran = bench.python("print(1)").await;
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("1\n", ""), "no word of a sandbox that was replaced");
}

#[tokio::test]
async fn spares_leave_nothing_behind_when_their_worker_ends() {
    let (mut bench, inits) = ready().await;
    let launcher = launcher(&bench);
    drop(bench.stdin.take());
    assert_eq!(bench.wait_for_end(Duration::from_secs(30)).await, Some(0));
    assert_eq!(spares(&bench).len(), 0, "no directory");
    gone(&inits, launcher).await;
}

#[tokio::test]
async fn spares_end_with_a_worker_that_is_killed_and_their_files_go_at_the_next_start() {
    let (mut bench, inits) = ready().await;
    let launcher = launcher(&bench);
    bench.worker.kill().expect("it is ours");
    gone(&inits, launcher).await;
    sandbox::files::WorkspaceBase::open(&bench.workspaces()).expect("the next start");
    assert_eq!(spares(&bench).len(), 0, "no directory");
}
