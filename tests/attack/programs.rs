//! Attacks by programs in a session, one class after the other.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::ground::{Ground, HOST_SECRET, Listeners, columns};
use crate::table::{Outcome, Table};

const REPORT: &str = include_str!("programs/report.py");

/// The rules on system calls of this architecture, and how each is tried.
#[cfg(target_arch = "x86_64")]
const POLICY: &str = include_str!("../../worker/sandbox/src/layers/seccomp/policy/x86_64.toml");
#[cfg(target_arch = "aarch64")]
const POLICY: &str = include_str!("../../worker/sandbox/src/layers/seccomp/policy/aarch64.toml");
const ATTEMPTS: &str = include_str!("../../worker/sandbox/src/layers/seccomp/policy/attempts.toml");

/// Makes all attacks of a class at every level.
fn attack(class: &'static str, program: &str) {
    let (columns, mut table) = (columns(), Table::of(class));
    for column in &columns {
        let mut ground = Ground::prepare(*column);
        let code = [&ground.facts(&denied(column.level)), REPORT, program].join("\n");
        let answer = ground.attack(&code, 300.0);
        assert!(answer.text.contains("all attacks were made"), "{class}, {}: {}", column.name, answer.text);
        for line in answer.text.lines().filter(|line| line.starts_with("{\"attack\"")) {
            let said: Value = serde_json::from_str(line).expect("JSON");
            table.add(said["attack"].as_str().expect("a name"), *column, judged(&said, column.level));
        }
        // More than an answer holds, so that the worker keeps the whole in the workspace.
        let long = ground.attack("print('x' * 500_000)", 60.0);
        assert!(long.text.contains("xxxx"), "{class}, {}: {}", column.name, long.text);
        ground.expect_unharmed(class);
    }
    table.judge(&columns);
}

/// What an attack says of itself, against what its level promises.
fn judged(said: &Value, level: &str) -> Outcome {
    let how = said["how"].as_str().unwrap_or_default().to_owned();
    let promised = !said["unless"].as_array().expect("levels").contains(&json!(level));
    match (said["broken"].as_str(), said["stopped"].as_bool()) {
        (Some(broken), _) => Outcome::Failed(format!("the attack is wrong: {broken}")),
        (None, Some(true)) => Outcome::Stopped(how),
        (None, _) if promised => Outcome::Failed(how),
        (None, _) => Outcome::NotPromised(how),
    }
}

/// Every call that is denied at a level: its name, number, arguments and what it must be answered.
fn denied(level: &str) -> Value {
    let (policy, attempts): (toml::Table, toml::Table) =
        (POLICY.parse().expect("TOML"), ATTEMPTS.parse().expect("TOML"));
    let sections = if level == "full" { vec!["always"] } else { vec!["always", "below_full"] };
    let mut denied = Vec::new();
    for section in sections {
        let rules = policy[section].as_array().expect("rules");
        for (index, rule) in rules.iter().enumerate() {
            let is_same = |other: &&toml::Value| other["call"] == rule["call"];
            let way = rules[..index].iter().filter(is_same).count();
            let attempts = attempts[section].as_array().expect("attempts").iter();
            let attempt = attempts.filter(is_same).nth(way).expect("an attempt");
            let condition = rule.get("when").and_then(toml::Value::as_array).into_iter().flatten();
            let when = condition.filter_map(toml::Value::as_str).collect::<Vec<_>>().join(", ");
            let name = format!("{} {when}", rule["call"].as_str().expect("a name"));
            let answer = rule.get("answer").and_then(toml::Value::as_str).unwrap_or("EPERM");
            denied.push(json!([name.trim_end(), rule["number"], attempt["with"], answer]));
        }
    }
    json!(denied)
}

#[test]
fn no_program_escapes_to_the_host() {
    attack("escape", include_str!("programs/escape.py"));
}

#[test]
fn no_program_reaches_another_session() {
    attack("sibling session", include_str!("programs/sibling.py"));
}

#[test]
fn no_program_reads_traces_or_signals_the_worker_or_its_guards() {
    attack("worker", include_str!("programs/worker.py"));
}

#[test]
fn no_program_reaches_a_control_socket_or_the_network() {
    attack("sockets", include_str!("programs/sockets.py"));
}

#[test]
fn no_interface_of_the_kernel_is_left_open() {
    attack("kernel", include_str!("programs/kernel.py"));
}

#[test]
fn no_program_forges_what_the_product_says() {
    attack("forgery", include_str!("programs/forgery.py"));
}

/// An attack that succeeds nowhere proves nothing: outside a sandbox these come through.
#[test]
fn the_same_attacks_come_through_outside_a_sandbox() {
    let directory = tempfile::tempdir().expect("a directory");
    let secret = directory.path().join("secret.txt");
    std::fs::write(&secret, HOST_SECRET).expect("a file");
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("permissions");
    let here = directory.path().join("workspace");
    std::fs::create_dir(&here).expect("a directory");
    let kept = directory.path().join("state.db");
    std::fs::write(&kept, "").expect("a file");
    let listeners = Listeners::open();
    let facts = json!({
        "secret_file": secret, "outside_dir": here, "state_dir": directory.path(), "state_files": [kept], "pids": [], "grpc_port": 9,
        "tcp_port": listeners.tcp_port(), "udp_port": listeners.udp_port(), "abstract": [listeners.name()],
    });
    let facts = format!("import json, os\nFACTS = json.loads({:?})\n", facts.to_string());
    let mut through = Vec::new();
    for program in [include_str!("programs/escape.py"), include_str!("programs/sockets.py")] {
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-I", "-c", &[&facts, REPORT, program].join("\n")]).current_dir(&here);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&here, Some(1_000), Some(1_000)).expect("chown");
            python.uid(1_000).gid(1_000);
        }
        let said = String::from_utf8(python.output().expect("python3 of the system").stdout).expect("text");
        assert!(said.contains("all attacks were made"), "{said}");
        let said = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        through.extend(
            said.filter(|said| said["stopped"] == false).map(|said| said["attack"].as_str().map(str::to_owned)),
        );
    }
    for attack in [
        "read a file of the host by its path",
        "list the state directory",
        "read or write tokens, secrets, keys, records and locks of the server",
        "climb out of the workspace by ..",
        "reach the host's root through /proc",
        "change modes, owners or times of files outside the workspace",
        "connect to a server on the host's loopback",
        "connect to abstract sockets of the host",
        "send datagrams, and descriptors with them, from an end of a pair",
        "sockets of every other family",
        "see addresses and routes of the host",
    ] {
        assert!(
            through.contains(&Some(attack.to_owned())),
            "{attack}: stopped by nobody's doing; through: {through:?}"
        );
    }
    assert_eq!(listeners.heard(), ["TCP", "UDP", "an abstract socket", "one of datagrams"]);
}
