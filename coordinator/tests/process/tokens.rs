//! Static tokens from the operator's side: made and revoked beside a running server and without one, shown once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::front::{Front, Place};

fn run(place: &Place, args: &[&str]) -> Result<Value, String> {
    let output = place.command(args).arg("--json").env("LOG_LEVEL", "trace").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    if output.status.success() { Ok(serde_json::from_slice(&output.stdout).unwrap()) } else { Err(stderr) }
}

fn states(place: &Place) -> Vec<(String, String)> {
    let listed = run(place, &["tokens", "ls"]).unwrap();
    let text = |token: &Value, name: &str| token[name].as_str().unwrap().to_owned();
    listed.as_array().unwrap().iter().map(|token| (text(token, "principal"), text(token, "state"))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
}

/// Every file below a directory that can be read, sockets left out.
fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries
        .flat_map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => contents(&entry.path()),
            kind if kind.is_file() => vec![(entry.path(), std::fs::read(entry.path()).unwrap())],
            _ => vec![],
        })
        .collect()
}

#[test]
fn tokens_are_made_and_revoked_beside_a_running_server_and_without_one() {
    let place = Place::new();
    assert_eq!(states(&place), []);
    let made = run(&place, &["tokens", "create", "--principal", "alice", "--expires", "30d", "--note", "ci"]).unwrap();
    assert_eq!((&made["scopes"], &made["note"]), (&json!(["tools", "sessions"]), &json!("ci")));
    let _front = place.client();
    assert_eq!(states(&place), pairs(&[("alice", "active")]));
    run(&place, &["tokens", "revoke", made["id"].as_str().unwrap()]).unwrap();
    run(&place, &["tokens", "create", "--principal", "bob", "--scope", "admin"]).unwrap();
    assert_eq!(states(&place), pairs(&[("alice", "revoked"), ("bob", "active")]));
    let query = place.command(&["audit", "query", "--json"]).output().unwrap();
    let records: Vec<Value> =
        String::from_utf8(query.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let changes: Vec<&Value> =
        records.iter().filter(|record| record["type"].as_str().unwrap().starts_with("token.")).collect();
    let said: Vec<_> = changes.iter().map(|record| (&record["type"], &record["detail"]["for"])).collect();
    let expected = [("token.created", "alice"), ("token.revoked", "alice"), ("token.created", "bob")]
        .map(|(kind, who)| (json!(kind), json!(who)));
    assert!(said.iter().copied().eq(expected.iter().map(|(kind, who)| (kind, who))), "{said:?}");
}

#[test]
fn a_token_is_shown_once_and_is_in_no_file() {
    let place = Place::new();
    let alone = run(&place, &["tokens", "create", "--principal", "alice"]).unwrap();
    let mut command = place.command(&[]);
    command.env("LOG_LEVEL", "trace");
    let mut front = Front::launch(command);
    front.greet();
    let served = run(&place, &["tokens", "create", "--principal", "alice"]).unwrap();
    run(&place, &["tokens", "revoke", served["id"].as_str().unwrap()]).unwrap();
    let listed = run(&place, &["tokens", "ls"]).unwrap().to_string();
    for made in [alone, served] {
        let text = made["token"].as_str().unwrap();
        let secret = text.rsplit('_').next().unwrap();
        assert_eq!(secret.len(), 72);
        assert!(!listed.contains(&secret[..64]));
        let files = contents(place.path());
        assert!(files.iter().any(|(path, _)| path.ends_with("state.db")));
        for (path, bytes) in files {
            let found = bytes.windows(32).any(|part| part == &secret.as_bytes()[..32]);
            assert!(!found, "{} has the secret", path.display());
        }
    }
}

#[test]
fn what_cannot_be_made_is_refused_with_the_reason() {
    let place = Place::new();
    let create = |more: &[&str]| run(&place, &[&["tokens", "create"], more].concat()).unwrap_err();
    assert!(create(&["--principal", "a b"]).contains("a principal has"));
    assert!(create(&["--principal", "alice", "--expires", "11years"]).contains("ten years"));
    assert!(create(&["--principal", "alice", "--expires", "0s"]).contains("one second"));
    assert!(create(&["--principal", "alice", "--scope", "root"]).contains("no such scope"));
    assert!(create(&["--principal", "alice", "--note", "a\nb"]).contains("one line"));
    assert!(run(&place, &["tokens", "revoke", "0123456789ab"]).unwrap_err().contains("there is no token"));
    assert_eq!(states(&place), []);
}

#[test]
fn a_server_answers_no_command_of_another_release_and_outlives_noise() {
    let place = Place::new();
    let _front = place.client();
    let asks = |line: &str| {
        let mut socket = UnixStream::connect(place.path().join("control.sock")).unwrap();
        let mut answer = String::new();
        // A connection that the server drops may be reset before all is written or read.
        let told = socket.write_all(line.as_bytes()).and_then(|()| BufReader::new(socket).read_line(&mut answer));
        told.map(|_| answer).unwrap_or_default()
    };
    let version = env!("CARGO_PKG_VERSION");
    let other: Value = serde_json::from_str(&asks("{\"version\":\"0.0.0\",\"ask\":\"tokens_list\"}\n")).unwrap();
    assert_eq!(other["other_version"], version);
    assert!(asks("no json\n").contains("INVALID_ARGUMENT"));
    assert!(asks(&format!("{{\"version\":\"{version}\",\"ask\":\"no_such\"}}\n")).contains("INVALID_ARGUMENT"));
    assert_eq!(asks(&format!("{}\n", "x".repeat(1 << 16))), "", "a line that is too long has no answer");
    assert_eq!(states(&place), []);
}
