//! How a worker ends.

use std::time::{Duration, Instant};

use e2e::{Fleet, poll_until};
use rustix::process::Signal;
use serde_json::json;

use crate::remote::{LONG, session};

#[test]
fn sigterm_lets_running_tasks_end_places_nothing_new_and_says_goodbye() {
    let mut fleet = Fleet::start(&[]);
    fleet.address();
    let token = fleet.token("token", &[]);
    let mut worker = fleet.worker("far", &token, &[]);
    let mut client = fleet.client();
    let session = session(&mut client);
    let code =
        "import os, time\nprint('begun', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.02)\nprint('done')";
    let running = client.start_tool("run_python", json!({"session_id": session, "code": code}));
    assert!(client.progress().contains("begun"));
    worker.signal(Signal::TERM);
    let listed = || {
        let output = fleet.installation().run(["workers", "ls", "--json"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    poll_until("it is draining", LONG, || listed().contains("\"draining\"").then_some(()));
    client.tool("session_create", json!({})).code("WORKER_UNAVAILABLE");
    std::fs::write(fleet.workspaces("far").join(&session).join("go"), "").expect("a file");
    let answer = client.tool_answer(running);
    assert!(answer.ok().contains("done"), "{}", answer.text);
    assert!(worker.wait(LONG).success());
    poll_until("it is gone", LONG, || (!listed().contains("far")).then_some(()));
}

#[test]
fn a_second_sigterm_ends_a_worker_whose_tasks_go_on() {
    let mut fleet = Fleet::start(&[]);
    fleet.address();
    let token = fleet.token("token", &[]);
    let mut worker = fleet.worker("far", &token, &["--drain-timeout", "10m"]);
    let mut client = fleet.client();
    let session = session(&mut client);
    let code = "import time\nprint('begun', flush=True)\ntime.sleep(600)";
    client.start_tool("run_python", json!({"session_id": session, "code": code}));
    assert!(client.progress().contains("begun"));
    worker.signal(Signal::TERM);
    worker.says("stopping");
    let began = Instant::now();
    worker.signal(Signal::TERM);
    worker.wait(LONG);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
