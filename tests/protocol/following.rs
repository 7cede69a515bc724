//! Who follows something is told as it happens, and no more once that is not theirs; what nobody waited for is done all the
//! same.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

use e2e::Installation;
use serde_json::{Value, json};

use crate::sharing::{PATIENCE, Server, text, token};

/// An operator's command that goes on, and what it prints. Dropping it ends it.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(installation: &Installation, arguments: &[&str]) -> Self {
        let mut child = installation.command(arguments).stdout(Stdio::piped()).spawn().expect("the command starts");
        let stdout = child.stdout.take().expect("a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _nobody_listens = sender.send(line);
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE).expect("a line in time");
        serde_json::from_str(&line).expect("JSON")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn made(server: &Server, token: &str, arguments: Value) -> String {
    let made = server.tool(token, "session_create", arguments);
    made["structuredContent"]["session_id"].as_str().unwrap_or_else(|| panic!("a handle: {made}")).to_owned()
}

#[test]
fn requests_are_shown_as_they_end_and_only_those_that_are_asked_for() {
    let installation = Installation::new();
    let (ann, bob) = (token(&installation, "ann"), token(&installation, "bob"));
    let server = Server::start(&installation);
    let following = Following::start(&installation, &["requests", "--follow", "--json", "--principal", "ann"]);
    let session = made(&server, &ann, json!({}));
    assert_eq!(following.next()["tool"], "session_create");
    for (round, (command, outcome)) in [("true", "ok"), ("exit 3", "failed")].into_iter().enumerate() {
        server.tool(&bob, "echo", json!({"message": "of somebody else"}));
        server.tool(&ann, "run_shell", json!({"session_id": session, "command": command}));
        let shown = following.next();
        assert_eq!((&shown["tool"], &shown["principal"]), (&json!("run_shell"), &json!("ann")), "{shown}");
        assert_eq!((&shown["session"], &shown["status"]), (&json!(session), &json!(outcome)), "round {round}: {shown}");
    }
}

#[test]
fn a_subscription_tells_nothing_more_of_a_session_that_is_not_shared_any_more() {
    let installation = Installation::new();
    let (ann, bob) = (token(&installation, "ann"), token(&installation, "bob"));
    let server = Server::start(&installation);
    let (of_ann, of_bob) = (made(&server, &ann, json!({})), made(&server, &bob, json!({})));
    let here = json!({"session_id": of_ann, "principal": "bob", "role": "observer"});
    server.tool(&ann, "session_share", here);
    let (theirs, own) = (format!("transcript://{of_ann}"), format!("transcript://{of_bob}"));
    let filter = json!({"resourceSubscriptions": [theirs, own]});
    let mut stream = server.send(&bob, "subscriptions/listen", json!({"notifications": filter}));
    let mut until = |part: &str| {
        let mut said = String::new();
        while !said.contains(part) {
            assert_ne!(stream.read_line(&mut said).expect("a stream"), 0, "the stream is open: {said}");
        }
        said
    };
    until("acknowledged");
    let run = |token: &str, session: &str| {
        let ran = server.tool(token, "run_shell", json!({"session_id": session, "command": "echo here"}));
        assert!(text(&ran).contains("here"), "{ran}");
    };
    run(&ann, &of_ann);
    until(&theirs);
    server.tool(&ann, "session_unshare", json!({"session_id": of_ann, "principal": "bob"}));
    // Some notices of before may still come; the next of his own ends them.
    run(&bob, &of_bob);
    until(&own);
    run(&ann, &of_ann);
    run(&bob, &of_bob);
    let said = until(&own);
    assert!(!said.contains(&of_ann), "{said}");
}

#[test]
fn what_a_call_made_whose_client_went_away_is_found_by_its_key() {
    const CALLS: usize = 6;
    let installation = Installation::new();
    let ann = token(&installation, "ann");
    let server = Server::start(&installation);
    let call = |number: usize| json!({"idempotency_key": format!("key {number}"), "name": format!("session {number}")});
    for number in 0..CALLS {
        drop(server.send(&ann, "tools/call", json!({"name": "session_create", "arguments": call(number)})));
    }
    let handles: Vec<String> = (0..CALLS).map(|number| made(&server, &ann, call(number))).collect();
    let again: Vec<String> = (0..CALLS).map(|number| made(&server, &ann, call(number))).collect();
    assert_eq!(handles, again, "a key names one session");
    let listed = server.tool(&ann, "session_list", json!({}));
    let sessions = listed["structuredContent"]["sessions"].as_array().expect("a list");
    assert_eq!(sessions.len(), CALLS, "{listed}");
}
