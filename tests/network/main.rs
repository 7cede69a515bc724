//! A coordinator and a worker at the two ends of a line that loses, delays and is cut: real processes, the kernel's own
//! TCP, each in a network namespace of its own.

mod line;

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::{Client, Installation, Launched, poll_until};
use serde_json::{Value, json};

use line::{End, HERE, Line, Weather};

/// No test waits longer than this for anything that must happen.
const LONG: Duration = Duration::from_secs(60);
/// Silence is noticed within seconds, and borne for longer.
const ATTENTIVE: [(&str, &str); 3] =
    [("WORKER_KEEP_ALIVE", "2s"), ("WORKER_RECONNECT_GRACE", "40s"), ("WORKER_HEARTBEAT_TIMEOUT", "80s")];
/// A connection that is open at one end only is noticed within so long, with the settings that everybody has.
const NOTICED: Duration = Duration::from_secs(20);
/// What looking takes.
const LOOKING: Duration = Duration::from_secs(2);

/// Writes down that it ran, says something, waits for a file, and says more.
const PATIENT: &str = "
import os, time
open('runs', 'a').write('ran\\n')
print('begun', flush=True)
while not os.path.exists('go'): time.sleep(0.02)
print('gone on')
";

/// Says three hundred lines, each by itself.
const TALKATIVE: &str = "
import time
open('runs', 'a').write('ran\\n')
for number in range(300):
    print('line', number, flush=True)
    time.sleep(0.01)
";

struct Rig {
    worker: Launched,
    _server: Launched,
    installation: Installation,
    line: Line,
}

impl Rig {
    fn at_hand(settings: &[(&str, &str)]) -> Option<Self> {
        let line = Line::at_hand()?;
        let installation = Installation::new();
        let address = format!("{HERE}:50050");
        let mut serve =
            installation.command(["serve", "--grpc", &address, "--no-embedded-worker", "--insecure-plaintext"]);
        serve.envs(settings.iter().copied());
        let mut server = Launched::start(line.at(End::Here, &serve));
        server.says("workers join at");
        let mut worker = Launched::start(line.at(End::There, &worker_command(&installation, &address)));
        worker.says("joined coordinator=");
        Some(Self { worker, _server: server, installation, line })
    }

    fn session(&self) -> (Client, Value) {
        let mut client = self.installation.client();
        let session = poll_until("the worker takes sessions", LONG, || {
            client.tool("session_create", json!({})).structured.get("session_id").cloned()
        });
        (client, session)
    }

    /// How often a program of this session wrote down that it ran.
    fn runs(&self, session: &Value) -> usize {
        let workspace = workspaces(&self.installation).join(session.as_str().expect("an id"));
        fs::read_to_string(workspace.join("runs")).unwrap_or_default().lines().count()
    }

    fn is_reached(&self) -> bool {
        let listed = self.installation.run(["workers", "ls", "--json"]);
        !String::from_utf8_lossy(&listed.stdout).contains("suspect")
    }

    /// Cuts the line and waits until that is noticed; gives how long it took.
    fn cut(&mut self) -> Duration {
        self.line.set(Weather::CUT);
        let begun = Instant::now();
        poll_until("the cut is noticed", LONG, || (!self.is_reached()).then_some(()));
        begun.elapsed()
    }
}

fn workspaces(installation: &Installation) -> PathBuf {
    installation.outside().join("workspaces")
}

fn worker_command(installation: &Installation, address: &str) -> Command {
    let made = installation.run(["tokens", "create", "--role", "worker"]);
    assert!(made.status.success(), "{made:?}");
    let token = installation.outside().join("token");
    fs::write(&token, made.stdout).expect("a token file");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("permissions");
    let base = workspaces(installation);
    fs::create_dir(&base).expect("a directory of workspaces");
    let mut command = Command::new(installation.binary());
    command.env("PATH", env::var_os("PATH").unwrap_or_default());
    command.args(["worker", "--coordinator", address, "--worker-id", "far", "--insecure-plaintext"]);
    command.arg("--token-file").arg(token).arg("--base-workspace").arg(base);
    command
}

fn background(client: &mut Client, session: &Value, code: &str) -> String {
    let answer = client.tool("run_python", json!({"session_id": session, "code": code, "background": true}));
    answer.ok();
    answer.meta["codegen/task_id"].as_str().expect("an id").to_owned()
}

#[test]
fn what_a_program_says_comes_whole_and_in_order_over_a_line_that_loses_and_delays() {
    let Some(mut rig) = Rig::at_hand(&ATTENTIVE) else { return };
    let (mut client, session) = rig.session();
    rig.line.set(Weather { loss_percent: 10, delay_ms: 40, jitter_ms: 20 });
    let said = client.tool("run_python", json!({"session_id": session, "code": TALKATIVE}));
    let numbers = said.ok().lines().filter_map(|line| line.strip_prefix("line ")?.parse::<u32>().ok());
    assert!(numbers.eq(0..300), "{said:?}");
    for round in 0..10 {
        let call = json!({"session_id": session, "command": format!("echo round {round}")});
        assert!(client.tool("run_shell", call).ok().contains(&format!("round {round}")));
    }
    assert_eq!(rig.runs(&session), 1);
    assert!(rig.installation.run(["audit", "verify"]).status.success());
}

#[test]
fn a_cut_amid_a_task_costs_nothing_when_the_line_is_mended_in_time() {
    let Some(mut rig) = Rig::at_hand(&ATTENTIVE) else { return };
    let (mut client, session) = rig.session();
    let task = background(&mut client, &session, PATIENT);
    poll_until("it says something", LONG, || {
        client.tool("task_logs", json!({"task_id": task})).text.contains("begun").then_some(())
    });
    rig.cut();
    assert_eq!(client.tool("task_status", json!({"task_id": task})).structured["state"], "running");
    // It comes back to bad weather.
    rig.line.set(Weather { loss_percent: 5, delay_ms: 30, jitter_ms: 10 });
    poll_until("the worker is back", LONG, || rig.is_reached().then_some(()));
    poll_until("a file is written", LONG, || {
        let written = client.tool("fs_write", json!({"session_id": session, "path": "go", "contents": ""}));
        (!written.text.contains("WORKER_UNAVAILABLE")).then_some(())
    });
    let ended = client.tool("task_wait", json!({"task_id": task}));
    assert!(ended.ok().starts_with("exit 0") && ended.text.contains("begun\ngone on"), "{ended:?}");
    assert_eq!(rig.runs(&session), 1, "it ran once");
    assert!(!rig.worker.said().contains("panicked"), "{}", rig.worker.said());
}

#[test]
fn a_cut_of_which_nobody_is_told_is_noticed_within_twenty_seconds() {
    let Some(mut rig) = Rig::at_hand(&[]) else { return };
    let took = rig.cut();
    assert!(took <= NOTICED + LOOKING, "{took:?}");
    rig.line.set(Weather::FAIR);
    poll_until("the worker is back", LONG, || rig.is_reached().then_some(()));
}
