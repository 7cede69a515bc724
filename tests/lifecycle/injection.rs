//! Text that is made to look like something else, in every field that a client or a program fills in: no record, line of the
//! diagnostics or line on the operator's terminal is forged by it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use e2e::{Client, Fleet, Installation};
use serde_json::{Value, json};

use super::disk::verified_records;

/// What stands at the beginning of a line only if somebody else's text put it there.
const FORGED: &str = "FORGED";

/// Newlines of every kind, a record, escapes of a terminal, and characters that hide or reorder what stands around them.
fn nasty() -> String {
    let record = r#"{"v":1,"seq":1,"type":"server.stopped"}"#;
    format!(
        "a\n{FORGED} {record}\r{FORGED}\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{85}{FORGED}\u{2028}{FORGED}\u{202e}b\u{2066}\
         \u{200b}\u{feff}\u{7f}\"}},\"hash\":\""
    )
}

fn is_deceptive(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Calls with the text in whatever can be named; most of them are refused, all of them are recorded.
fn say_everywhere(client: &mut Client, session: &Value, nasty: &str) {
    let say = |client: &mut Client, tool: &str, mut arguments: Value| {
        if arguments.get("session_id").is_none() {
            arguments["session_id"] = session.clone();
        }
        client.request("tools/call", json!({"name": tool, "arguments": arguments}));
    };
    say(client, "session_create", json!({"name": nasty, "idempotency_key": nasty}));
    say(client, "session_update", json!({"name": nasty}));
    say(client, "session_update", json!({"metadata": {nasty: nasty, "m": nasty}}));
    say(client, "session_share", json!({"with": nasty, "role": nasty}));
    for tool in ["fs_read", "fs_list", "fs_stat", "fs_delete", "artifact_get"] {
        say(client, tool, json!({"path": nasty}));
    }
    say(client, "fs_write", json!({"path": nasty, "contents": nasty}));
    say(client, "fs_write", json!({"path": "plain", "contents": nasty, "idempotency_key": nasty}));
    say(client, "fs_move", json!({"from": "plain", "to": nasty}));
    say(client, "fs_search", json!({"pattern": nasty}));
    say(client, "pkg_install", json!({"packages": [nasty], "index_url": nasty}));
    say(client, "run_code", json!({"language": nasty, "code": nasty}));
    say(client, "run_shell", json!({"command": format!("echo '{nasty}'; echo '{nasty}' >&2"), "idempotency_key": "k"}));
    say(client, "run_python", json!({"code": "pass", "kernel": nasty, "env": {nasty: nasty}}));
    say(client, "task_wait", json!({"task_id": nasty}));
    say(client, "session_info", json!({"session_id": nasty}));
    say(client, nasty, json!({nasty: nasty}));
    client.request(nasty, json!({nasty: nasty}));
    client.request("resources/read", json!({"uri": nasty}));
}

/// A program that says it on both streams, in its files' names and in its last words, and bytes that are no text.
fn program(nasty: &str) -> String {
    format!(
        "import os, sys\nnasty = {}\nos.write(1, b'\\xff\\xfe\\x1b[31m' + nasty.encode())\nos.write(2, nasty.encode() + b'\\x80')\n\
         for name in (nasty.replace('/', '_').encode(), b'\\xff\\xfe\\n{FORGED}'):\n    open(name[:200], 'w').close()\n\
         os.makedirs(nasty.replace('/', '_')[:40], exist_ok=True)\nraise ValueError(nasty)\n",
        json!(nasty)
    )
}

/// Every command that shows what clients and programs said, with and without `--json` where there are both.
fn commands<'a>(session: &'a str, task: &'a str) -> Vec<Vec<&'a str>> {
    let commands = [
        &["audit", "query"][..],
        &["audit", "tail"],
        &["audit", "show", "3"],
        &["audit", "verify"],
        &["requests"],
        &["usage"],
        &["usage", "--by", "tool"],
        &["sessions", "ls"],
        &["sessions", "show", session],
        &["tasks", "ls"],
        &["tasks", "show", task],
        &["workers", "ls"],
        &["workers", "show", "embedded"],
        &["approvals", "ls"],
        &["tokens", "ls"],
        &["secrets", "ls"],
        &["top"],
    ];
    let both = commands.iter().flat_map(|command| [command.to_vec(), [command, &["--json"][..]].concat()]);
    // Without it the output of a program goes to a pipe as it is.
    both.chain([vec!["top", "--once"], vec!["tasks", "logs", task, "--json"]]).collect()
}

/// What a command shows, once it is seen that nothing of it deceives.
fn shown(arguments: &[&str], output: Output) -> String {
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8([output.stdout, output.stderr].concat()).expect("the operator is shown text");
    let bad: Vec<&str> = shown.lines().filter(|line| line.starts_with(FORGED) || line.contains(is_deceptive)).collect();
    assert!(bad.is_empty(), "{arguments:?}: {bad:?}");
    shown
}

#[test]
fn nothing_that_a_client_or_a_program_says_forges_a_record_or_a_line_that_an_operator_reads() {
    let installation = Installation::new();
    let nasty = nasty();
    let mut client = installation.silent_client(["--debug"]);
    let info = json!({"name": nasty, "version": nasty, "title": nasty});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info});
    assert!(client.request("initialize", hello).get("result").is_some());
    let session = client.tool("session_create", json!({})).structured["session_id"].clone();
    client.tool("run_python", json!({"session_id": session, "code": program(&nasty)})).failed();
    say_everywhere(&mut client, &session, &nasty);
    let running = json!({"session_id": session, "command": format!("echo '{nasty}'; sleep 1000"), "background": true});
    let running = client.tool("run_shell", running);
    running.ok();
    let task = running.meta["codegen/task_id"].as_str().expect("a task").to_owned();
    let session = session.as_str().expect("a handle");

    for arguments in commands(session, &task) {
        shown(&arguments, installation.run(&arguments));
    }
    let whole = installation.run(["sessions", "show", session, "--json"]).stdout;
    let whole: Value = serde_json::from_slice(&whole).expect("JSON");
    assert_eq!(whole["metadata"]["m"], json!(nasty), "it is shown escaped, and means what was said");
    let records = verified_records(&installation);
    assert!(records.iter().all(|record| record["type"] != "server.stopped"), "a record of a program's making");
    let said = records.iter().filter(|record| record.to_string().contains(FORGED)).count();
    assert!(said > 10, "what was said is on record all the same: {said}");
    client.close();
    installation.stop_server();

    let lines = |dir: &str| -> Vec<String> {
        let files = fs::read_dir(installation.state_dir().join(dir)).expect("a directory").flatten();
        let texts = files.filter(|file| file.path().is_file()).map(|file| fs::read(file.path()).expect("a file"));
        let text = texts.map(|text| String::from_utf8(text).expect("text").replace('\0', "")).collect::<String>();
        text.split('\n').map(str::to_owned).collect()
    };
    for line in lines("audit").iter().filter(|line| line.starts_with('{')) {
        assert!(!line.contains(is_deceptive), "{line:?}");
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line:?}");
    }
    let diagnostics = lines("logs");
    assert!(diagnostics.len() > 3, "the server says something in its diagnostics: {diagnostics:?}");
    let bad = |line: &&String| line.starts_with(FORGED) || line.contains(is_deceptive);
    let bad: Vec<&String> = diagnostics.iter().filter(bad).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

/// Text that may be the name of a directory on a search path.
fn nasty_name() -> String {
    nasty().replace([':', '/', ','], "_")
}

/// A search path with a directory of a nasty name, in which there is what passes for an interpreter. It lies where sandboxes can be
/// shown it.
struct Planted {
    search_path: String,
    node: PathBuf,
    _directory: tempfile::TempDir,
}

impl Planted {
    fn new() -> Self {
        let home = if rustix::process::geteuid().is_root() { Some("/opt".into()) } else { std::env::home_dir() };
        let directory = tempfile::tempdir_in(home.expect("a home")).expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let bin = directory.path().join(nasty_name());
        let node = bin.join("node");
        fs::create_dir(&bin).expect("a directory");
        fs::write(&node, "#!/bin/sh\ncase $1 in -p) printf '%s' \"$0\" ;; *) echo v20.1.0 ;; esac\n")
            .expect("a program");
        fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).expect("permissions");
        let search_path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
        Self { search_path, node, _directory: directory }
    }

    fn is_among(&self, runtimes: &Value) -> bool {
        let found = runtimes.as_array().into_iter().flatten().filter_map(|runtime| runtime["path"].as_str());
        found.map(Path::new).any(|path| path == self.node)
    }
}

#[test]
fn no_label_of_a_worker_and_no_program_that_a_doctor_finds_deceives_a_terminal() {
    let planted = Planted::new();
    let mut fleet = Fleet::start(&[]);
    let installation = fleet.installation().clone();
    let doctor = |arguments: &[&str]| {
        let output = installation.bare_command(arguments).env("PATH", &planted.search_path).output();
        shown(arguments, output.expect("the binary starts"))
    };
    let of_worker = doctor(&["worker", "doctor", "--json"]);
    let of_worker: Value = serde_json::from_str(&of_worker).expect("JSON");
    assert!(planted.is_among(&of_worker["runtimes"]), "it is shown escaped, and means what was found: {of_worker}");
    assert!(doctor(&["worker", "doctor"]).contains(FORGED));
    let state = installation.state_dir().display().to_string();
    assert!(doctor(&["doctor", "--state-dir", &state]).contains(FORGED));
    assert!(doctor(&["doctor", "--json", "--state-dir", &state]).contains(FORGED));

    let token = fleet.token("token", &[]);
    // The worker itself takes no label with control characters.
    let label = format!("zone={FORGED}\u{202e}\u{2066}\u{200b}\u{feff}");
    let mut command = fleet.worker_command("near", &token, ["--label", &label]);
    command.env("PATH", &planted.search_path);
    let mut worker = e2e::Launched::start(command);
    worker.says("joined coordinator=");
    for arguments in [
        &["workers", "ls"][..],
        &["workers", "ls", "--json"],
        &["workers", "show", "near"],
        &["workers", "show", "near", "--json"],
        &["top", "--once"],
        &["top", "--json"],
        &["audit", "query", "--type", "worker.joined"],
        &["audit", "query", "--type", "worker.joined", "--json"],
    ] {
        let shown = shown(arguments, installation.run(arguments));
        let is_told = arguments[0] == "workers";
        assert!(!is_told || shown.contains(FORGED), "{arguments:?}: {shown}");
    }
    let detail = installation.run(["workers", "show", "near", "--json"]).stdout;
    let detail: Value = serde_json::from_slice(&detail).expect("JSON");
    assert!(planted.is_among(&detail["runtimes"]), "{detail}");
    assert!(!worker.said().contains(is_deceptive), "{:?}", worker.said());
}
