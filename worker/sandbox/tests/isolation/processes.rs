//! Processes: only a session's own can be seen, and a task leaves none behind.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use codegen_types::IsolationLevel;
use sandbox::{SandboxError, SupervisorLost};

use crate::room::{PYTHON, Room, descendants, eventually, host_processes, level, number, spawn, within};

pub async fn host_processes_cannot_be_seen() {
    let room = Room::new().await;
    let pids =
        room.python("import os; print(len([p for p in os.listdir('/proc') if p.isdigit()]), os.getpid() < 100)").await;
    assert_eq!(pids, "3 True", "init, supervisor, program");
}

pub async fn the_init_cannot_be_read_traced_or_signalled() {
    let room = Room::new().await;
    let init = if level().await == IsolationLevel::Full { 1 } else { room.init };
    let script = r"
import os, signal, ctypes
for name in ('environ', 'mem', 'maps', 'auxv', 'syscall', 'io', 'smaps'):
    for pid in (INIT, os.getppid()):
        try:
            content = open(f'/proc/{pid}/{name}', 'rb').read(1)
            if content: print('read', pid, name)
        except OSError: pass
for name in ('root', 'cwd', 'exe', 'fd/0', 'ns/net'):
    for pid in (INIT, os.getppid()):
        try: print('followed', pid, name, os.readlink(f'/proc/{pid}/{name}'))
        except OSError: pass
for pid in (INIT, -1):
    for number in range(1, 65):
        if pid == -1 and number != 9: continue
        try: os.kill(pid, number)
        except OSError: pass
print('alive')
";
    let script = &script.replace("INIT", &init.to_string());
    let ran = room.run(&[PYTHON, "-I", "-c", script]).await;
    assert_eq!(ran.stdout, "alive\n", "{ran:?}");
    assert_eq!(room.shell("echo still").await.stdout, "still\n", "the sandbox lives");
}

pub async fn only_the_given_descriptors_are_open() {
    let room = Room::new().await;
    let ran = room.run(&[PYTHON, "-I", "-c", "import os; print(os.listdir('/proc/self/fd')[:-1])"]).await;
    assert_eq!(ran.stdout, "['0', '1', '2']\n", "{ran:?}");
}

pub async fn the_environment_is_exactly_what_was_given() {
    let room = Room::new().await;
    let ran = room.try_start(&["/usr/bin/env"], &[("ONLY", "this")], Vec::new()).await.unwrap().finish().await;
    assert_eq!(ran.stdout, "ONLY=this\n", "{ran:?}");
}

pub async fn a_program_that_cannot_start_is_an_error() {
    let room = Room::new().await;
    let missing = room.try_start(&["/no/such/program"], &[], Vec::new()).await.err();
    assert!(
        matches!(missing, Some(SandboxError::NotStarted { source, .. }) if source.raw_os_error() == Some(libc::ENOENT))
    );
    let relative = room.try_start(&["sh"], &[], Vec::new()).await.err();
    assert!(matches!(relative, Some(SandboxError::Refused { .. })));
    assert_eq!(room.shell("echo still").await.stdout, "still\n");
}

pub async fn an_interrupt_reaches_the_program_alone() {
    let room = Room::new().await;
    // A signal that comes just before a sleep begins is handled when it ends.
    let script = "import signal, time\nsignal.signal(signal.SIGINT, lambda *_: (print('interrupted'), exit(3)))\nopen('ready', 'w')\n\
        while True: time.sleep(0.01)";
    let running = room.start(&[PYTHON, "-I", "-c", script]).await;
    let other = room.start(&["/bin/sleep", "60"]).await;
    eventually("ready", || room.workspace.join("ready").exists()).await;
    running.child.interrupt().await;
    let ran = running.finish().await;
    assert_eq!((ran.stdout.as_str(), ran.end.code), ("interrupted\n", Some(3)));
    other.child.kill().await;
    assert_eq!(other.finish().await.end.signal, Some(libc::SIGKILL));
}

/// A daemon by the book: double fork, its own session, standard descriptors closed.
const DAEMON: &str = r"
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3): os.close(fd)
        open('daemon', 'w').close()
        while True: time.sleep(1)
    os._exit(0)
while not os.path.exists('daemon'): time.sleep(0.01)
os.wait()
";

pub async fn killing_a_task_ends_daemons_too() {
    let room = Room::new().await;
    let script = format!("{DAEMON}\nimport signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)");
    let running = room.start(&[PYTHON, "-I", "-c", &script]).await;
    eventually("the daemon runs", || room.workspace.join("daemon").exists()).await;
    running.child.kill().await;
    let ran = running.finish().await;
    assert_eq!(ran.end.signal, Some(libc::SIGKILL));
    room.is_quiet().await;
}

pub async fn a_task_ends_only_when_its_daemons_are_gone() {
    let room = Room::new().await;
    let ran = room.run(&[PYTHON, "-I", "-c", DAEMON]).await;
    assert_eq!((ran.end.code, ran.end.leftovers_killed), (Some(0), 1), "{ran:?}");
    room.is_quiet().await;
}

pub async fn a_program_that_ends_by_itself_reports_code_and_use() {
    let room = Room::new().await;
    let script = "import os, time\nx = bytearray(64 << 20)\nwhile time.process_time() < 0.15: pass\nos._exit(7)";
    let ran = room.run(&[PYTHON, "-I", "-c", script]).await;
    assert_eq!((ran.end.code, ran.end.signal, ran.end.leftovers_killed), (Some(7), None, 0));
    assert!(ran.end.cpu_ms >= 150, "{ran:?}");
    assert!(ran.end.memory_peak_bytes > 64 << 20, "{ran:?}");
    assert!(!ran.end.memory_limit_hit);
    let ran = room.shell("echo out; echo err >&2; kill -TERM $$").await;
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.end.signal), ("out\n", "err\n", Some(libc::SIGTERM)));
}

pub async fn losing_the_supervisor_is_noticed() {
    let room = Room::new().await;
    let mut running = room.start(&["/bin/sleep", "60"]).await;
    let own = room.init;
    let supervisor = host_processes().into_iter().find(|(_, parent, _)| *parent == own).unwrap().0;
    rustix::process::kill_process(rustix::process::Pid::from_raw(supervisor).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    assert_eq!(within(running.child.wait()).await, Err(SupervisorLost));
    assert!(within(room.sandbox.destroy()).await >= 2, "init and the survivor");
    assert!(!descendants().contains(&own));
}

pub async fn letting_go_of_a_task_kills_it() {
    let room = Room::new().await;
    let running = room.start(&["/bin/sh", "-c", "trap '' TERM INT; sleep 60 & sleep 60"]).await;
    drop(running.child);
    room.is_quiet().await;
}

pub async fn long_arguments_arrive() {
    let room = Room::new().await;
    let long = "x".repeat(100_000);
    let ran = room.run(&["/bin/sh", "-c", "printf %s \"$1\" | wc -c", "sh", &long]).await;
    assert_eq!(ran.stdout.trim(), "100000", "{ran:?}");
}

pub async fn a_bare_program_gets_its_extra_socket_and_its_end_is_seen() {
    let room = Room::new().await;
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let script =
        "import socket, os\ns = socket.socket(fileno=9)\ns.sendall(str(os.getpid()).encode() + b'\\n')\ns.recv(1)";
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    let high = null();
    assert!(number(&high) > 2);
    let (order, _, _) = spawn(&[PYTHON, "-I", "-c", script], &[], vec![(theirs.into(), 9), (high, 4)]);
    let pid = room.sandbox.spawn_bare(order).await.unwrap();
    let mut line = [0; 16];
    let len = ours.read(&mut line).unwrap();
    assert_eq!(String::from_utf8_lossy(&line[..len]).trim(), pid.to_string());
    ours.write_all(b"x").unwrap();
    assert_eq!(ours.read(&mut line).unwrap(), 0, "its socket ends with it");
}
