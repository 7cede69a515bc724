//! Workers are killed, paused and come back.

use std::time::Instant;

use e2e::{Client, poll_until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{GRACE, LONG, PATIENT, Rig, background, leaves, runs, says, session, state, wait};

#[test]
fn a_killed_worker_s_tasks_end_unknown_its_sessions_say_that_they_are_lost_and_others_take_new_ones() {
    let mut rig = Rig::of(&["a", "b", "c"]);
    let mut client = rig.fleet.client();
    let sessions: Vec<_> = (0..3).map(|_| session(&mut client)).collect();
    let (names, workspaces): (Vec<_>, Vec<_>) = sessions.iter().map(|session| rig.workspace(session)).unzip();
    assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1), "spread: {names:?}");
    let task = background(&mut client, "run_python", json!({"session_id": sessions[0], "code": PATIENT}));
    says(&mut client, &task, "begun");
    rig.worker(&names[0]).signal(Signal::KILL);
    assert_eq!(leaves(&mut client, &task, "running"), "unknown");
    wait(&mut client, &task).code("TASK_OUTCOME_UNKNOWN");
    let shell = |command: &str, of: usize| json!({"session_id": sessions[of], "command": command});
    let told = poll_until("the session is lost", LONG, || {
        let told = client.tool("run_shell", shell("true", 0));
        told.text.contains("SESSION_LOST").then_some(told)
    });
    assert!(told.text.contains("session_create"), "{told:?}");
    for other in [1, 2] {
        assert!(client.tool("run_shell", shell("echo here", other)).ok().contains("here"));
    }
    let another = session(&mut client);
    assert_ne!(rig.workspace(&another).0, names[0], "it is placed where a worker is");
    // The same worker comes back with the files: the handle works again, by a new lease.
    rig.start_worker(&names[0]);
    poll_until("its files are found", LONG, || {
        let read = client.tool("fs_read", json!({"session_id": sessions[0], "path": "runs"}));
        read.text.contains("ran").then_some(())
    });
    assert_eq!((state(&mut client, &task), runs(&workspaces[0])), (json!("unknown"), 1));
    rig.verify();
}

#[test]
fn a_paused_worker_goes_on_where_it_was_and_nothing_runs_twice() {
    let mut rig = Rig::of(&["a"]);
    let mut client = rig.fleet.client();
    let session = session(&mut client);
    let (_, workspace) = rig.workspace(&session);
    let task = background(&mut client, "run_python", json!({"session_id": session, "code": PATIENT}));
    says(&mut client, &task, "begun");
    rig.worker("a").signal(Signal::STOP);
    // Its silence is noticed by the keep-alive of the link.
    poll_until("the link is down", LONG, || {
        let listed = rig.fleet.installation().run(["workers", "ls", "--json"]);
        String::from_utf8_lossy(&listed.stdout).contains("suspect").then_some(())
    });
    assert_eq!(state(&mut client, &task), "running");
    rig.worker("a").signal(Signal::CONT);
    std::fs::write(workspace.join("go"), "").expect("the file");
    let result = wait(&mut client, &task);
    assert!(result.ok().contains("begun\ngone on"), "{result:?}");
    assert_eq!(runs(&workspace), 1);
    rig.verify();
}

#[test]
fn a_worker_that_was_given_up_and_comes_back_is_heard_once_more_and_not_as_if_nothing_had_been() {
    let mut rig = Rig::of(&["a"]);
    let mut client = rig.fleet.client();
    let session = session(&mut client);
    let command = "echo begun; sleep 1; echo late";
    let task = background(&mut client, "run_shell", json!({"session_id": session, "command": command}));
    // What the worker has not read when its link is cut it never gets.
    says(&mut client, &task, "begun");
    rig.worker("a").signal(Signal::STOP);
    assert_eq!(leaves(&mut client, &task, "running"), "unknown");
    let shell = json!({"session_id": session, "command": "echo again"});
    poll_until("the worker is gone", LONG, || {
        client.tool("run_shell", shell.clone()).text.contains("SESSION_LOST").then_some(())
    });
    rig.worker("a").signal(Signal::CONT);
    assert_eq!(leaves(&mut client, &task, "unknown"), "finished");
    let records = rig.fleet.installation().run(["audit", "query", "--json"]);
    let records = String::from_utf8_lossy(&records.stdout).into_owned();
    let resolved = records.lines().filter(|line| line.contains("task.resolved") && line.contains(&task)).count();
    assert_eq!(resolved, 1, "{records}");
    assert!(client.tool("run_shell", shell).ok().contains("again"), "its session is opened by a new lease");
    rig.verify();
}

/// Goes on in its kernel for as long as the session has processes, and belongs to no task.
const BEHIND: &str = "
import threading, time
def beat():
    while True:
        open('beats', 'w').write(str(time.time_ns()))
        time.sleep(0.02)
threading.Thread(target=beat, daemon=True).start()
";

#[test]
fn a_worker_that_was_given_up_ends_what_is_at_rest_or_closed_here_and_has_its_place_again() {
    let mut rig = Rig::of_one_place("a");
    let mut client = rig.fleet.client();
    let session = session(&mut client);
    let (_, workspace) = rig.workspace(&session);
    let shell = |command: &str| json!({"session_id": session, "command": command});
    client.tool("run_python", json!({"session_id": session, "code": BEHIND, "kernel": "k"})).ok();
    let beats = || std::fs::read_to_string(workspace.join("beats")).unwrap_or_default();
    poll_until("it goes on behind", LONG, || (!beats().is_empty()).then_some(()));
    let lose = |rig: &mut Rig, client: &mut Client| {
        rig.worker("a").signal(Signal::STOP);
        poll_until("the worker is gone", LONG, || {
            client.tool("run_shell", shell("true")).text.contains("SESSION_LOST").then_some(())
        });
    };
    let used = |rig: &Rig| {
        let listed = rig.fleet.installation().run(["workers", "ls", "--json"]);
        let rows: Value = serde_json::from_slice(&listed.stdout).expect("rows");
        rows[0]["slots"]["used"].clone()
    };
    lose(&mut rig, &mut client);
    rig.worker("a").signal(Signal::CONT);
    poll_until("its place is free", LONG, || (used(&rig) == 0).then_some(()));
    let stopped = beats();
    assert!(client.tool("run_shell", shell("cat beats")).ok().contains(&stopped), "nothing went on behind");
    lose(&mut rig, &mut client);
    client.tool("session_close", json!({"session_id": session})).ok();
    assert!(workspace.is_dir(), "its worker is away");
    rig.worker("a").signal(Signal::CONT);
    poll_until("its files are deleted", LONG, || (!workspace.exists()).then_some(()));
    poll_until("its place is free", LONG, || (used(&rig) == 0).then_some(()));
    rig.verify();
}

#[test]
fn a_worker_that_begins_again_at_once_is_known_by_its_disk() {
    let mut rig = Rig::forbearing(&["a"]);
    let mut client = rig.fleet.client();
    let session = session(&mut client);
    client.tool("fs_write", json!({"session_id": session, "path": "kept", "contents": "here"})).ok();
    rig.worker("a").signal(Signal::KILL);
    let begun = Instant::now();
    rig.start_worker("a");
    poll_until("its session is there", LONG, || {
        let read = client.tool("fs_read", json!({"session_id": session, "path": "kept"}));
        read.text.contains("here").then_some(())
    });
    assert!(begun.elapsed() < GRACE, "it had to wait like a stranger: {:?}", begun.elapsed());
    rig.verify();
}
