//! Command lines of `run_shell` in real sandboxes.

use std::time::Duration;

use codegen_types::{ErrorCode, Program, TaskId};

use crate::bench::{Bench, exec};

#[tokio::test]
async fn a_command_line_has_its_streams_status_and_little_else() {
    let bench = Bench::new().await;
    let ran = bench.shell("echo out; echo err >&2; echo to-the-device > /dev/stderr; exit 5").await;
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\nto-the-device\n"));
    assert_eq!(ran.exit_code(), Some(5));
    let env = bench.shell("env | cut -d= -f1 | grep -v '^_$' | sort | tr '\\n' ' '").await;
    assert_eq!(env.stdout, "HOME LANG PATH PWD PYTHONUSERBASE SHLVL TMPDIR ");
    let given = bench.exec(Program::Shell { command: "cat; echo $X".into() }, "in ", &[("X", "y")]).await;
    assert_eq!(given.stdout, "in y\n");
}

#[tokio::test]
async fn a_command_line_that_is_longer_than_the_kernel_takes_is_refused() {
    let bench = Bench::new().await;
    assert_eq!(bench.shell(&"x".repeat(200_000)).await.code, Some(ErrorCode::InvalidArgument));
}

#[tokio::test]
async fn a_command_that_ignores_every_signal_it_can_is_killed_with_its_children() {
    let bench = Bench::new().await;
    let task = TaskId::mint();
    let command = "trap '' INT TERM HUP; (trap '' INT TERM HUP; sleep 8712.5) & while :; do sleep 0.1; done";
    let stream = bench.stream(bench.request(task, exec(Program::Shell { command: command.into() }, "", &[]))).await;
    let until = std::time::Instant::now() + Duration::from_secs(60);
    crate::bench::poll(until, "the child runs", || crate::bench::runs("sleep\x008712.5").then_some(())).await;
    assert!(bench.cancel(task, Duration::from_millis(100)).await);
    let ran = crate::bench::collect(stream).await;
    assert_eq!(ran.code, Some(ErrorCode::TaskCancelled));
    assert_eq!(ran.signal(), Some(9), "{ran:?}");
    assert!(!crate::bench::runs("sleep\x008712.5"), "its child is gone when the task has ended");
}
