//! Sessions in containers that can make no namespace, and in one that can, as docker/README.md says to run them.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use e2e::{Client, Exhaustion, Facts, LOOK, Sides, limits_at};
use serde_json::{Value, json};

use crate::documented::Documented;
use crate::engine::{CONFINED, Engine};

/// What one session takes all of in a container; all the rest is taken on the host, in `tests/attack`.
const EXHAUSTED: [&str; 6] = [
    "memory, in one process",
    "memory, in many processes",
    "processes, by a fork bomb",
    "bytes of the workspace",
    "files of the workspace",
    "bytes of /tmp",
];

/// The documented command for a level, with room for two sessions where they share a user id.
fn documented(level: &str) -> Documented {
    let documented = Documented::of(level);
    if level == "reduced" { documented.with(["--env", "REDUCED_SESSIONS=2"]) } else { documented }
}

fn new_session(client: &mut Client, level: &str) -> String {
    let made = client.tool("session_create", json!({})).structured;
    assert_eq!(made["isolation"]["level"], level, "{made}");
    made["session_id"].as_str().expect("a handle").to_owned()
}

fn sessions_work_and_are_apart(level: &str) {
    let Some(engine) = Engine::at_hand() else { return };
    // What the command does not take away already, an ordinary user's container can do without.
    let confined: &[&str] = if level == "portable" { &[] } else { &CONFINED };
    let mut client = documented(level).with(confined).client(&engine, &[]);
    let (one, other) = (new_session(&mut client, level), new_session(&mut client, level));
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

/// Each layer with its state, as a doctor or a session lists them.
fn states(isolation: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().expect("a word").to_owned();
    let layers = isolation["layers"].as_array().expect("layers");
    layers.iter().map(|row| (text(&row["layer"]), text(&row["state"]))).collect()
}

fn one_session_exhausts_what_is_limited_and_its_neighbour_works_on(level: &str) {
    let Some(engine) = Engine::at_hand() else { return };
    let mut config = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
    config.write_all(limits_at(level).as_bytes()).expect("it is written");
    config.as_file().set_permissions(Permissions::from_mode(0o644)).expect("permissions");
    let volume = format!("{}:/etc/codegen.toml:ro", config.path().display());
    let container = documented(level).with(["--volume", &volume]);
    let mut client = container.client(&engine, &["--config", "/etc/codegen.toml"]);
    let (attacker, neighbour) = (new_session(&mut client, level), new_session(&mut client, level));
    let kernel = |code: &str| json!({"session_id": neighbour, "kernel": "k", "code": code});
    client.tool("run_python", kernel("n = 41")).ok();
    for exhaustion in EXHAUSTED.map(Exhaustion::named) {
        let sides = Sides { attacker: &attacker, neighbour: &neighbour };
        let told = exhaustion.befall(&mut client, sides);
        assert!(told.is_ok() || exhaustion.is_shared_at(level), "{level}: {}: {told:?}", exhaustion.of);
    }
    // Only in the same life of the worker.
    assert!(client.tool("run_python", kernel("n + 1")).ok().contains("42"), "{level}");

    let doctor = container.printed(&engine, "coordinator", &["worker", "doctor", "--json"]);
    let isolation = serde_json::from_slice::<Value>(&doctor).expect("JSON")["isolation"].clone();
    Facts::of(&container.printed(&engine, "python3", &["-I", "-c", LOOK])).expect_documented(level, &isolation);
    let info = client.tool("session_info", json!({"session_id": attacker})).structured;
    assert_eq!(states(&info["isolation"]), states(&isolation), "{level}: a session has what the doctor says");
    assert!(client.close().success());
}

#[test]
fn a_default_container_of_root_isolates_at_level_portable() {
    sessions_work_and_are_apart("portable");
}

#[test]
fn a_container_of_uid_1000_with_the_two_options_isolates_fully() {
    sessions_work_and_are_apart("full");
}

#[test]
fn limits_hold_in_a_default_container_of_root_as_its_doctor_says() {
    one_session_exhausts_what_is_limited_and_its_neighbour_works_on("portable");
}

/// One test, since the kernel counts the processes of all containers of UID 1000 together.
#[test]
fn a_default_container_of_uid_1000_isolates_at_level_reduced_and_limits_hold_in_it_as_its_doctor_says() {
    sessions_work_and_are_apart("reduced");
    one_session_exhausts_what_is_limited_and_its_neighbour_works_on("reduced");
}

#[test]
fn limits_hold_in_a_container_of_uid_1000_with_the_two_options_as_its_doctor_says() {
    one_session_exhausts_what_is_limited_and_its_neighbour_works_on("full");
}
