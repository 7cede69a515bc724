//! A coordinator with impatient settings, and workers that joined it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Answer, Client, Fleet, Launched, poll_until};
use serde_json::{Value, json};

/// No test waits longer than this for anything that must happen.
pub const LONG: Duration = Duration::from_secs(30);

/// Silence is noticed within seconds, so that a test of it takes seconds.
const IMPATIENT: [(&str, &str); 4] = settings("4s", "8s");
/// A worker that lost its coordinator waits at random, and longer each time, before it tries again.
const FORBEARING: [(&str, &str); 4] = settings("20s", "40s");
/// The first of these times.
pub const GRACE: Duration = Duration::from_secs(20);
/// Nothing that a worker does comes too late.
const PATIENT_FOR_LONG: [(&str, &str); 4] = settings("60s", "120s");

const fn settings(grace: &'static str, silence: &'static str) -> [(&'static str, &'static str); 4] {
    [
        ("WORKER_KEEP_ALIVE", "1s"),
        ("WORKER_RECONNECT_GRACE", grace),
        ("WORKER_HEARTBEAT_TIMEOUT", silence),
        ("WORKER_HEARTBEAT_INTERVAL", "1s"),
    ]
}

/// Says something, waits for a file, says more, and writes down that it ran.
pub const PATIENT: &str = "
import os, sys, time
open('runs', 'a').write('ran\\n')
print('begun', flush=True)
while not os.path.exists('go'): time.sleep(0.02)
print('gone on')
";

pub struct Rig {
    pub fleet: Fleet,
    pub address: String,
    pub workers: BTreeMap<String, Launched>,
    token: PathBuf,
}

impl Rig {
    pub fn of(names: &[&str]) -> Self {
        Self::with(names, &IMPATIENT, &[])
    }

    /// One worker that takes one session at a time.
    pub fn of_one_place(name: &str) -> Self {
        Self::with(&[name], &IMPATIENT, &["--max-sessions", "1"])
    }

    /// Where workers have time to come back.
    pub fn forbearing(names: &[&str]) -> Self {
        Self::with(names, &FORBEARING, &[])
    }

    /// Where workers have all the time they need to come back.
    pub fn waiting_long(names: &[&str]) -> Self {
        Self::with(names, &PATIENT_FOR_LONG, &[])
    }

    fn with(names: &[&str], settings: &[(&'static str, &'static str)], arguments: &[&str]) -> Self {
        let mut fleet = Fleet::with_settings(settings);
        let address = fleet.address();
        let token = fleet.token("token", &[]);
        let workers = names.iter().map(|name| ((*name).to_owned(), fleet.worker(name, &token, arguments))).collect();
        Self { fleet, address, workers, token }
    }

    /// A new life of a worker, on the same files.
    pub fn start_worker(&mut self, name: &str) {
        self.start_worker_with(name, &[]);
    }

    /// The same, with further arguments.
    pub fn start_worker_with(&mut self, name: &str, arguments: &[&str]) {
        let worker = self.fleet.worker(name, &self.token, arguments);
        self.workers.insert(name.to_owned(), worker);
    }

    pub fn worker(&mut self, name: &str) -> &mut Launched {
        self.workers.get_mut(name).expect("such a worker")
    }

    /// The workspace of a session, on whichever worker it is, and the name of that worker.
    pub fn workspace(&self, session: &Value) -> (String, PathBuf) {
        let session = session.as_str().expect("an id");
        let found = self.workers.keys().map(|name| (name.clone(), self.fleet.workspaces(name).join(session)));
        found.into_iter().find(|(_, path)| path.is_dir()).expect("one worker has it")
    }

    pub fn restart_server(&mut self) {
        let address = self.address.clone();
        self.fleet.kill_server();
        self.fleet.start_again(&address);
    }

    /// The log, checked as an operator does.
    pub fn verify(&self) {
        let verified = self.fleet.installation().run(["audit", "verify"]);
        assert!(verified.status.success(), "{verified:?}");
    }
}

pub fn session(client: &mut Client) -> Value {
    poll_until("a worker takes sessions", LONG, || {
        let made = client.tool("session_create", json!({}));
        made.structured.get("session_id").cloned()
    })
}

/// Starts a task that goes on in the background.
pub fn background(client: &mut Client, tool: &str, mut arguments: Value) -> String {
    arguments["background"] = json!(true);
    let answer = client.tool(tool, arguments);
    answer.ok();
    answer.meta["codegen/task_id"].as_str().expect("an id").to_owned()
}

pub fn says(client: &mut Client, task: &str, part: &str) {
    poll_until("it says something", LONG, || {
        client.tool("task_logs", json!({"task_id": task})).text.contains(part).then_some(())
    });
}

pub fn state(client: &mut Client, task: &str) -> Value {
    client.tool("task_status", json!({"task_id": task})).structured["state"].clone()
}

/// Waits until a task has another state than this one.
pub fn leaves(client: &mut Client, task: &str, state_name: &str) -> Value {
    poll_until("its state changes", LONG, || {
        let now = state(client, task);
        (now != state_name).then_some(now)
    })
}

pub fn wait(client: &mut Client, task: &str) -> Answer {
    client.tool("task_wait", json!({"task_id": task}))
}

pub fn runs(workspace: &Path) -> usize {
    std::fs::read_to_string(workspace.join("runs")).unwrap_or_default().lines().count()
}
