//! Races: links and directories that are swapped while tools work on them, and processes that fork while they are ended.

use std::time::Duration;

use e2e::poll_until;
use serde_json::{Value, json};

use crate::ground::{Ground, HOST_SECRET, columns, levels};
use crate::table::{Outcome, Table};

/// How often each race is run: so often at least, and as often as `make attack` wants.
fn rounds() -> usize {
    std::env::var("ATTACK_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

/// Swaps a directory and a file with links that lead outside, as fast as it can, for some seconds.
const SWAPPING: &str = r#"
import ctypes, os, time
libc = ctypes.CDLL(None)
OUTSIDE = FACTS["outside_dir"].encode()
def swap(one, other):
    libc.renameat2(-100, one, -100, other, 2)
def fill(path):
    if not os.path.exists(path) or open(path).read() != "harmless": open(path, "w").write("harmless")
def drop(path):
    try: os.unlink(path)
    except IsADirectoryError:
        for name in os.listdir(path): os.unlink(path + "/" + name)
        os.rmdir(path)
    except FileNotFoundError: pass
def pair(one, other, target, make):
    """One of both is the real thing, the other a link outside, whatever the tools left of them."""
    links = [name for name in (one, other) if os.path.islink(name)]
    if len(links) != 1:
        for name in links[1:]: drop(name)
        if not links:
            drop(other); os.symlink(target, other); links = [other]
    make(other if links[0] == one else one)
def directory(path):
    os.makedirs(path, exist_ok=True)
    fill(path + "/secret.txt"); fill(path + "/deep")
    for name in os.listdir(path):
        if name not in ("secret.txt", "deep"): drop(path + "/" + name)
def make_again():
    drop("place2")
    pair("place", "way", OUTSIDE, directory)
    pair("artifacts", "elsewhere", OUTSIDE, directory)
    pair("secret.txt", "link", OUTSIDE + b"/secret.txt", fill)
make_again()
os.mkdir("kind"); open("kindfile", "w").write("harmless"); os.mkfifo("fifo")
open("swapping", "w").close()
end = time.monotonic() + SECONDS
while time.monotonic() < end:
    # What the tools took away while this looked is made the next time.
    try: make_again()
    except OSError: pass
    # A number that leaves each name at another thing every time.
    for _ in range(49):
        swap(b"place", b"way"); swap(b"artifacts", b"elsewhere"); swap(b"secret.txt", b"link"); swap(b"kind", b"kindfile"); swap(b"fifo", b"kindfile")
print("swapped")
"#;

#[test]
fn swapping_links_and_directories_under_the_file_tools_reaches_nothing_outside() {
    let (columns, mut table) = (columns(), Table::of("path races"));
    for column in &columns {
        let mut ground = Ground::prepare(*column);
        let seconds = 200;
        let code = format!("{}SECONDS = {seconds}\n{SWAPPING}", ground.facts(&json!([])));
        let call = json!({"session_id": ground.attacker, "code": code, "timeout_seconds": 240, "background": true});
        let task = ground.client.tool("run_python", call);
        let workspace = ground.workspace_of(&ground.attacker.clone());
        let swapping = workspace.join("swapping");
        poll_until("it swaps", Duration::from_secs(20), || swapping.exists().then_some(()));
        for (tool, arguments) in file_tools() {
            let (mut refused, mut done, mut round) = (0, 0, 0);
            // So long that the tool met both what it may work on and what it may not, where it can.
            let missing = |refused, done| done == 0 || (refused == 0 && can_be_refused(tool, &arguments));
            while round < rounds() || (missing(refused, done) && round < 10 * rounds()) {
                round += 1;
                let mut arguments = arguments.clone();
                arguments["session_id"] = json!(ground.attacker);
                let answer = ground.client.tool(tool, arguments);
                let shown = format!("{} {}", answer.text, answer.structured);
                assert!(!shown.contains(HOST_SECRET), "{tool}, round {round}: {shown}");
                refused += usize::from(answer.is_error);
                done += usize::from(!answer.is_error);
            }
            let name =
                format!("{tool} of {}", arguments["path"].as_str().or(arguments["from"].as_str()).unwrap_or("all"));
            let both = !missing(refused, done);
            let how = format!("{round} runs, {refused} refused");
            table.add(&name, *column, if both { Outcome::Stopped(how) } else { Outcome::Failed(how + ": no race") });
        }
        assert!(!task.is_error, "{}", task.text);
        let task = task.text.split_whitespace().find(|word| word.starts_with("task_")).unwrap_or_default().to_owned();
        ground
            .client
            .tool("task_cancel", json!({"task_id": task.trim_matches(|c: char| !c.is_alphanumeric() && c != '_')}));
        ground.expect_unharmed("path races");
    }
    table.judge(&columns);
}

/// A search passes links by, and a link can be described and deleted like anything else.
fn can_be_refused(tool: &str, arguments: &Value) -> bool {
    tool != "fs_search" && arguments["path"] != "way" && arguments["from"] != "place"
}

/// Each tool that works on a file, on what is swapped.
fn file_tools() -> Vec<(&'static str, Value)> {
    vec![
        ("fs_read", json!({"path": "place/secret.txt"})),
        ("fs_read", json!({"path": "secret.txt"})),
        ("fs_read", json!({"path": "kindfile"})),
        ("fs_list", json!({"path": "place"})),
        ("fs_stat", json!({"path": "place/secret.txt"})),
        ("fs_search", json!({"pattern": "secret"})),
        ("fs_write", json!({"path": "place/planted", "contents": "planted"})),
        ("fs_write", json!({"path": "secret.txt", "contents": "planted"})),
        ("fs_edit", json!({"path": "place/secret.txt", "old": "harmless", "new": "planted"})),
        ("fs_move", json!({"from": "place/deep", "to": "place/moved"})),
        ("fs_move", json!({"from": "place", "to": "place2"})),
        ("fs_delete", json!({"path": "place/secret.txt"})),
        ("fs_delete", json!({"path": "way", "recursive": true})),
        ("artifact_get", json!({"path": "artifacts/secret.txt"})),
    ]
}

/// Forks generation after generation, each in a session of its own, deaf, with nothing open; parents end at once.
const RABBITS: &str = r#"
import ctypes, os, signal
libc = ctypes.CDLL(None)
def run():
    libc.prctl(15, b"rabbit")
    os.setsid()
    os.closerange(0, 1024)
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    while True:
        try:
            if os.fork(): os._exit(0)
            os.setsid()
        except OSError: pass
for _ in range(8):
    if os.fork() == 0: run()
print("they run", flush=True)
"#;

/// The ways in which a program with such children ends: what it does then, the time it is given, and who ends it.
const ENDS: [(&str, &str, f64); 5] = [
    ("when their time is over", "while True: pass", 0.6),
    ("when their program ends", "", 10.0),
    ("when their program is killed", "os.kill(os.getpid(), signal.SIGKILL)", 10.0),
    (
        "when their program says itself that it is through, and goes on",
        "import json\nfor fd in map(int, os.listdir('/proc/self/fd')):\n    if fd > 2:\n        \
         try: os.write(fd, b'{\"code\":0,\"memory_peak_bytes\":1}')\n        except OSError: pass\nrun()",
        1.0,
    ),
    ("when their program ends their parents in a hurry", "os.kill(0, signal.SIGKILL)", 10.0),
];

#[test]
fn processes_that_fork_while_they_are_ended_do_not_survive() {
    let (columns, mut table) = (levels(), Table::of("survivors"));
    for column in &columns {
        let mut ground = Ground::prepare(*column);
        ground.facts(&json!([]));
        for tool in ["run_python", "run_shell"] {
            for (when, then, seconds) in ENDS {
                let code = format!("{RABBITS}{then}\n");
                for _ in 0..survivor_rounds() {
                    let mut call = json!({"session_id": ground.attacker, "timeout_seconds": seconds});
                    if tool == "run_python" {
                        call["code"] = json!(code);
                    } else {
                        ground
                            .client
                            .tool("fs_write", json!({"session_id": ground.attacker, "path": "r.py", "contents": code}))
                            .ok();
                        call["command"] = json!("exec python3 r.py");
                    }
                    ground.client.tool(tool, call);
                    expect_no_rabbit(&ground, &format!("{tool}, {when}"));
                }
                let how = format!("{} runs, none left", survivor_rounds());
                table.add(&format!("{tool}: {when}"), *column, Outcome::Stopped(how));
            }
        }
        ground.expect_unharmed("survivors");
        for round in 0..survivor_rounds() {
            if round > 0 {
                let made = ground.client.tool("session_create", json!({})).structured;
                ground.attacker = made["session_id"].as_str().expect("a handle").to_owned();
            }
            let code = RABBITS.to_owned() + "while True: pass";
            let call = json!({"session_id": ground.attacker, "code": code, "timeout_seconds": 60});
            let running = ground.client.start_tool("run_python", call);
            poll_until("they run", Duration::from_secs(20), || (!rabbits(&ground).is_empty()).then_some(()));
            ground.client.tool("session_close", json!({"session_id": ground.attacker})).ok();
            expect_no_rabbit(&ground, "session_close");
            ground.client.tool_answer(running);
        }
        let how = format!("{} runs, none left", survivor_rounds());
        table.add("when their session is closed", *column, Outcome::Stopped(how));
    }
    table.judge(&columns);
}

/// Each takes a second or more: fewer than of the other races, but no fewer than 20 where `make attack` asks for many.
fn survivor_rounds() -> usize {
    let of_all = rounds().div_ceil(5);
    if std::env::var_os("ATTACK_ROUNDS").is_some() { of_all.max(20) } else { of_all }
}

fn rabbits(ground: &Ground) -> Vec<u32> {
    let name = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    ground.processes().into_iter().filter(|pid| name(pid).trim() == "rabbit").collect()
}

/// What a killed program leaves is gone before its call is answered; what the machine still takes apart may show a moment.
fn expect_no_rabbit(ground: &Ground, when: &str) {
    poll_until(&format!("{}, {when}: no process is left", ground.column.name), Duration::from_secs(30), || {
        rabbits(ground).is_empty().then_some(())
    });
}
