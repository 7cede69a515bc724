//! The whole product on a disk that is full for a while: the log's, or that of everything it keeps.

use e2e::Installation;
use serde_json::{Value, json};

use super::disk::{Doomed, Endless, Server, SmallDisk, fill_log, of_kind, outcome_code, session, verified_records};

/// Whether that a tool was called is on record, in answer to nothing but itself.
fn is_served(records: &[Value], tool: &str) -> bool {
    of_kind(records, "call.served").iter().any(|record| record["tool"] == tool)
}

#[test]
fn with_the_logs_disk_full_nothing_runs_what_is_to_stop_stops_and_with_room_again_it_goes_on_by_itself() {
    let installation = Installation::new();
    let Some(disk) = SmallDisk::at(&installation.state_dir().join("audit"), 12) else { return };
    let server = Server::start(&installation);
    let mut client = installation.client();
    let doomed = Doomed::start(&mut client);
    let Doomed { kept, closed, cancelled, ended } = &doomed;
    let run = |word: &str| json!({"session_id": kept, "command": format!("echo {word} >> ran.txt")});
    client.tool("run_shell", run("before")).ok();

    disk.fill();
    fill_log(&mut client);
    client.tool("run_shell", run("meanwhile")).code("AUDIT_UNAVAILABLE");
    client.tool("fs_read", json!({"session_id": kept, "path": "ran.txt"})).code("AUDIT_UNAVAILABLE");
    client.tool("session_create", json!({})).code("AUDIT_UNAVAILABLE");
    let readiness = server.until_ready(false);
    assert_eq!((&readiness["checks"]["log"], &readiness["checks"]["store"]), (&json!("failing"), &json!("ok")));
    assert_eq!(server.get("/healthz").0, 200);
    verified_records(&installation);

    let answer = client.tool("task_cancel", json!({"task_id": cancelled.task}));
    assert!(answer.code("AUDIT_UNAVAILABLE").contains("was done"), "{answer:?}");
    cancelled.until_gone();
    let answer = client.tool("session_close", json!({"session_id": closed}));
    assert!(answer.code("AUDIT_UNAVAILABLE").contains("was done"), "{answer:?}");
    ended.until_gone();

    disk.free();
    server.until_ready(true);
    client.tool("run_shell", run("after")).ok();
    let ran = client.tool("fs_read", json!({"session_id": kept, "path": "ran.txt"}));
    assert!(ran.ok().contains("before\nafter") && !ran.text.contains("meanwhile"), "{ran:?}");
    let told = client.tool("task_wait", json!({"task_id": cancelled.task}));
    assert!(told.failed().contains("TASK_CANCELLED"), "{told:?}");
    let records = verified_records(&installation);
    doomed.assert_ends_on_record(&records);
    assert!(
        is_served(&records, "task_cancel") && is_served(&records, "session_close"),
        "who stopped them is on record"
    );
    assert!(of_kind(&records, "log.recovered").iter().any(|record| record["detail"]["lost_records"] == 0));
}

#[test]
fn a_server_whose_logs_disk_is_full_ends_at_sigterm_with_its_programs_and_the_next_goes_on() {
    let installation = Installation::new();
    let Some(disk) = SmallDisk::at(&installation.state_dir().join("audit"), 12) else { return };
    let mut server = Server::start(&installation);
    let mut client = installation.client();
    let session = session(&mut client);
    let endless = Endless::start(&mut client, &session, 1);
    client.tool("fs_write", json!({"session_id": session, "path": "kept.txt", "contents": "kept"})).ok();
    disk.fill();
    fill_log(&mut client);
    server.stop();
    endless.until_gone();
    verified_records(&installation);

    disk.free();
    let _server = Server::start(&installation);
    let mut client = installation.client();
    let read = client.tool("fs_read", json!({"session_id": session, "path": "kept.txt"}));
    assert!(read.ok().contains("kept"), "{read:?}");
    let records = verified_records(&installation);
    let ends = ["task.outcome", "task.unknown"].into_iter().flat_map(|kind| of_kind(&records, kind));
    assert_eq!(ends.filter(|record| record["task"] == endless.task.as_str()).count(), 1, "the attempt has an end");
}

#[test]
fn with_the_whole_state_directory_full_what_is_to_stop_stops_and_with_room_again_it_goes_on_by_itself() {
    let installation = Installation::new();
    let Some(disk) = SmallDisk::at(&installation.state_dir(), 64) else { return };
    let server = Server::start(&installation);
    let mut client = installation.client();
    let session = session(&mut client);
    let endless = Endless::start(&mut client, &session, 1);
    let write = |path: &str| json!({"session_id": session, "path": path, "contents": "x".repeat(100_000)});
    client.tool("fs_write", write("before")).ok();

    disk.fill();
    let refused = client.tool("fs_write", write("meanwhile"));
    assert!(refused.is_error, "there is no room for it: {refused:?}");
    let keyed = json!({"session_id": session, "command": "echo ran > keyed", "idempotency_key": "k"});
    let not_stored = client.tool("run_shell", keyed.clone());
    fill_log(&mut client);
    client.tool("run_shell", json!({"session_id": session, "command": "true"})).code("AUDIT_UNAVAILABLE");
    assert_eq!(server.until_ready(false)["checks"]["log"], "failing");
    assert_eq!(server.get("/healthz").0, 200);
    client.tool("task_cancel", json!({"task_id": endless.task})).code("AUDIT_UNAVAILABLE");
    endless.until_gone();

    disk.free();
    server.until_ready(true);
    client.tool("fs_write", write("after")).ok();
    let listed = client.tool("fs_list", json!({"session_id": session}));
    assert!(listed.ok().contains("before") && listed.text.contains("after"), "{listed:?}");
    assert!(!listed.text.contains("meanwhile"), "no part of it is left: {listed:?}");
    let again = client.tool("run_shell", keyed);
    assert!(again.is_error == not_stored.is_error || !again.is_error, "{not_stored:?}, then {again:?}");
    let records = verified_records(&installation);
    assert_eq!(outcome_code(&records, &endless.task), "TASK_CANCELLED");
}

#[test]
fn with_the_logs_disk_full_operators_end_tasks_and_sessions_and_who_did_is_on_record_when_there_is_room() {
    let installation = Installation::new();
    let Some(disk) = SmallDisk::at(&installation.state_dir().join("audit"), 12) else { return };
    let server = Server::start(&installation);
    let mut client = installation.client();
    let doomed = Doomed::start(&mut client);
    disk.fill();
    fill_log(&mut client);
    assert_eq!(server.until_ready(false)["checks"]["log"], "failing");

    doomed.end_by_an_operator(&installation);
    let refused = installation.run(["tasks", "logs", &doomed.ended.task]);
    assert!(!refused.status.success() && refused.stdout.is_empty(), "what only looks is not done: {refused:?}");
    verified_records(&installation);

    disk.free();
    server.until_ready(true);
    let records = verified_records(&installation);
    doomed.assert_ends_on_record(&records);
    doomed.assert_operator_on_record(&records);
    assert!(of_kind(&records, "log.recovered").iter().any(|record| record["detail"]["lost_records"] == 0));
}
