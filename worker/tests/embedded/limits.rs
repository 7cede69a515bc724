//! Every limit of a task ends it with its own code, and the session goes on.

use std::time::{Duration, Instant};

use codegen_types::operation::Kernels;
use codegen_types::{ErrorCode, Exec, Limits, Operation, Program, TaskId};

use crate::bench::Bench;

const MIB: u64 = 1 << 20;

async fn goes_on(bench: &Bench) {
    assert_eq!(bench.python("print('next')").await.stdout, "next\n", "the session goes on");
}

#[tokio::test]
async fn time() {
    let bench = Bench::new().await;
    // The interpreter is ready when the time begins.
    bench.python("pass").await;
    let ran = bench.python_for("print('before', flush=True)\nwhile True: pass", Duration::from_millis(500)).await;
    assert_eq!(ran.code, Some(ErrorCode::TaskTimeout));
    assert_eq!(ran.stdout, "before\n", "what it wrote is delivered");
    assert_eq!(ran.signal(), Some(2), "the interrupt was enough");
    goes_on(&bench).await;
}

#[tokio::test]
async fn time_of_a_program_that_ignores_interrupts() {
    let bench = Bench::new().await;
    // The interpreter is ready when the time begins.
    bench.python("pass").await;
    let code = "import signal\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True: pass";
    let began = Instant::now();
    let ran = bench.python_for(code, Duration::from_millis(500)).await;
    assert_eq!((ran.code, ran.signal()), (Some(ErrorCode::TaskTimeout), Some(9)));
    assert!(began.elapsed() < Duration::from_secs(30));
    goes_on(&bench).await;
}

#[tokio::test]
async fn output() {
    let bench = Bench::with_limits(Limits { output_bytes: MIB, ..Limits::default() }).await;
    let ran = bench.python("while True: print('x' * 1000)").await;
    assert_eq!(ran.code, Some(ErrorCode::OutputLimit));
    assert_eq!(ran.stdout.len() as u64, MIB, "what fits is delivered");
    goes_on(&bench).await;
}

#[tokio::test]
async fn memory() {
    let bench = Bench::with_limits(Limits { memory_bytes: 128 * MIB, ..Limits::default() }).await;
    let ran = bench.python("x = []\nwhile True: x.append(bytearray(1 << 20))").await;
    // Where no control group holds the session, each process has a limit of its own, which Python sees first.
    let told =
        ran.code == Some(ErrorCode::MemoryLimit) || (ran.exit_code() == Some(1) && ran.stderr.contains("MemoryError"));
    assert!(told, "{ran:?}");
    goes_on(&bench).await;
}

#[tokio::test]
async fn disk() {
    let bench = Bench::with_limits(Limits { workspace_bytes: 4 * MIB, ..Limits::default() }).await;
    let code = "import time\nfor n in range(1000):\n  open(f'big-{n}', 'wb').write(bytes(1 << 20))\n  time.sleep(0.02)";
    let ran = bench.python(code).await;
    assert_eq!(ran.code, Some(ErrorCode::DiskLimit), "{ran:?}");
    bench.shell("rm big-*").await;
    goes_on(&bench).await;
}

#[tokio::test]
async fn processes() {
    let bench = Bench::with_limits(Limits { processes: 40, ..Limits::default() }).await;
    let ran = bench.python_for("import os\nwhile True: os.fork()", Duration::from_secs(3)).await;
    assert!(ran.code.is_some() || ran.exit.is_some(), "{ran:?}");
    let left = bench.shell("ls /proc | grep -c '^[0-9]'").await;
    let left: u32 = left.stdout.trim().parse().unwrap_or_else(|_| panic!("{left:?}"));
    assert!(left < 12, "{left} processes are left");
    goes_on(&bench).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    let bench = Bench::new().await;
    let code = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    os.closerange(0, 3)\n    \
                os.execlp('sleep', 'sleep', '7731.25')\n  os._exit(0)\nos.wait()\ntime.sleep(0.1)\nprint('started')";
    let ran = bench.python(code).await;
    assert_eq!(ran.stdout, "started\n");
    assert!(ran.exit.unwrap().leftovers_killed >= 1);
    assert!(!crate::bench::runs("7731.25"), "the daemon is gone");
}

/// However many programs a session runs, its files can be written and its kernels listed.
#[tokio::test]
async fn programs_hold_up_neither_files_nor_the_look_at_kernels() {
    let bench = Bench::new().await;
    let program = || Operation::Exec(Exec::of(Program::Shell { command: "sleep 60".to_owned() }));
    let running = (0..12).map(|_| bench.stream(bench.request(TaskId::mint(), program())));
    let _running = futures::future::join_all(running).await;
    let look = async {
        bench.write("beside", "x").await;
        bench.run(bench.request(TaskId::mint(), Operation::Kernels(Kernels::List))).await
    };
    let listed = tokio::time::timeout(Duration::from_secs(20), look).await.expect("nobody holds them up");
    assert_eq!(listed.code, None, "{listed:?}");
}
