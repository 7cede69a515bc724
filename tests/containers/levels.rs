//! Sessions in containers that can make no namespace, and in one that can.

use e2e::Client;
use serde_json::{Value, json};

use crate::engine::{CONFINED, COORDINATOR, Engine, full};

/// What `docker run` is given for a level, and what the server in it is.
fn options(level: &str) -> (Vec<String>, Vec<&'static str>) {
    let plain = |options: &[&str]| options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>();
    match level {
        "full" => (full(), vec!["--standalone"]),
        "portable" => {
            let four = ["--cap-add", "SETUID", "--cap-add", "SETGID", "--cap-add", "CHOWN", "--cap-add", "KILL"];
            let mut options = plain(&["--user", "0", "--cap-drop", "ALL"]);
            options.extend(plain(&four));
            options.extend(plain(&["--env", "ISOLATION_MINIMUM=portable", "--tmpfs", "/srv:mode=755,exec"]));
            (options, vec!["--standalone", "--state-dir", "/srv/codegen"])
        }
        _ => (plain(&["--env", "ISOLATION_MINIMUM=reduced", "--env", "REDUCED_SESSIONS=2"]), vec!["--standalone"]),
    }
}

fn client(engine: &Engine, level: &str) -> Client {
    let (options, server) = options(level);
    let mut arguments = vec!["run", "--interactive", "--rm"];
    arguments.extend(options.iter().map(String::as_str));
    if level != "portable" {
        arguments.extend(CONFINED);
    }
    arguments.push(COORDINATOR);
    arguments.extend(server);
    let mut client = Client::launch(engine.docker(arguments));
    client.initialize("2025-11-25");
    client
}

fn sessions_work_and_are_apart(level: &str) {
    let Some(engine) = Engine::at_hand() else { return };
    let mut client = client(&engine, level);
    let mut new_session = || {
        let made = client.tool("session_create", json!({})).structured;
        assert_eq!(made["isolation"]["level"], level, "{made}");
        made["session_id"].as_str().expect("a handle").to_owned()
    };
    let (one, other) = (new_session(), new_session());
    let mut tool = |session: &str, name: &str, mut arguments: Value| {
        arguments["session_id"] = json!(session);
        client.tool(name, arguments).ok().to_owned()
    };
    assert!(tool(&one, "run_python", json!({"code": "print(6 * 7)"})).contains("42"));
    let place =
        tool(&one, "run_shell", json!({"command": "echo sibling-secret > secret.txt; chmod 644 secret.txt; pwd"}));
    let place = place.lines().find(|line| line.starts_with('/')).expect("a path").to_owned();
    assert!(tool(&one, "fs_read", json!({"path": "secret.txt"})).contains("sibling-secret"));
    tool(&one, "run_python", json!({"code": "n = 41", "kernel": "k"}));
    let attack = format!(
        "import os, socket\n\
         for path in ({place:?} + '/secret.txt', '/etc/shadow'):\n    \
         try: print('READ', path, 'sibling' in open(path).read())\n    except OSError: pass\n\
         for pid in (int(p) for p in os.listdir('/proc') if p.isdigit()):\n    \
         try: pid in (os.getpid(), os.getppid()) or os.kill(pid, 9) or print('KILLED', pid)\n    except OSError: pass\n\
         for family in (socket.AF_INET, socket.AF_INET6):\n    \
         try: s = socket.socket(family); s.settimeout(1); s.connect(('1.1.1.1' if family == 2 else '2606:4700::1111', 80)); print('REACHED')\n    \
         except OSError: pass\nprint('tried')"
    );
    let said = tool(&other, "run_python", json!({ "code": attack }));
    // At level full the same path is the attacker's own workspace, which has no such file.
    assert!(said.contains("tried") && !said.contains("READ") && !said.contains("REACHED"), "{level}: {said}");
    assert!(level == "full" || !said.contains("KILLED"), "{level}: {said}");
    assert!(tool(&one, "run_python", json!({"code": "n + 1", "kernel": "k"})).contains("42"), "{level}");
    assert!(client.close().success());
}

#[test]
fn a_default_container_of_root_isolates_at_level_portable() {
    sessions_work_and_are_apart("portable");
}

#[test]
fn a_default_container_of_uid_1000_isolates_at_level_reduced() {
    sessions_work_and_are_apart("reduced");
}

#[test]
fn a_container_of_uid_1000_with_the_two_options_isolates_fully() {
    sessions_work_and_are_apart("full");
}
