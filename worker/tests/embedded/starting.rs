//! Programs whose sandbox is killed while it starts them: they are told to have been killed, or that nothing was run, and
//! then nothing was.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use codegen_types::{ErrorCode, EventBody, Exec, Operation, Program, TaskId};
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{Bench, Ran, children, kill, line_of, poll, python};

/// The first process of the session's sandbox.
async fn init_of(bench: &Bench, round: u32) -> u32 {
    let (task, nap) = (TaskId::mint(), format!("86402.{}{round}", std::process::id()));
    let program = Program::Shell { command: format!("sleep {nap}") };
    drop(bench.stream(bench.request(task, Operation::Exec(Exec::of(program)))).await);
    let deadline = Instant::now() + Duration::from_secs(20);
    let line = poll(deadline, "the sleeper runs", || line_of(&nap, bench.worker.id())).await;
    bench.cancel(task, Duration::ZERO).await;
    assert_eq!(bench.attach(task, 1).await.code, Some(ErrorCode::TaskCancelled));
    let [.., init, _launcher, _worker] = line[..] else { panic!("{line:?}") };
    init
}

fn stop(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    // One that is gone is as good as stopped.
    let _ = kill_process(pid, Signal::STOP);
}

/// Stops a process and all below it.
fn stop_all(pid: u32) {
    stop(pid);
    children(pid).into_iter().for_each(stop_all);
}

fn shell(command: &str) -> Operation {
    Operation::Exec(Exec::of(Program::Shell { command: command.to_owned() }))
}

/// Whether a task whose sandbox was killed is told the truth, given whether its program left its mark.
fn check(ran: &Ran, has_run: bool) {
    match &ran.events.last().expect("a task has events").body {
        EventBody::Failed { failure, .. } => {
            assert!(failure.message.contains("nothing was run"), "{failure:?}");
            assert!(!has_run, "{failure:?}");
        }
        _ => {
            assert_eq!(ran.signal(), Some(9), "{ran:?}");
            assert!(ran.stderr.contains("the sandbox was restarted"), "{ran:?}");
        }
    }
}

fn doubts(ran: &Ran) -> bool {
    ran.exit.as_ref().is_some_and(|exit| exit.notes.iter().any(|note| note.contains("began is not known")))
}

async fn is_there(bench: &Bench, name: &str) -> bool {
    let seen = bench.shell(&format!("ls {name}; echo listed")).await;
    assert!(seen.stdout.contains("listed"), "the session goes on: {seen:?}");
    seen.stdout.contains(name)
}

/// Starts something in a sandbox that is stopped, and is killed once the program is said to be started.
async fn killed_while_starting(bench: &Bench, init: u32, operation: Operation) -> Ran {
    stop_all(init);
    let task = TaskId::mint();
    let mut stream = bench.stream(bench.request(task, operation)).await;
    stream.message().await.expect("the link holds").expect("it has begun to be started");
    drop(stream);
    kill(init);
    bench.attach(task, 1).await
}

#[tokio::test]
async fn a_program_whose_sandbox_is_killed_while_it_starts_is_told_what_is_known() {
    let bench = Bench::new().await;
    for round in 0..6 {
        let name = format!("mark-{round}");
        let operation = match round % 3 {
            0 => shell(&format!("touch {name}")),
            1 => Operation::Exec(Exec::of(python(&format!("open('{name}', 'w')")))),
            _ => {
                let program = python(&format!("open('{name}', 'w')"));
                Operation::Exec(Exec { kernel: Some("k".to_owned().try_into().expect("a name")), ..Exec::of(program) })
            }
        };
        let ran = killed_while_starting(&bench, init_of(&bench, round).await, operation).await;
        check(&ran, is_there(&bench, &name).await);
    }
}

fn strace() -> PathBuf {
    let named = std::env::var_os("CODEGEN_TEST_STRACE").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        named.or_else(|| std::env::split_paths(&path).map(|dir| dir.join("strace")).find(|file| file.is_file()));
    found.expect("strace is needed: `make test` brings it (Debian, Ubuntu: apt install strace)")
}

/// The program runs, and what watches over it is killed before it can say so.
#[tokio::test]
async fn a_program_that_began_before_anybody_could_say_so_is_not_told_to_have_been_refused() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can trace the first process of a sandbox");
        return;
    }
    let bench = Bench::new().await;
    let init = init_of(&bench, 7).await;
    let mut tracer = Command::new(strace())
        .args(["-f", "-qq", "-e", "trace=sendmsg", "-e", "inject=sendmsg:signal=KILL:when=1", "-p", &init.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .expect("strace");
    let is_traced = || {
        let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("TracerPid:\t{}", tracer.id())).then_some(())
    };
    poll(Instant::now() + Duration::from_secs(20), "the sandbox is traced", is_traced).await;
    let ran = bench.run(bench.request(TaskId::mint(), shell("touch began; sleep 60"))).await;
    let _ = tracer.kill();
    tracer.wait().expect("a child of ours");
    check(&ran, true);
    assert!(doubts(&ran), "{ran:?}");
    assert_eq!(bench.shell("echo next").await.stdout, "next\n");
}
