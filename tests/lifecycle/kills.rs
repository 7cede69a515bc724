//! A server that is killed again and again, at any moment, under clients that go on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e::{Client, Installation, poll_until, processes_of};
use serde_json::{Value, json};

const CLIENTS: usize = 3;
const ROUNDS: u64 = 20;

/// What goes on between two kills.
struct Round {
    /// A command that never ends by itself, run beside the calls.
    sleeper: String,
    /// Told of each call that was answered with success.
    answered: Sender<()>,
    over: AtomicBool,
}

/// What one client knows.
#[derive(Default)]
struct Knowledge {
    session: Option<Value>,
    calls: u64,
    /// Calls that were answered with success: the key, and the result's metadata.
    acknowledged: Vec<(String, Value)>,
    /// Calls that were answered with "nothing was run".
    refused: Vec<String>,
    /// Calls that were not answered yet.
    unanswered: Vec<String>,
}

impl Knowledge {
    /// Works until the server is gone, or is to go: a front that comes too late for it starts the next one.
    fn work(&mut self, installation: &Installation, round: &Round, sleeps: bool) {
        let mut client = installation.silent_client::<&str>([]);
        let hello =
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}});
        if client.request_unless_gone("initialize", hello).is_none() || self.session(&mut client).is_none() {
            return;
        }
        if sleeps {
            client.start_tool_unless_gone("run_shell", json!({"session_id": self.session, "command": round.sleeper}));
        }
        for key in std::mem::take(&mut self.unanswered) {
            self.call(&mut client, round, key);
        }
        while self.unanswered.is_empty() && !round.over.load(Ordering::Relaxed) {
            self.calls += 1;
            self.call(&mut client, round, format!("k{}", self.calls));
            client.tool_unless_gone("fs_stat", json!({"session_id": self.session, "path": "."}));
        }
    }

    fn session(&mut self, client: &mut Client) -> Option<()> {
        if self.session.is_none() {
            let created = client.tool_unless_gone("session_create", json!({}))?;
            self.session = created.structured.get("session_id").cloned();
        }
        self.session.as_ref().map(drop)
    }

    fn call(&mut self, client: &mut Client, round: &Round, key: String) {
        let code = format!(
            "import os\nf = os.open('runs.txt', os.O_CREAT | os.O_WRONLY | os.O_APPEND)\nos.write(f, b'{key}\\n')"
        );
        let arguments = json!({"session_id": self.session, "code": code, "idempotency_key": key});
        match client.tool_unless_gone("run_python", arguments) {
            None => self.unanswered.push(key),
            Some(answer) if !answer.is_error => {
                self.acknowledged.push((key, answer.meta));
                // Only the first of them may be waited for.
                round.answered.send(()).ok();
            }
            Some(answer) if answer.text.contains("TASK_OUTCOME_UNKNOWN") => {}
            Some(answer) if answer.text.contains("TASK_CANCELLED") => {}
            Some(answer) => {
                answer.code("WORKER_UNAVAILABLE");
                self.refused.push(key);
            }
        }
    }

    /// Compares what was answered with what was done.
    fn check(&self, client: &mut Client, records: &BTreeMap<u64, Value>) {
        let Some(session) = &self.session else { return };
        let runs = client.tool("run_shell", json!({"session_id": session, "command": "cat runs.txt"}));
        let count = |key: &str| runs.text.lines().filter(|line| *line == key).count();
        for n in 1..=self.calls {
            assert!(count(&format!("k{n}")) <= 1, "k{n} was run more than once");
        }
        for (key, meta) in &self.acknowledged {
            assert_eq!(count(key), 1, "{key} was answered with success");
            let record = &records[&meta["codegen/audit_seq"].as_u64().expect("the place of its record")];
            assert_eq!((&record["type"], &record["task"]), (&json!("task.outcome"), &meta["codegen/task_id"]), "{key}");
        }
        for key in &self.refused {
            assert_eq!(count(key), 0, "{key} was answered with: nothing was run");
        }
    }
}

#[test]
fn a_server_killed_at_any_moment_loses_no_answer_runs_nothing_twice_and_leaves_nothing_running() {
    let installation = Installation::new();
    let mut clients: Vec<Knowledge> = (0..CLIENTS).map(|_| Knowledge::default()).collect();
    let mut moment = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").subsec_nanos();
    for n in 0..ROUNDS {
        moment = moment.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let nap = format!("86400.{}{n}", std::process::id());
        let (answered, answers) = mpsc::channel();
        let round = Round { sleeper: format!("sleep {nap}"), answered, over: AtomicBool::new(false) };
        // Half of the servers are killed at any moment of their start, the others at work.
        let at_work = n % 2 == 1;
        let timely = std::thread::scope(|scope| {
            let (installation, round) = (&installation, &round);
            for (n, knowledge) in clients.iter_mut().enumerate() {
                scope.spawn(move || knowledge.work(installation, round, n == 0));
            }
            poll_until("a server runs", Duration::from_secs(20), || installation.server_pid());
            let timely = !at_work || answers.recv_timeout(Duration::from_secs(60)).is_ok();
            std::thread::park_timeout(Duration::from_millis(u64::from(moment >> 22)));
            round.over.store(true, Ordering::Relaxed);
            installation.kill_server();
            timely
        });
        assert!(timely, "a call is answered within a minute");
        if installation.server_pid().is_some() {
            installation.kill_server();
        }
        poll_until("nothing is left running", Duration::from_secs(60), || {
            processes_of(Path::new(&nap)).is_empty().then_some(())
        });
    }
    // A start settles what the last kill left open.
    installation.client().tool("session_list", json!({})).ok();
    let records = records(&installation);
    each_attempt_has_one_end(&records);
    let mut last = installation.client();
    clients.iter().for_each(|client| client.check(&mut last, &records));
    drop(last);
    installation.stop_server();
    let verified = installation.run(["audit", "verify"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

fn records(installation: &Installation) -> BTreeMap<u64, Value> {
    let query = installation.run(["audit", "query", "--json"]);
    assert!(query.status.success(), "{}", String::from_utf8_lossy(&query.stderr));
    let lines = String::from_utf8_lossy(&query.stdout);
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a record a line"));
    records.map(|record| (record["seq"].as_u64().expect("its place"), record)).collect()
}

fn each_attempt_has_one_end(records: &BTreeMap<u64, Value>) {
    let mut ends: BTreeMap<u64, usize> = BTreeMap::new();
    for record in records.values() {
        match record["type"].as_str() {
            Some("task.attempt") => *ends.entry(record["seq"].as_u64().expect("its place")).or_default() += 0,
            Some("task.outcome" | "task.unknown") => {
                *ends.entry(record["cites"].as_u64().expect("its attempt")).or_default() += 1;
            }
            _ => {}
        }
    }
    let wrong: Vec<_> = ends.iter().filter(|(_, count)| **count != 1).map(|(seq, _)| &records[seq]).collect();
    assert!(wrong.is_empty(), "attempts without exactly one end: {wrong:?}");
}
