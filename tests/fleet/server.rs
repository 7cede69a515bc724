//! The coordinator is killed, and started again.

use e2e::poll_until;
use rustix::process::Signal;
use serde_json::json;

use crate::rig::{LONG, PATIENT, Rig, background, leaves, runs, says, session, state, wait};

/// Ends by itself, soon.
const QUICK: &str = "echo begun; sleep 1; echo late; echo > ended";

#[test]
fn workers_go_on_while_the_coordinator_is_dead_and_tasks_end_with_their_real_results() {
    let mut rig = Rig::forbearing(&["a"]);
    let mut client = rig.fleet.client();
    let session = session(&mut client);
    client.tool("run_python", json!({"session_id": session, "code": "x = 41", "kernel": "k"})).ok();
    let call = json!({"session_id": session, "code": PATIENT, "idempotency_key": "once", "background": true});
    let waits = background(&mut client, "run_python", call.clone());
    says(&mut client, &waits, "begun");
    let quick = background(&mut client, "run_shell", json!({"session_id": session, "command": QUICK}));
    says(&mut client, &quick, "begun");
    let (_, workspace) = rig.workspace(&session);
    rig.fleet.kill_server();
    // It ends while nobody is there to be told.
    poll_until("it has ended", LONG, || workspace.join("ended").is_file().then_some(()));
    let address = rig.address.clone();
    rig.fleet.start_again(&address);
    let mut client = rig.fleet.client();
    assert_eq!(state(&mut client, &waits), "running");
    let ended = wait(&mut client, &quick);
    assert!(ended.ok().contains("late"), "{ended:?}");
    says(&mut client, &waits, "begun");
    // The session was not touched: its kernel still knows what it knew, and files can be written.
    let kernel = client.tool("run_python", json!({"session_id": session, "code": "print(x + 1)", "kernel": "k"}));
    assert!(kernel.ok().contains("42"), "{kernel:?}");
    client.tool("fs_write", json!({"session_id": session, "path": "go", "contents": ""})).ok();
    let result = wait(&mut client, &waits);
    assert!(result.ok().starts_with("exit 0") && result.text.contains("begun\ngone on"), "{result:?}");
    let repeated = client.tool("run_python", call);
    assert!(repeated.ok().contains("gone on"), "{repeated:?}");
    assert_eq!(runs(&workspace), 1, "it ran once");
    rig.verify();
}

#[test]
fn a_worker_that_comes_too_late_after_a_restart_still_tells_how_its_tasks_ended() {
    let mut rig = Rig::of(&["a"]);
    let mut client = rig.fleet.client();
    let session = session(&mut client);
    let task = background(&mut client, "run_shell", json!({"session_id": session, "command": QUICK}));
    says(&mut client, &task, "begun");
    rig.worker("a").signal(Signal::STOP);
    rig.restart_server();
    let mut client = rig.fleet.client();
    assert_eq!(leaves(&mut client, &task, "running"), "unknown");
    poll_until("the session is lost", LONG, || {
        let told = client.tool("run_shell", json!({"session_id": session, "command": "true"}));
        told.text.contains("SESSION_LOST").then_some(())
    });
    rig.worker("a").signal(Signal::CONT);
    assert_eq!(leaves(&mut client, &task, "unknown"), "finished");
    assert!(wait(&mut client, &task).ok().contains("late"));
    rig.verify();
}

#[test]
fn a_worker_that_is_to_stop_while_the_coordinator_is_dead_first_tells_it_how_its_tasks_ended() {
    let mut rig = Rig::forbearing(&["a"]);
    let mut client = rig.fleet.client();
    let session = session(&mut client);
    let task = background(&mut client, "run_shell", json!({"session_id": session, "command": QUICK}));
    says(&mut client, &task, "begun");
    let (_, workspace) = rig.workspace(&session);
    rig.fleet.kill_server();
    poll_until("it has ended", LONG, || workspace.join("ended").is_file().then_some(()));
    rig.worker("a").signal(Signal::TERM);
    rig.worker("a").says("stopping");
    let address = rig.address.clone();
    rig.fleet.start_again(&address);
    let mut client = rig.fleet.client();
    let ended = wait(&mut client, &task);
    assert!(ended.ok().contains("late"), "{ended:?}");
    assert!(rig.worker("a").wait(LONG).success());
    rig.verify();
}

#[test]
fn what_only_a_worker_can_do_that_is_not_back_yet_is_waited_for_after_a_restart_and_not_refused_for_good() {
    let mut rig = Rig::waiting_long(&["near"]);
    let far = || json!({"labels": {"place": "far"}});
    let mut client = rig.fleet.client();
    session(&mut client);
    client.tool("session_create", far()).code("NO_WORKER_FITS");
    // It has never had a session by which the next server would know it.
    rig.start_worker_with("far", &["--label", "place=far"]);
    rig.worker("far").signal(Signal::STOP);
    rig.restart_server();
    let mut client = rig.fleet.client();
    session(&mut client);
    let early = client.start_tool("session_create", far());
    rig.worker("far").signal(Signal::CONT);
    let mut answer = client.tool_answer(early);
    poll_until("the session is made", LONG, || {
        assert!(!answer.is_error || answer.text.contains("WORKER_UNAVAILABLE"), "{answer:?}");
        if answer.is_error {
            answer = client.tool("session_create", far());
        }
        answer.structured["session_id"].as_str().map(str::to_owned)
    });
    rig.verify();
}
