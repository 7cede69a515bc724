//! What the operator's commands show of the running server's workers, and do to them.

use std::io::{BufRead as _, Read as _};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::front::{Front, Place, poll, signal};

/// What a command prints; why not, when it fails.
fn run(place: &Place, args: &[&str]) -> Result<String, String> {
    let output = place.command(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn asked(place: &Place, args: &[&str]) -> Value {
    let printed = run(place, &[args, &["--json"]].concat()).unwrap();
    serde_json::from_str(&printed).unwrap()
}

/// The embedded worker, once it takes sessions.
fn healthy(place: &Place) -> Value {
    poll("the worker joins", || {
        let listed = asked(place, &["workers", "ls"]);
        listed.as_array().unwrap().iter().find(|worker| worker["state"] == "healthy").cloned()
    })
}

#[test]
fn workers_are_listed_while_a_server_runs_and_not_without_one() {
    let place = Place::new();
    assert!(run(&place, &["workers", "ls"]).unwrap_err().contains("no server runs"));
    let _front = place.client();
    let worker = healthy(&place);
    assert_eq!((&worker["worker_id"], &worker["link_up"]), (&"embedded".into(), &true.into()));
    assert_eq!(worker["version"], env!("CARGO_PKG_VERSION"));
    assert!(worker["slots"]["total"].as_u64().unwrap() > 0 && worker["heartbeat_age_seconds"].is_number());
    let shown = run(&place, &["workers", "ls"]).unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("WORKER") && lines[1].starts_with("embedded  healthy"), "{shown}");
    assert!(shown.contains(worker["incarnation"].as_str().unwrap()), "piped, nothing is left out: {shown}");
    let detail = asked(&place, &["workers", "show", "embedded"]);
    assert!(["cpus", "memory_bytes", "disk_bytes"].iter().all(|what| detail["resources"][what].as_u64().unwrap() > 0));
    let shown = run(&place, &["workers", "show", "embedded"]).unwrap();
    let host = shown.lines().find(|line| line.starts_with("host ")).unwrap();
    assert!(host.contains("processors") && host.contains("GiB memory") && host.contains("GiB disk"), "{shown}");
}

/// A call of a tool; its structured result.
fn call(front: &mut Front, tool: &str, arguments: &Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments});
    front.send(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}));
    loop {
        let message = front.receive();
        if message["id"] == 7 {
            return message["result"].clone();
        }
    }
}

fn new_session(front: &mut Front, name: &str) -> String {
    let made = call(front, "session_create", &json!({"name": name}));
    made["structuredContent"]["session_id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

fn records(place: &Place, kind: &str) -> Vec<Value> {
    let printed = run(place, &["audit", "query", "--type", kind, "--json"]).unwrap();
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn worker(place: &Place) -> Value {
    asked(place, &["workers", "show", "embedded"])
}

#[test]
fn a_cordoned_worker_gets_no_new_sessions_also_after_a_restart_of_the_server_until_it_is_uncordoned() {
    let place = Place::new();
    let mut front = place.client();
    healthy(&place);
    let session = new_session(&mut front, "before");
    assert_eq!(run(&place, &["workers", "cordon", "embedded"]).unwrap(), "embedded is cordoned.\n");
    assert!(run(&place, &["workers", "cordon", "nobody"]).unwrap_err().contains("no worker `nobody`"));
    let refused = call(&mut front, "session_create", &json!({}));
    assert!(refused.to_string().contains("NO_CAPACITY") && refused.to_string().contains("is cordoned"), "{refused}");
    let ran = call(&mut front, "run_shell", &json!({"session_id": session, "command": "echo still here"}));
    assert!(ran.to_string().contains("still here"), "{ran}");
    signal(place.server().unwrap(), Signal::TERM);
    front.wait();
    let mut front = place.client();
    healthy(&place);
    assert_eq!(worker(&place)["cordon"]["admittance"], "cordoned");
    let again = call(&mut front, "run_shell", &json!({"session_id": session, "command": "echo and again"}));
    assert!(again.to_string().contains("and again"), "a cordon keeps no session from its files: {again}");
    assert_eq!(run(&place, &["workers", "uncordon", "embedded"]).unwrap(), "embedded takes sessions.\n");
    new_session(&mut front, "after");
    let acts = records(&place, "operator.acted");
    let said: Vec<&str> = acts.iter().map(|act| act["tool"].as_str().unwrap()).collect();
    assert_eq!(said, ["workers/cordon", "workers/uncordon"]);
    assert!(acts.iter().all(|act| act["principal"].is_string() && act["detail"]["way"] == "command"), "{acts:?}");
}

#[test]
fn a_drained_worker_keeps_what_runs_until_it_ends_and_files_for_later() {
    let place = Place::new();
    let mut front = place.client();
    healthy(&place);
    let (idle, busy) = (new_session(&mut front, "idle"), new_session(&mut front, "busy"));
    call(&mut front, "fs_write", &json!({"session_id": idle, "path": "kept", "content": "kept"}));
    let wait = json!({"session_id": busy, "command": "while [ ! -e go ]; do sleep 0.05; done", "background": true});
    let yielded = call(&mut front, "run_shell", &wait);
    let late = run(&place, &["workers", "drain", "embedded", "--timeout", "300ms"]);
    assert!(late.is_err(), "a task runs: {late:?}, {yielded}");
    let row = worker(&place);
    assert_eq!((&row["tasks_running"], &row["drained"]), (&json!(1), &json!(false)), "{row}");
    let suspended = poll("the idle session ends", || {
        let listed = asked(&place, &["sessions", "ls", "--state", "suspended"]);
        (listed["sessions"].as_array().unwrap().len() == 1).then_some(listed)
    });
    assert_eq!(suspended["sessions"][0]["session_id"], idle);
    let refused = call(&mut front, "fs_read", &json!({"session_id": idle, "path": "kept"}));
    assert!(refused.to_string().contains("being drained"), "{refused}");
    call(&mut front, "fs_write", &json!({"session_id": busy, "path": "go", "content": ""}));
    let drained = run(&place, &["workers", "drain", "embedded", "--timeout", "20s"]).unwrap();
    assert_eq!(drained, "embedded is drained.\n");
    run(&place, &["workers", "uncordon", "embedded"]).unwrap();
    let read = call(&mut front, "fs_read", &json!({"session_id": idle, "path": "kept"}));
    assert!(read.to_string().contains("kept") && !read["isError"].as_bool().unwrap_or(false), "{read}");
}

#[test]
fn sessions_and_tasks_of_everybody_are_shown_and_ended() {
    let place = Place::new();
    let mut front = place.client();
    healthy(&place);
    let (one, other) = (new_session(&mut front, "one"), new_session(&mut front, "\u{202e}other"));
    let page = asked(&place, &["sessions", "ls", "--limit", "1"]);
    assert_eq!((&page["sessions"][0]["session_id"], page["sessions"].as_array().unwrap().len()), (&json!(other), 1));
    let rest = asked(&place, &["sessions", "ls", "--after", page["next"].as_str().unwrap()]);
    assert_eq!((&rest["sessions"][0]["session_id"], &rest["next"]), (&json!(one), &Value::Null));
    assert!(!run(&place, &["sessions", "ls"]).unwrap().contains('\u{202e}'), "a name moves no cursor");
    assert_eq!(asked(&place, &["sessions", "ls", "--worker", "elsewhere"])["sessions"], json!([]));
    assert!(run(&place, &["sessions", "ls", "--state", "asleep"]).unwrap_err().contains("must be one of"));
    let loops = json!({"session_id": one, "command": "echo begun; while sleep 0.1; do :; done", "background": true});
    call(&mut front, "run_shell", &loops);
    let running = poll("it runs", || {
        let listed = asked(&place, &["tasks", "ls", "--state", "running", "--session", &one]);
        listed["tasks"].get(0).cloned()
    });
    let task = running["task_id"].as_str().unwrap();
    let mut follower = Front::launch(place.command(&["tasks", "logs", "-f", task]));
    // It follows before the task is asked to end.
    let mut printed = String::new();
    follower.stdout.read_line(&mut printed).unwrap();
    assert_eq!(running["worker"], "embedded");
    assert!(run(&place, &["tasks", "cancel", task]).unwrap().contains("asked to end"));
    let ended = poll("it ends", || {
        let shown = asked(&place, &["tasks", "show", task]);
        (shown["state"] != "running").then_some(shown)
    });
    assert_eq!((&ended["state"], &ended["code"]), (&json!("failed"), &json!("TASK_CANCELLED")), "{ended}");
    assert!(follower.wait().success());
    follower.stdout.read_to_string(&mut printed).unwrap();
    assert_eq!(printed, "begun\n");
    let closed = run(&place, &["sessions", "close", &one]).unwrap();
    assert!(closed.contains("is clos"), "{closed}");
    let gone = call(&mut front, "run_shell", &json!({"session_id": one, "command": "true"}));
    assert!(gone.to_string().contains("SESSION_CLOSED"), "{gone}");
    let acts = records(&place, "operator.acted");
    let said: Vec<&str> = acts.iter().map(|act| act["tool"].as_str().unwrap()).collect();
    assert_eq!(said, ["tasks/logs", "tasks/cancel", "sessions/close"]);
    let unknown = format!("ses_{}", "0".repeat(32));
    assert!(run(&place, &["sessions", "show", &unknown]).unwrap_err().contains("no such session"));
}

/// A front of a server whose worker has one slot.
fn narrow(place: &Place) -> Front {
    let mut command = place.command(&[]);
    command.env("MAX_SESSIONS", "1");
    let mut front = Front::launch(command);
    front.greet();
    front
}

#[test]
fn a_session_waits_for_a_slot_when_it_may_and_else_is_told_what_is_missing() {
    let place = Place::new();
    let (mut front, mut other) = (narrow(&place), narrow(&place));
    healthy(&place);
    let first = new_session(&mut front, "first");
    let refused = call(&mut other, "session_create", &json!({}));
    let said = refused["content"][0]["text"].as_str().unwrap();
    assert!(said.contains("NO_CAPACITY") && said.contains("the only one has all slots taken"), "{said}");
    assert_eq!(refused["_meta"]["codegen/error"]["retry_after_ms"], 5_000, "{refused}");
    let elsewhere = call(&mut other, "session_create", &json!({"labels": {"gpu": "1"}}));
    assert!(elsewhere.to_string().contains("the only one lacks the label gpu=1"), "{elsewhere}");
    let wanted = json!({"name": "session_create", "arguments": {"wait_seconds": 60}});
    other.send(&json!({"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": wanted}));
    let behind = poll("it waits", || {
        let behind = call(&mut front, "session_create", &json!({"wait_seconds": 0}));
        behind.to_string().contains("NO_CAPACITY").then_some(behind)
    });
    assert!(behind["isError"].as_bool().unwrap());
    call(&mut front, "session_close", &json!({"session_id": first}));
    let made = other.receive();
    let second = made["result"]["structuredContent"]["session_id"].as_str().unwrap_or_else(|| panic!("{made}"));
    assert_ne!(second, first);
    assert_eq!(worker(&place)["slots"], json!({"total": 1, "used": 1, "reserved": 0}));
}
