//! `--provision docker`: workers that the coordinator starts, takes up again, replaces and ends.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use e2e::{Authority, Client, Installation, Launched, poll_until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::engine::{Engine, WORKER};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server on this machine that has its workers from the engine. Its containers go when the value is dropped.
struct Provisioned {
    engine: Engine,
    installation: Arc<Installation>,
    /// Where workers find the server, in each of its lives.
    address: String,
    /// Further arguments of the server.
    arguments: Vec<String>,
    server: Launched,
}

impl Provisioned {
    fn start(engine: &Engine) -> Self {
        Self::start_with(engine, |_| Vec::new())
    }

    /// Starts one with the arguments that are made for an installation.
    fn start_with(engine: &Engine, arguments: impl Fn(&Installation) -> Vec<String>) -> Self {
        let installation = Arc::new(Installation::new());
        let arguments = arguments(&installation);
        let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let address = free.to_string();
        let server = serve(engine, &installation, &address, &arguments);
        Self { engine: engine.clone(), installation, address, arguments, server }
    }

    /// Kills the server and starts it again.
    fn restart(&mut self) {
        self.server.signal(Signal::KILL);
        self.server.wait(PATIENCE);
        self.server = serve(&self.engine, &self.installation, &self.address, &self.arguments);
    }

    /// The names of this server's containers that run.
    fn containers(&self) -> BTreeSet<String> {
        self.listed(&["ps"])
    }

    fn listed(&self, command: &[&str]) -> BTreeSet<String> {
        let owner = fs::read_to_string(self.installation.state_dir().join("provision/owner")).unwrap_or_default();
        let filter = format!("label=codegen-mcp.owner={owner}");
        let said = self.engine.said(command.iter().copied().chain(["--filter", &filter, "--format", "{{.Names}}"]));
        said.lines().map(str::to_owned).collect()
    }

    /// The names of the workers that take sessions.
    fn healthy(&self) -> BTreeSet<String> {
        let asked = self.installation.run(["workers", "ls", "--json"]);
        let rows: Vec<Value> = serde_json::from_slice(&asked.stdout).unwrap_or_default();
        let healthy = rows.into_iter().filter(|row| row["state"] == "healthy");
        healthy.filter_map(|row| row["worker_id"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until so many workers take sessions, and there is no other container.
    fn settled(&self, workers: usize) -> BTreeSet<String> {
        poll_until(&format!("{workers} workers"), PATIENCE, || {
            let healthy = self.healthy();
            (healthy.len() == workers && healthy == self.containers()).then_some(healthy)
        })
    }

    fn client(&self) -> Client {
        let mut client = self.installation.client();
        client.initialize("2025-11-25");
        client
    }
}

fn serve(engine: &Engine, installation: &Installation, address: &str, arguments: &[String]) -> Launched {
    let mut command = installation.command([
        "serve",
        "--grpc",
        address,
        "--no-embedded-worker",
        "--provision",
        "docker",
        "--workers-min",
        "1",
        "--workers-max",
        "2",
        "--worker-image",
        WORKER,
        "--worker-network",
        "host",
    ]);
    command.args(arguments);
    command.envs(engine.environment()).env("WORKER_SLOTS", "2").env("WORKER_IDLE", "5s");
    let mut server = Launched::start(command);
    // A command that asks earlier takes the state directory for a moment, in which the server cannot have it.
    server.says("workers join at");
    server
}

impl Drop for Provisioned {
    fn drop(&mut self) {
        self.server.signal(Signal::KILL);
        for name in self.listed(&["ps", "--all"]) {
            drop(self.engine.output(["rm", "--force", "--volumes", &name]));
        }
    }
}

/// Certifies the server by a new authority, whose files take the place of an earlier one's. The arguments that name them.
fn encrypted(installation: &Installation) -> Vec<String> {
    let authority = Authority::new(installation.outside(), "ca");
    let (certificate, key) = authority.certify("server", &["127.0.0.1"]);
    let ca = installation.outside().join("ca.pem");
    let files = [("--tls-cert", certificate), ("--tls-key", key), ("--tls-ca", ca)];
    files.into_iter().flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()]).collect()
}

fn new_session(client: &mut Client) -> String {
    let created = client.tool("session_create", json!({}));
    created.structured["session_id"].as_str().expect("a session").to_owned()
}

#[test]
fn workers_are_started_for_sessions_and_ended_when_they_have_none() {
    let Some(engine) = Engine::at_hand() else { return };
    let provisioned = Provisioned::start(&engine);
    let first = provisioned.settled(1);
    let mut client = provisioned.client();
    let sessions = [new_session(&mut client), new_session(&mut client)];
    for session in &sessions {
        let answer = client.tool("run_python", json!({ "session_id": session, "code": "print(6 * 7)" }));
        assert!(answer.ok().contains("42"));
    }
    assert!(provisioned.settled(2).is_superset(&first));
    for session in &sessions {
        client.tool("session_close", json!({ "session_id": session })).ok();
    }
    provisioned.settled(1);
    poll_until("one good token is left", PATIENCE, || {
        let tokens = provisioned.installation.run(["tokens", "ls", "--json"]);
        let tokens: Vec<Value> = serde_json::from_slice(&tokens.stdout).expect("tokens");
        (tokens.iter().filter(|token| token["state"] == "active").count() == 1).then_some(())
    });
}

#[test]
fn a_coordinator_that_starts_again_takes_up_its_workers_with_their_sessions() {
    let Some(engine) = Engine::at_hand() else { return };
    let mut provisioned = Provisioned::start(&engine);
    let before = provisioned.settled(1);
    let mut client = provisioned.client();
    let session = new_session(&mut client);
    client.tool("fs_write", json!({ "session_id": session, "path": "kept", "content": "here" })).ok();
    provisioned.restart();
    assert_eq!(provisioned.settled(1), before);
    let mut client = provisioned.client();
    let kept = client.tool("fs_read", json!({ "session_id": session, "path": "kept" }));
    assert!(kept.ok().contains("here"));
}

#[test]
fn workers_are_given_what_they_check_a_server_with_tls_by() {
    let Some(engine) = Engine::at_hand() else { return };
    let provisioned = Provisioned::start_with(&engine, encrypted);
    let worker = provisioned.settled(1).into_iter().next().expect("a worker");
    let told = engine.said(["inspect", "--format", "{{json .Args}}", &worker]);
    assert!(told.contains("--tls-ca") && !told.contains("plaintext"), "{told}");
    let mut client = provisioned.client();
    let session = new_session(&mut client);
    let answer = client.tool("run_python", json!({ "session_id": session, "code": "print(6 * 7)" }));
    assert!(answer.ok().contains("42"));
}

#[test]
fn containers_that_run_join_a_server_with_another_authority_and_keep_their_files() {
    let Some(engine) = Engine::at_hand() else { return };
    let mut provisioned = Provisioned::start_with(&engine, encrypted);
    let before = provisioned.settled(1);
    let mut client = provisioned.client();
    let session = new_session(&mut client);
    let write = "open('kept', 'w').write('here')";
    client.tool("run_python", json!({ "session_id": session, "code": write })).ok();
    encrypted(&provisioned.installation);
    provisioned.restart();
    assert_eq!(provisioned.settled(1), before);
    let mut client = provisioned.client();
    let kept = client.tool("run_python", json!({ "session_id": session, "code": "print(open('kept').read())" }));
    assert!(kept.ok().contains("here"));
}

#[test]
fn a_worker_that_dies_is_replaced_and_leaves_nothing() {
    let Some(engine) = Engine::at_hand() else { return };
    let provisioned = Provisioned::start(&engine);
    let before = provisioned.settled(1);
    let victim = before.iter().next().expect("a worker");
    engine.said(["kill", victim]);
    poll_until("another worker", PATIENCE, || provisioned.containers().is_disjoint(&before).then_some(()));
    poll_until("it is removed", PATIENCE, || provisioned.listed(&["ps", "--all"]).is_disjoint(&before).then_some(()));
    assert!(!provisioned.installation.state_dir().join(format!("provision/{victim}.token")).exists());
}
