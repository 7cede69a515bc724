//! Limits: what a session may use, and what is said when it wants more.

use codegen_types::{IsolationLevel, Layer, LayerState, Limits};
use sandbox::{Backend, SandboxEnd};

use crate::room::{PYTHON, Room, backend, is_root, within};

const MIB: u64 = 1 << 20;

/// Forks children that each take memory, so that only the sum is over the limit; says by what signal one of them died.
const EATERS: &str = r"
import os, time
for _ in range(6):
    if os.fork() == 0:
        eaten = bytearray(b'x') * (40 << 20)
        time.sleep(60)
        os._exit(0)
print(os.WTERMSIG(os.wait()[1]))
";

pub async fn is_enforced(layer: Layer) -> bool {
    let report = backend().await.report();
    report.layers.iter().any(|row| row.layer == layer && row.state == LayerState::Enforced)
}

pub async fn memory_is_bounded_and_its_limit_is_told() {
    let room = Room::with(Limits { memory_bytes: 128 * MIB, ..Limits::default() }, &[]).await;
    let mut running = room.start(&[PYTHON, "-I", "-c", EATERS]).await;
    if is_enforced(Layer::MemoryLimit).await {
        let ran = running.finish().await;
        assert_eq!((ran.stdout.trim(), ran.end.memory_limit_hit), ("9", true), "{ran:?}");
        assert!(!room.shell("exit 0").await.end.memory_limit_hit, "a later task is not blamed");
    } else {
        assert_eq!(within(room.sandbox.ended()).await, SandboxEnd::MemoryLimit);
        assert!(within(running.child.wait()).await.is_err());
    }
}

pub async fn memory_under_the_limit_is_left_alone() {
    let room = Room::with(Limits { memory_bytes: 400 * MIB, ..Limits::default() }, &[]).await;
    // Shared pages count once: six forks of 200 MiB are not 1.2 GiB. Two samples fit into the time.
    let script = "import os, time\nx = bytearray(b'x') * (200 << 20)\nfor _ in range(5):\n    if os.fork() == 0: time.sleep(0.6); os._exit(0)\nfor _ in range(5): os.wait()\nprint('done')";
    assert_eq!(room.python(script).await, "done");
}

pub async fn a_single_large_allocation_is_bounded() {
    let room = Room::with(Limits { memory_bytes: 128 * MIB, ..Limits::default() }, &[]).await;
    let mut running = room.start(&[PYTHON, "-I", "-c", "x = bytearray(b'x') * (2 << 30); print(len(x))"]).await;
    match within(running.child.wait()).await {
        Ok(end) => assert!(end.memory_limit_hit || end.code == Some(1), "a kill or a MemoryError, not {end:?}"),
        Err(_) => assert_eq!(within(room.sandbox.ended()).await, SandboxEnd::MemoryLimit),
    }
}

pub async fn memory_that_no_process_maps_any_more_is_bounded() {
    let room = Room::with(Limits { memory_bytes: 128 * MIB, ..Limits::default() }, &[]).await;
    for file in ["-1", "os.open('/dev/zero', os.O_RDWR)"] {
        // What is shared stays as long as one page of it is mapped anywhere, and counts for no process.
        let script = format!(
            r"
import ctypes, mmap, os, time
fd, size, page = {file}, 1 << 30, 4096
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
place = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | (mmap.MAP_ANONYMOUS if fd < 0 else 0), fd, 0)
if place == ctypes.c_void_p(-1).value: raise MemoryError
for start in range(0, size, 16 << 20):
    ctypes.memset(place + start, 1, 16 << 20)
    if start: libc.munmap(place + start, 16 << 20)
print('holds a gigabyte')
"
        );
        let ran = room.run(&[PYTHON, "-I", "-c", &script]).await;
        assert!(ran.stdout.is_empty(), "{file}: {ran:?}");
        assert!(ran.end.memory_limit_hit || ran.end.code == Some(1), "{file}: {ran:?}");
    }
}

pub async fn a_fork_bomb_is_bounded_and_cleaned_up() {
    let room = Room::with(Limits { processes: 40, ..Limits::default() }, &[]).await;
    let bomb = r"
import os, time
open('started', 'w').close()
while True:
    try:
        os.fork()
    except OSError:
        open('bounded', 'w').close()
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
            room.is_quiet().await;
        }
        // A bomb that could not be ended in time costs the sandbox, never the host.
        Err(_) => assert!(within(room.sandbox.destroy()).await > 0),
    }
}

/// Far less than one processor is allowed, and two loops would have one and more of them. Without control groups whoever ends
/// a sandbox comes before all that runs in it.
pub async fn processor_use_is_bounded_where_that_is_said() {
    if !is_enforced(Layer::CpuLimit).await {
        let own = rustix::process::getpriority_process(None).unwrap();
        let inside = Room::new().await.python("import os; print(os.getpriority(os.PRIO_PROCESS, 0))").await;
        assert_eq!(inside.parse::<i32>().unwrap(), (own + 5).min(19));
        return;
    }
    let room = Room::with(Limits { cpu_millicores: 100, ..Limits::default() }, &[]).await;
    let script = r"
import os, time
def used(): return sum(os.times()[:4])
begun, before = time.monotonic(), used()
child = os.fork()
while time.monotonic() - begun < 4: pass
if child == 0: os._exit(0)
os.wait()
print((used() - before) / (time.monotonic() - begun))
";
    let share: f64 = room.python(script).await.parse().unwrap();
    assert!(share < 0.35, "a tenth of a processor is allowed: {share}");
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
    assert_eq!(room.python(script).await, "(100, 100) (1, 1)\n24");
}

pub async fn every_layer_is_reported() {
    let room = Room::new().await;
    let report = room.sandbox.report();
    let expected = match std::env::var("CODEGEN_TEST_CONFINED").as_deref() {
        Ok("portable") => IsolationLevel::Portable,
        Ok(_) => IsolationLevel::Reduced,
        Err(_) => IsolationLevel::Full,
    };
    assert_eq!(report.level, expected);
    for row in report.layers.iter().filter(|row| row.layer.is_promised_by(expected)) {
        assert_ne!(row.state, LayerState::Absent, "{}", row.layer);
    }
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
