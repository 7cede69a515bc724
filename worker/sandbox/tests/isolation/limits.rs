//! Limits: what a session may use, and what is said when it wants more.

use codegen_types::{IsolationLevel, Layer, LayerState, Limits};
use sandbox::{Backend, SandboxEnd};

use crate::room::{PYTHON, Room, backend, is_root, within};

const MIB: u64 = 1 << 20;

/// Forks children that each take memory, so that only the sum is over the limit.
const EATERS: &str = r"
import os, time
for _ in range(6):
    if os.fork() == 0:
        eaten = bytearray(os.urandom(1)) * (40 << 20)
        time.sleep(60)
time.sleep(60)
";

fn enforced(layer: Layer) -> impl Future<Output = bool> {
    async move {
        let report = backend().await.report();
        report.layers.iter().any(|row| row.layer == layer && row.state == LayerState::Enforced)
    }
}

pub async fn memory_is_bounded_and_its_limit_is_told() {
    let room = Room::with(Limits { memory_bytes: 128 * MIB, ..Limits::default() }, &[]).await;
    let mut running = room.start(&[PYTHON, "-I", "-c", EATERS]).await;
    if enforced(Layer::MemoryLimit).await {
        let counted = async {
            loop {
                let probe = room.shell("exit 0").await;
                if probe.end.memory_limit_hit
                    || room.python("import os; print(len(os.listdir('/proc')))").await.is_empty()
                {
                    break;
                }
                tokio::task::yield_now().await;
                if running_is_over(&room).await {
                    break;
                }
            }
        };
        within(counted).await;
        running.child.kill().await;
        assert!(within(running.child.wait()).await.unwrap().memory_limit_hit);
    } else {
        assert_eq!(within(room.sandbox.ended()).await, SandboxEnd::MemoryLimit);
        assert!(within(running.child.wait()).await.is_err());
    }
}

/// Whether the kernel has ended some of the eaters.
async fn running_is_over(room: &Room) -> bool {
    let script = "import os\nprint(sum(1 for p in os.listdir('/proc') if p.isdigit() and open(f'/proc/{p}/stat').read().rsplit(')')[1].split()[0] == 'Z'))";
    room.python(script).await != "0"
}

pub async fn a_single_large_allocation_is_bounded() {
    let room = Room::with(Limits { memory_bytes: 128 * MIB, ..Limits::default() }, &[]).await;
    let mut running = room.start(&[PYTHON, "-I", "-c", "x = bytearray(b'x') * (2 << 30); print(len(x))"]).await;
    match within(running.child.wait()).await {
        Ok(end) => assert!(end.memory_limit_hit || end.code == Some(1), "a kill or a MemoryError, not {end:?}"),
        Err(_) => assert_eq!(within(room.sandbox.ended()).await, SandboxEnd::MemoryLimit),
    }
}

pub async fn a_fork_bomb_is_bounded_and_cleaned_up() {
    let room = Room::with(Limits { processes: 40, ..Limits::default() }, &[]).await;
    let bomb = r"
import os, time
open('/workspace/started', 'w').close()
while True:
    try:
        os.fork()
    except OSError:
        open('/workspace/bounded', 'w').close()
";
    let running = room.start(&[PYTHON, "-I", "-c", bomb]).await;
    let workspace = room.workspace.clone();
    crate::room::eventually("the bomb hits its bound", || workspace.join("bounded").exists()).await;
    running.child.kill().await;
    let mut running = running;
    match within(running.child.wait()).await {
        Ok(end) => {
            assert_eq!(end.signal, Some(libc::SIGKILL));
            assert!(end.leftovers_killed <= 60, "{end:?}");
            assert_eq!(
                room.python("import os; print(len([p for p in os.listdir('/proc') if p.isdigit()]))").await,
                "3"
            );
        }
        // A bomb that could not be ended in time costs the sandbox, never the host.
        Err(_) => assert!(within(room.sandbox.destroy()).await > 0),
    }
}

pub async fn scratch_space_is_bounded() {
    let room = Room::with(Limits { scratch_bytes: 4 * MIB, ..Limits::default() }, &[]).await;
    let script = r"
import errno
for where in ('/tmp/big', '/dev/shm/big'):
    try:
        with open(where, 'wb') as f:
            for _ in range(64): f.write(b'x' * (1 << 20)); f.flush()
        print('written', where)
    except OSError as e:
        assert e.errno == errno.ENOSPC, e
";
    assert_eq!(room.python(script).await, "");
}

pub async fn open_files_and_core_dumps_are_bounded() {
    let room = Room::with(Limits { open_files: 100, ..Limits::default() }, &[]).await;
    let script = r"
import resource, os
print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE))
try:
    while True: os.dup(0)
except OSError as e: print(e.errno)
";
    assert_eq!(room.python(script).await, "(100, 100) (0, 0)\n24");
}

pub async fn every_layer_is_reported() {
    let room = Room::new().await;
    let report = room.sandbox.report();
    assert_eq!(report.level, IsolationLevel::Full);
    assert_eq!(report, backend().await.report(), "the probe made the same sandbox");
    assert_eq!(report.layers.iter().map(|row| row.layer).collect::<Vec<_>>(), Layer::ALL);
    for row in &report.layers {
        println!("{:>20} {:<9} {}", row.layer.as_str(), format!("{:?}", row.state), row.detail);
        assert!(!row.detail.is_empty());
        assert!(row.state == LayerState::Enforced || row.remedy.is_some(), "{} names no remedy", row.layer);
    }
    let uid = report.layers.iter().find(|row| row.layer == Layer::SessionUid).unwrap();
    assert_eq!(uid.state == LayerState::Enforced, is_root());
}
