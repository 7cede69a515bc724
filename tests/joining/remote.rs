//! A worker on another host, as far as processes tell.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use e2e::{Client, Fleet, Launched, descendants, poll_until};
use rustix::process::Signal;
use serde_json::json;

/// How long what must happen may take.
pub const LONG: Duration = Duration::from_secs(30);

/// A new session, once there is a worker that takes it.
pub fn session(client: &mut Client) -> String {
    poll_until("a worker takes sessions", LONG, || {
        let made = client.tool("session_create", json!({}));
        made.structured["session_id"].as_str().map(str::to_owned)
    })
}

/// What Python code prints in a session.
pub fn python(client: &mut Client, session: &str, code: &str) -> String {
    client.tool("run_python", json!({"session_id": session, "code": code})).ok().to_owned()
}

#[test]
fn code_of_a_client_runs_on_a_worker_that_joined_with_a_token() {
    let mut fleet = Fleet::start(&[]);
    fleet.address();
    let token = fleet.token("token", &[]);
    let _worker = fleet.worker("far", &token, &[]);
    let mut client = fleet.client();
    let session = session(&mut client);
    let said = python(&mut client, &session, "open('a', 'w').write('1'); print(6 * 7)");
    assert!(said.contains("42"), "{said}");
    assert!(fleet.workspaces("far").join(&session).join("a").is_file(), "its files are the worker's");
}

#[test]
fn nothing_of_a_workers_environment_and_no_token_is_in_any_process_of_it() {
    let mut fleet = Fleet::start(&[]);
    fleet.address();
    let token = fleet.token("token", &[]);
    let mut command = fleet.worker_command("far", &token, [] as [&str; 0]);
    command.env("HTTPS_PROXY", "http://user:proxy-secret@127.0.0.1:1").env("CLOUD_SECRET", "cloud-secret");
    let mut worker = Launched::start(command);
    worker.says("joined coordinator=");
    let mut client = fleet.client();
    let session = session(&mut client);
    python(&mut client, &session, "1");
    let text = fs::read_to_string(&token).expect("a token");
    let processes: Vec<u32> = descendants(worker.pid()).into_iter().chain([worker.pid()]).collect();
    assert!(processes.len() > 2, "the launcher and a sandbox are among them");
    for pid in processes {
        for file in ["environ", "cmdline"] {
            // A process may have ended meanwhile.
            let Ok(bytes) = fs::read(format!("/proc/{pid}/{file}")) else { continue };
            let said = String::from_utf8_lossy(&bytes);
            assert!(!said.contains("secret") && !said.contains(text.trim()), "{pid}: {said}");
        }
    }
    let inside = "import os\nprint(dict(os.environ))\ntry: print(open('/proc/1/environ').read())\nexcept OSError: pass";
    let said = python(&mut client, &session, inside);
    assert!(!said.contains("secret") && !said.contains("PROXY"), "{said}");
}

#[test]
fn what_a_worker_lacks_to_join_is_said_at_once() {
    let mut fleet = Fleet::start(&[]);
    fleet.address();
    let token = fleet.token("token", &[]);
    let refusal = |fleet: &mut Fleet, name: &str, arguments: &[&str]| {
        let output = fleet.worker_command(name, &token, arguments).output().expect("it starts");
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (arguments, part) in [
        (&["--label", "zone"][..], "NAME=VALUE"),
        (&["--max-sessions", "0"], "MAX_SESSIONS"),
        (&["--isolation-minimum", "none"], "ISOLATION_MINIMUM"),
        (&["--tls-cert", "/nowhere.pem"], "--tls-key"),
        (&["--advertise", "somewhere"], "HOST:PORT"),
        (&["--advertise", "10.0.0.1:7000"], "--insecure-plaintext"),
        (&["--drain-timeout", "soon"], "DRAIN_TIMEOUT"),
    ] {
        let said = refusal(&mut fleet, "far", arguments);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    assert!(refusal(&mut fleet, "embedded", &[]).contains("WORKER_ID"));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).expect("permissions");
    assert!(refusal(&mut fleet, "far", &[]).contains("0644"));
}

#[test]
fn a_worker_joins_again_with_a_token_that_replaces_a_revoked_one() {
    let mut fleet = Fleet::start(&[]);
    fleet.address();
    let token = fleet.token("token", &["--worker-id", "far"]);
    let mut stranger = Launched::start(fleet.worker_command("other", &token, [] as [&str; 0]));
    stranger.says("may not join");
    drop(stranger);
    let mut worker = fleet.worker("far", &token, &[]);
    let listed = fleet.installation().run(["tokens", "ls", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let id = listed[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(listed[0]["principal"], "worker:far");
    assert!(fleet.installation().run(["tokens", "revoke", &id]).status.success());
    worker.says("the coordinator cannot be spoken to");
    let before = worker.said().matches("joined coordinator").count();
    fleet.token("token", &["--worker-id", "far"]);
    poll_until("it joins again", LONG, || (worker.said().matches("joined coordinator").count() > before).then_some(()));
    let mut client = fleet.client();
    let session = session(&mut client);
    assert!(python(&mut client, &session, "print(6 * 7)").contains("42"));
}

#[test]
fn a_worker_that_is_dialled_serves_who_shows_its_ticket() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let address = format!("127.0.0.1:{port}");
    let mut fleet = Fleet::start(&["--advertise-allow", "127.0.0.0/8"]);
    fleet.address();
    let token = fleet.token("token", &[]);
    let arguments = ["--advertise", &address, "--listen", &address];
    let mut worker = fleet.worker("far", &token, &arguments);
    let mut client = fleet.client();
    let session = session(&mut client);
    assert!(python(&mut client, &session, "print(6 * 7)").contains("42"));
    let mut stranger = std::net::TcpStream::connect(&address).expect("it listens");
    use std::io::{Read, Write};
    // While the link is up nobody is waited for, and whoever calls is turned away unheard.
    let mut said = String::new();
    let _closed = stranger.write_all(b"codegen-link/1 guess inc_0\n").and_then(|()| stranger.read_to_string(&mut said));
    assert!(said.is_empty(), "{said}");
    worker.signal(Signal::TERM);
    assert!(worker.wait(LONG).success());
}

#[test]
fn an_address_that_the_operator_does_not_permit_is_not_dialled() {
    let mut fleet = Fleet::start(&[]);
    fleet.address();
    let token = fleet.token("token", &[]);
    let arguments = ["--advertise", "127.0.0.1:9", "--listen", "127.0.0.1:0"];
    let mut worker = Launched::start(fleet.worker_command("far", &token, arguments));
    worker.says("--advertise-allow");
}
