//! The whole product on a disk that does not answer for a while.

use e2e::Installation;
use serde_json::{Value, json};

use super::disk::{Doomed, Endless, Server, Stall, session, verified_records};

#[test]
fn while_the_disk_stalls_nothing_is_acknowledged_what_is_to_stop_stops_and_afterwards_it_goes_on_by_itself() {
    let installation = Installation::new();
    let server = Server::start(&installation);
    let mut client = installation.client();
    let session = session(&mut client);
    let endless = Endless::start(&mut client, &session, 1);
    let run = |word: &str| json!({"session_id": session, "command": format!("echo {word} >> ran.txt")});
    client.tool("run_shell", run("before")).ok();

    let Some(stall) = Stall::of(server.child.id(), installation.outside()) else { return };
    let waiting = client.start_tool("run_shell", run("meanwhile"));
    let mut leaving = installation.client();
    leaving.start_tool("run_shell", run("left"));
    leaving.close();
    assert_eq!(server.get("/healthz").0, 200);
    let mut stopping = installation.client();
    let cancelled = stopping.start_tool("task_cancel", json!({"task_id": endless.task}));
    endless.until_gone();
    client.tool_answer(waiting).code("AUDIT_UNAVAILABLE");
    stopping.tool_answer(cancelled).code("AUDIT_UNAVAILABLE");
    assert_eq!(server.until_ready(false)["checks"]["log"], "failing");
    assert_eq!(server.get("/healthz").0, 200);

    stall.end();
    server.until_ready(true);
    client.tool("run_shell", run("after")).ok();
    let ran = client.tool("fs_read", json!({"session_id": session, "path": "ran.txt"}));
    assert!(ran.ok().contains("before\nafter"), "what nobody was told of has not run: {ran:?}");
    let records = verified_records(&installation);
    let of = |kind: &str| -> Vec<&Value> { records.iter().filter(|record| record["type"] == kind).collect() };
    let ends = |attempt: &Value| {
        let ends = ["task.outcome", "task.unknown", "log.withdrawn"].into_iter().flat_map(of);
        ends.filter(|end| end["cites"] == attempt["seq"]).count()
    };
    assert!(of("task.attempt").iter().all(|attempt| ends(attempt) == 1), "each attempt has one end");
    let outcome = of("task.outcome").into_iter().find(|record| record["task"] == endless.task.as_str());
    assert_eq!(outcome.expect("an outcome")["code"], "TASK_CANCELLED");
}

#[test]
fn a_server_whose_disk_stalls_ends_at_sigterm_with_its_programs_and_the_next_loses_nothing() {
    let installation = Installation::new();
    let mut server = Server::start(&installation);
    let mut client = installation.client();
    let session = session(&mut client);
    let endless = Endless::start(&mut client, &session, 1);
    client.tool("fs_write", json!({"session_id": session, "path": "kept.txt", "contents": "kept"})).ok();
    let Some(stall) = Stall::of(server.child.id(), installation.outside()) else { return };
    rustix::process::kill_process(rustix::process::Pid::from_child(&server.child), rustix::process::Signal::TERM)
        .expect("a signal");
    endless.until_gone();
    stall.end();
    server.stop();
    let _server = Server::start(&installation);
    let mut client = installation.client();
    let read = client.tool("fs_read", json!({"session_id": session, "path": "kept.txt"}));
    assert!(read.ok().contains("kept"), "{read:?}");
    let records = verified_records(&installation);
    let ends = records.iter().filter(|record| record["task"] == endless.task.as_str() && !record["cites"].is_null());
    assert_eq!(ends.count(), 1, "the attempt has an end");
}

#[test]
fn while_the_disk_stalls_operators_end_tasks_and_sessions_and_who_did_is_on_record_afterwards() {
    let installation = Installation::new();
    let server = Server::start(&installation);
    let mut client = installation.client();
    let doomed = Doomed::start(&mut client);
    let Some(stall) = Stall::of(server.child.id(), installation.outside()) else { return };
    doomed.end_by_an_operator(&installation);
    assert_eq!(server.until_ready(false)["checks"]["log"], "failing");

    stall.end();
    server.until_ready(true);
    let records = verified_records(&installation);
    doomed.assert_ends_on_record(&records);
    doomed.assert_operator_on_record(&records);
}
