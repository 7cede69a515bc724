//! The life of the worker process.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use codegen_types::{Program, TaskId};

use crate::bench::{Bench, exec, poll, runs, worker_program};

#[tokio::test]
async fn the_end_of_standard_input_ends_everything_at_once() {
    let mut bench = Bench::new().await;
    let program = Program::Shell { command: "sleep 6543.75".into() };
    let _stream = bench.stream(bench.request(TaskId::mint(), exec(program, "", &[]))).await;
    let until = Instant::now() + Duration::from_secs(60);
    poll(until, "the program runs", || runs("sleep\x006543.75").then_some(())).await;
    drop(bench.stdin.take());
    assert_eq!(bench.wait_for_end(Duration::from_secs(30)).await, Some(0));
    poll(Instant::now() + Duration::from_secs(30), "its programs are gone", || {
        (!runs("sleep\x006543.75")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_killed_leaves_nothing_behind() {
    let mut bench = Bench::new().await;
    let program = Program::Shell { command: "setsid sleep 6544.75 & wait".into() };
    let _stream = bench.stream(bench.request(TaskId::mint(), exec(program, "", &[]))).await;
    poll(Instant::now() + Duration::from_secs(60), "the program runs", || runs("sleep\x006544.75").then_some(())).await;
    bench.worker.kill().unwrap();
    poll(Instant::now() + Duration::from_secs(30), "its programs are gone", || {
        (!runs("sleep\x006544.75")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn sigterm_lets_running_tasks_end_then_the_worker_leaves() {
    let mut bench = Bench::new().await;
    let program = Program::Shell { command: "touch started; sleep 0.5; echo finished".into() };
    let stream = bench.stream(bench.request(TaskId::mint(), exec(program, "", &[]))).await;
    while bench.shell("test -e started").await.exit_code() != Some(0) {}
    let pid = bench.worker.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(crate::bench::collect(stream).await.stdout, "finished\n");
    assert_eq!(bench.wait_for_end(Duration::from_secs(30)).await, Some(0));
    assert!(*bench.coordinator.left.borrow(), "it said that it leaves");
}

#[tokio::test]
async fn a_lost_link_is_opened_again_and_the_task_goes_on_meanwhile() {
    let mut bench = Bench::new().await;
    let task = TaskId::mint();
    let program = Program::Shell { command: "echo before; sleep 0.5; echo after".into() };
    let stream = bench.stream(bench.request(task, exec(program, "", &[]))).await;
    let (first, registered) = (bench.lease.incarnation, bench.coordinator.registered.clone());
    drop(stream);
    bench.client = {
        // Dropping the only client closes the connection that the worker opened.
        let coordinator = bench.coordinator.clone();
        let next = async move { coordinator.link().await };
        bench.client = disconnected();
        next.await
    };
    let ran = bench.attach(task, 1).await;
    assert_eq!(ran.stdout, "before\nafter\n");
    let again = registered.borrow().last().unwrap().clone();
    assert_eq!(again.incarnation, first.to_string(), "the same life joins again");
    let held = again.held.iter().find(|held| held.session_id == bench.session.to_string()).expect("its session");
    assert_eq!((held.epoch, held.open, held.task_ids.contains(&task.to_string())), (1, true, true));
}

fn disconnected() -> codegen_proto::v1::worker_client::WorkerClient<tonic::transport::Channel> {
    let channel = tonic::transport::Endpoint::from_static("http://nowhere").connect_lazy();
    codegen_proto::v1::worker_client::WorkerClient::new(channel)
}

#[tokio::test]
async fn a_worker_may_open_as_many_files_as_its_user_allows() {
    let bench = Bench::new().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", bench.worker.id())).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let fields: Vec<&str> = open_files.split_whitespace().collect();
    assert_eq!(fields[3], fields[4], "the soft limit and the hard one: {open_files}");
    assert_eq!(bench.shell("ulimit -n").await.stdout, "1024\n", "programs have the session's");
}

#[test]
fn a_malformed_start_message_is_refused_without_repeating_it() {
    let mut worker = Command::new(worker_program());
    let mut worker = worker.arg("--embedded").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut worker.stdin.take().unwrap(), b"{\"token\":\"s3cret\",\"x\":1}\n").unwrap();
    let output = worker.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("start message") && !stderr.contains("s3cret"), "{stderr}");
}

#[test]
fn a_probe_says_what_is_there() {
    let output = Command::new(worker_program()).arg("--probe").output().unwrap();
    let probe: worker::Probe =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(probe.runtimes.iter().any(|runtime| runtime.name == "shell"), "{probe:?}");
    assert_eq!(probe.isolation.layers.len(), codegen_types::Layer::ALL.len());
}
