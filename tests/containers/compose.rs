//! `docker/compose.yaml`: a coordinator, three workers, and clients over HTTP.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, process};

use e2e::poll_until;
use serde_json::{Value, json};

use crate::engine::{COORDINATOR, Engine, WORKER, docker_file};
use crate::http::{HttpClient, text};

const JOINING: Duration = Duration::from_secs(60);

/// A project of compose, which is taken down with its volumes when the value is dropped.
struct Project {
    engine: Engine,
    name: String,
    port: u16,
    scratch: tempfile::TempDir,
}

impl Project {
    /// A coordinator and workers, by the release of compose that the machine has. Says why there is none.
    fn start(engine: &Engine, workers: u32) -> Option<(Self, HttpClient)> {
        if Command::new("docker-compose").arg("version").output().is_err() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no docker-compose");
            eprintln!("SKIPPED: there is no docker-compose");
            return None;
        }
        let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let scratch = tempfile::tempdir().expect("a directory");
        let name = format!("codegen-{}-{free}", process::id());
        let project = Self { engine: engine.clone(), name, port: free, scratch };
        let for_workers =
            project.compose(&["run", "--rm", "-T", "coordinator", "tokens", "create", "--role", "worker"]);
        let token = project.scratch.path().join("worker-token");
        fs::write(&token, for_workers).expect("the token is kept");
        fs::set_permissions(&token, fs::Permissions::from_mode(0o400)).expect("permissions");
        chown(&token, Some(1000), Some(1000)).expect("chown");
        let create = ["run", "--rm", "-T", "coordinator", "tokens", "create", "--principal", "somebody"];
        let for_client = project.compose(&create);
        project.compose(&["up", "--detach", "--scale", &format!("worker={workers}")]);
        let client = poll_until("HTTP answers", JOINING, || HttpClient::connect(free, for_client.trim()));
        poll_until("all workers have joined", JOINING, || (project.healthy().len() == workers as usize).then_some(()));
        Some((project, client))
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("docker-compose");
        command.args(["--project-name", &self.name, "--file", "compose.yaml"]);
        command.args(["--file", "compose-1.29.yaml"]).env("WORKER_SYSTEMPATHS", "no-new-privileges");
        command.args(arguments).current_dir(docker_file("")).envs(self.engine.environment());
        command.env("COORDINATOR_IMAGE", COORDINATOR).env("WORKER_IMAGE", WORKER);
        command.env("WORKER_TOKEN_FILE", self.scratch.path().join("worker-token"));
        command.env("CODEGEN_HTTP_PORT", self.port.to_string()).output().expect("compose runs")
    }

    fn compose(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The workers that take sessions, as `coordinator workers ls` has them.
    fn healthy(&self) -> Vec<Value> {
        let asked = self.output(&["exec", "-T", "coordinator", "coordinator", "workers", "ls", "--json"]);
        let rows: Vec<Value> = serde_json::from_slice(&asked.stdout).unwrap_or_default();
        rows.into_iter().filter(|row| row["state"] == "healthy").collect()
    }

    /// The container of the one worker that has a session open.
    fn used_worker(&self) -> String {
        let used = |row: &Value| (row["slots"]["used"] != 0).then(|| row["worker_id"].as_str().map(str::to_owned))?;
        poll_until("a worker has the session", JOINING, || self.healthy().iter().find_map(used))
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        drop(self.output(&["down", "--volumes", "--timeout", "1"]));
    }
}

fn new_session(client: &HttpClient) -> String {
    let created = client.tool("session_create", &json!({}));
    created["structuredContent"]["session_id"].as_str().expect("a session").to_owned()
}

fn run(client: &HttpClient, session: &str, code: &str) -> Value {
    client.tool("run_python", &json!({ "session_id": session, "code": code }))
}

/// A program that counts its starts in the workspace and takes a while.
const COUNTED: &str = "import time\nopen('starts', 'a').write('x')\nfor at in range(8):\n    print('step', at, flush=True)\n    \
                       time.sleep(0.5)\nprint('starts:', len(open('starts').read()))";

#[test]
fn sessions_over_http_are_spread_over_three_workers() {
    let Some(engine) = Engine::at_hand() else { return };
    let Some((project, client)) = Project::start(&engine, 3) else { return };
    let sessions: BTreeSet<String> = (0..6).map(|_| new_session(&client)).collect();
    for session in &sessions {
        let answer = run(&client, session, "import numpy; print(int(numpy.arange(9).sum()))");
        assert!(text(&answer).contains("36"), "{answer}");
    }
    let workers = project.healthy();
    assert!(workers.iter().all(|row| row["isolation"] == "full" && row["slots"]["used"] == 2), "{workers:?}");
}

#[test]
fn a_worker_that_is_paused_or_cut_off_for_a_moment_goes_on_with_its_task() {
    let Some(engine) = Engine::at_hand() else { return };
    let Some((project, client)) = Project::start(&engine, 1) else { return };
    let session = new_session(&client);
    assert!(text(&run(&client, &session, "print(1)")).contains('1'));
    let worker = project.used_worker();
    let network = format!("{}_fleet", project.name);
    let disturbances: [(Vec<&str>, Vec<&str>); 2] = [
        (vec!["pause", &worker], vec!["unpause", &worker]),
        (vec!["network", "disconnect", &network, &worker], vec!["network", "connect", &network, &worker]),
    ];
    for (round, (begin, end)) in disturbances.iter().enumerate() {
        let running = thread::spawn({
            let (client, session) = (client.clone(), session.clone());
            move || run(&client, &session, COUNTED)
        });
        poll_until("the program runs", JOINING, || {
            let listed = client.tool("task_list", &json!({ "session_id": session }));
            listed.to_string().contains("running").then_some(())
        });
        engine.said(begin.iter().copied());
        let began = Instant::now();
        poll_until("it lasts a moment", JOINING, || (began.elapsed() > Duration::from_secs(2)).then_some(()));
        engine.said(end.iter().copied());
        let answer = running.join().expect("the call ends");
        let expected = format!("starts: {}", round + 1);
        assert!(text(&answer).contains(&expected), "after {begin:?}: {answer}");
        assert!((0..8).all(|at| text(&answer).contains(&format!("step {at}"))), "after {begin:?}: {answer}");
    }
}

#[test]
fn a_killed_worker_s_task_is_not_run_again_and_its_files_stay() {
    let Some(engine) = Engine::at_hand() else { return };
    let Some((project, client)) = Project::start(&engine, 1) else { return };
    let session = new_session(&client);
    assert!(text(&run(&client, &session, "print(1)")).contains('1'));
    let worker = project.used_worker();
    let running = thread::spawn({
        let (client, session) = (client.clone(), session.clone());
        move || run(&client, &session, COUNTED)
    });
    poll_until("the program runs", JOINING, || {
        let listed = client.tool("fs_list", &json!({ "session_id": session, "path": "." }));
        listed.to_string().contains("starts").then_some(())
    });
    engine.said(["kill", &worker]);
    engine.said(["start", &worker]);
    let answer = running.join().expect("the call ends");
    assert!(text(&answer).contains("TASK_OUTCOME_UNKNOWN"), "{answer}");
    let answer = run(&client, &session, "print('starts:', len(open('starts').read()))");
    assert!(text(&answer).contains("starts: 1"), "{answer}");
}
