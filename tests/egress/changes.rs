//! What an operator changes while sessions are there: hosts, rules, secrets; and contacts after a session's last program.

use std::path::PathBuf;

use e2e::{Client, User, poll_until, signal};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{ASK, LONG, Rig, python};

/// What a session reaches, and what is no longer permitted, as it is told.
fn network(client: &mut Client, session: &str) -> (Value, Value) {
    let told = client.tool("session_info", json!({"session_id": session}));
    told.ok();
    (told.structured["network"].clone(), told.structured["network_dropped"].clone())
}

/// Asks a host for something that its log shows.
fn ask(client: &mut Client, session: &str, host: &str) -> String {
    python(client, session, &format!("{ASK}print('said', *ask('http://{host}/asked'))\n"))
}

#[test]
fn a_host_that_the_operator_takes_away_is_reached_no_more_and_shown_as_dropped() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let (plain, encrypted) = (rig.plain.host(), rig.encrypted.host());
    let session = rig.session(&mut client, &[&plain, &encrypted]);
    assert!(ask(&mut client, &session, &plain).contains("said 200"));
    drop(client);
    rig.installation.kill_server();
    rig.configure(&format!("egress_private_hosts = '{encrypted}'\n"));
    let mut client = rig.client();
    let refused = ask(&mut client, &session, &plain);
    assert!(refused.contains("said 403") && refused.contains("not on the list"), "{refused}");
    assert_eq!(network(&mut client, &session), (json!([encrypted]), json!([plain])));
    let told = client.tool("session_info", json!({"session_id": session}));
    assert!(told.ok().contains(&format!("no longer permits {plain}")), "{}", told.text);
    let records = rig.records("session.network");
    assert!(records.iter().any(|record| record["detail"]["dropped"] == json!([plain])), "{records:?}");
    drop(client);
    rig.installation.kill_server();
    // With nothing left there is still a proxy, which says so.
    rig.configure("");
    let mut client = rig.client();
    assert!(ask(&mut client, &session, &encrypted).contains("said 403"));
    assert_eq!(network(&mut client, &session).0, Value::Null);
    client.tool("session_create", json!({"network": {"allow": [plain]}})).code("PERMISSION_DENIED");
}

/// A file with rules, and the line of the configuration that names it.
fn rules(rig: &Rig, text: &str) -> (PathBuf, String) {
    let path = rig.installation.outside().join("policy.toml");
    std::fs::write(&path, text).expect("a directory of ours");
    let line = format!("policy = '{}'\n", path.display());
    (path, line)
}

const DENIED: &str = "[[rule]]\nname = 'closed'\neffect = 'deny'\nhost = '127.0.0.2'\nreason = 'moved'\n";

#[test]
fn rules_about_hosts_hold_for_new_sessions_and_once_they_are_stricter_for_those_that_are_there() {
    let rig = Rig::new(User::Myself);
    let (path, line) = rules(&rig, "[[rule]]\nname = 'other'\neffect = 'deny'\nhost = 'other.example'\n");
    let (plain, encrypted) = (rig.plain.host(), rig.encrypted.host());
    rig.configure(&format!("egress_private_hosts = '{plain}, {encrypted}'\negress_hosts = 'other.example'\n{line}"));
    let mut client = rig.client();
    let denied = client.tool("session_create", json!({"network": {"allow": [plain, "other.example"]}}));
    assert!(denied.code("PERMISSION_DENIED").contains("other"), "{}", denied.text);
    let session = rig.session(&mut client, &[&plain]);
    // A program that goes on while the rules change loses its connections, too.
    let going_on = format!(
        "{ASK}import time\nwhile ask('http://{plain}/going-on')[0] != 403: time.sleep(0.05)\nprint('was refused')\n"
    );
    let begun = client.tool("run_python", json!({"session_id": session, "code": going_on, "background": true}));
    poll_until("it reaches the host", LONG, || {
        rig.plain.log().iter().any(|line| line.contains("going-on")).then_some(())
    });
    std::fs::write(&path, DENIED).expect("a directory of ours");
    signal(rig.installation.server_pid().expect("a server runs"), Signal::HUP);
    let task = begun.meta["codegen/task_id"].clone();
    let ended = client.tool("task_wait", json!({"task_id": task, "timeout_seconds": 60}));
    assert!(ended.text.contains("was refused"), "{}", ended.text);
    assert!(ask(&mut client, &session, &plain).contains("said 403"));
    assert_eq!(network(&mut client, &session), (Value::Null, json!([plain])));
    // So it does for a session that is opened again.
    drop(client);
    rig.installation.kill_server();
    let mut client = rig.client();
    assert!(ask(&mut client, &session, &plain).contains("said 403"));
    let log = rig.plain.log();
    assert!(!log.iter().any(|line| line.contains("/asked")), "{log:?}");
    // And what is permitted again is reached again.
    std::fs::write(&path, "").expect("a directory of ours");
    signal(rig.installation.server_pid().expect("a server runs"), Signal::HUP);
    poll_until("it reaches the host", LONG, || ask(&mut client, &session, &plain).contains("said 200").then_some(()));
}

#[test]
fn a_secret_that_is_set_again_or_removed_is_another_one_or_none_for_a_session_that_is_open() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let host = rig.encrypted.host();
    rig.keep("token", &host, "first-value");
    let made = client.tool("session_create", json!({"network": {"allow": [host], "secrets": ["token"]}}));
    made.ok();
    let session = made.structured["session_id"].as_str().expect("a handle").to_owned();
    let certificate = std::fs::read_to_string(&rig.authority).expect("a certificate");
    client.tool("fs_write", json!({"session_id": session, "path": "ca.pem", "contents": certificate})).ok();
    let mut token = |code: &str| {
        let asked = format!(
            "import json, os, urllib.request\n{code}\n\
             answer = json.loads(urllib.request.urlopen('https://{host}/', timeout=20).read())\n\
             print('token', [v for n, v in answer['headers'] if n.lower() == 'x-token'])\n"
        );
        let answer = client
            .tool("run_python", json!({"session_id": session, "code": asked, "kernel": "k", "timeout_seconds": 60}));
        answer.text
    };
    // The kernel shows that the session goes on as it is: nothing in it is ended.
    assert!(token("kept = 41").contains("token ['first-value']"));
    rig.keep("token", &host, "second-value");
    let text = token("print(kept + 1)");
    assert!(text.contains("token ['second-value']") && text.contains("42"), "{text}");
    let removed = rig.installation.run(["secrets", "rm", "token"]);
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    // The host answers for itself then, by a certificate that the program was given.
    let text = token(
        "print(kept + 1)\nimport ssl\nssl._create_default_https_context = lambda: ssl.create_default_context(cafile='ca.pem')",
    );
    assert!(text.contains("token []") && text.contains("42"), "{text}");
    let records = rig.records("session.network");
    for secrets in [json!(["token"]), json!([])] {
        let is_told = |record: &Value| record["detail"]["network"]["secrets"] == secrets;
        assert!(records.iter().any(is_told), "{secrets}: {records:?}");
    }
    assert!(!format!("{records:?}").contains("value"), "no record says what a secret is");
}

#[test]
fn contacts_after_the_last_program_of_a_session_are_in_the_log_and_the_receipt() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let (plain, foreign) = (rig.plain.host(), rig.foreign.host());
    let late = format!(
        "{ASK}import os, threading, time\n\
         def late():\n    \
             while not os.path.exists('go'): time.sleep(0.02)\n    \
             ask('http://{foreign}/')\n    \
             ask('http://{plain}/late')\n\
         threading.Thread(target=late).start()\nprint('begun')\n"
    );
    for server_stops in [false, true] {
        let session = rig.session(&mut client, &[&plain]);
        let begun = client.tool("run_python", json!({"session_id": session, "code": late, "kernel": "k"}));
        assert!(begun.ok().contains("begun"), "{}", begun.text);
        let before = rig.plain.log().len();
        client.tool("fs_write", json!({"session_id": session, "path": "go", "contents": ""})).ok();
        poll_until("the thread has asked", LONG, || (rig.plain.log().len() > before).then_some(()));
        if server_stops {
            drop(client);
            rig.installation.stop_server();
            client = rig.client();
        } else {
            client.tool("session_close", json!({"session_id": session})).ok();
        }
        let records = poll_until("the record", LONG, || {
            let records = rig.records("session.network");
            let of_it: Vec<_> = records.into_iter().filter(|record| record["session"] == session.as_str()).collect();
            (!of_it.is_empty()).then_some(of_it)
        });
        let contacts = records[0]["detail"]["contacts"].as_array().expect("contacts").clone();
        let outcome = |host: &str| contacts.iter().find(|one| one["host"] == host).map(|one| one["outcome"].clone());
        assert_eq!(outcome(&plain), Some(json!("reached")), "{contacts:?}");
        assert_eq!(outcome(&foreign), Some(json!("refused")), "{contacts:?}");
        if server_stops {
            let told = client.tool("session_info", json!({"session_id": session}));
            let receipt = &told.structured["receipt"];
            let [reached, refused] = ["hosts", "hosts_refused"].map(|name| receipt[name].to_string());
            assert!(reached.contains(&plain) && refused.contains(&foreign), "{receipt}");
        }
    }
}
