//! What a worker says of itself, as an operator's commands show it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use codegen_proto::v1;
use codegen_types::{Layer, LayerReport, LayerState};

use crate::double::{Double, Route, Spec};

/// What stands at the beginning of a line only if the worker put it there.
const FORGED: &str = "FORGED";

fn nasty() -> String {
    format!(
        "a\n{FORGED}\r{FORGED}\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{85}{FORGED}\u{2028}{FORGED}\u{202e}b\u{2066}\u{200b}\u{feff}\u{7f}"
    )
}

fn is_deceptive(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[track_caller]
fn expect_harmless(what: &str, shown: &str) {
    let bad: Vec<&str> = shown.lines().filter(|line| line.starts_with(FORGED) || line.contains(is_deceptive)).collect();
    assert!(bad.is_empty(), "{what}: {bad:?}");
}

/// The server as an operator runs it.
struct Server {
    child: Child,
    state: tempfile::TempDir,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut command = product(&state);
        command.args(["serve", "--grpc", "127.0.0.1:0", "--no-embedded-worker"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("workers join at")));
        let address = line.unwrap().unwrap().split_whitespace().last().unwrap().parse().unwrap();
        // What else it says is read to its end, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, state, address }
    }

    /// What one of the operator's commands shows, once it is seen that nothing of it deceives.
    #[track_caller]
    fn shows(&self, arguments: &[&str]) -> String {
        let output = product(&self.state).args(arguments).output().unwrap();
        let shown = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{arguments:?}: {shown}");
        expect_harmless(&format!("{arguments:?}"), &shown);
        shown
    }

    fn diagnostics(&self) -> String {
        let files = std::fs::read_dir(self.state.path().join("logs")).unwrap().flatten();
        files.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn product(state: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command.env_clear().env("HOME", state.path()).arg("--state-dir").arg(state.path());
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_worker_says_of_itself_forges_a_line_that_an_operator_reads() {
    let (server, nasty) = (Server::start(), nasty());
    let token = server.shows(&["tokens", "create", "--role", "worker"]).lines().next().unwrap().to_owned();
    let double = |name: &str| Double::new(Route::Tcp(server.address), Spec::named(name));

    let mut hostile = double("hostile");
    let mut said = hostile.registration();
    said.version = format!("{}+{nasty}", env!("CARGO_PKG_VERSION"));
    let capabilities = said.capabilities.as_mut().unwrap();
    capabilities.labels.insert(nasty.clone(), nasty.clone());
    let v1::Runtime { name, version, path } = &mut capabilities.runtimes[0];
    [name, version, path].into_iter().for_each(|field| field.clone_from(&nasty));
    let row =
        |layer| LayerReport { layer, state: LayerState::Partial, detail: nasty.clone(), remedy: Some(nasty.clone()) };
    capabilities.isolation.as_mut().unwrap().layers = Layer::ALL.map(|layer| row(layer).into()).to_vec();
    let registered = hostile.try_register(&token, said).await.unwrap();
    hostile.session.clone_from(&registered.worker_session);
    hostile.open_link(&registered.link_ticket).await.unwrap();

    let mut leaving = double("leaving");
    leaving.register(&token).await.unwrap();
    let (worker_id, incarnation) = (leaving.spec.id.to_string(), leaving.spec.incarnation.to_string());
    let farewell = v1::DeregisterWorkerRequest { worker_id, incarnation, reason: nasty.clone() };
    leaving.try_leave(farewell).await.unwrap();

    let mut refused = double("refused");
    let mut unknown = refused.registration();
    unknown.version.clone_from(&nasty);
    refused.try_register(&token, unknown).await.unwrap_err();
    let mut unnamed = refused.registration();
    unnamed.worker_id.clone_from(&nasty);
    refused.try_register(&token, unnamed).await.unwrap_err();

    for command in [
        &["workers", "ls"][..],
        &["workers", "show", "hostile"],
        &["workers", "cordon", "hostile"],
        &["top"],
        &["audit", "query"],
        &["audit", "tail"],
        &["requests"],
        &["usage"],
    ] {
        for arguments in [command.to_vec(), [command, &["--json"]].concat()] {
            let shown = server.shows(&arguments);
            let is_told = arguments[0] == "workers" && (arguments[1] != "cordon" || arguments.len() > 3);
            assert!(!is_told || shown.contains(FORGED), "{arguments:?}: {shown}");
        }
    }
    server.shows(&["top", "--once"]);
    let whole = server.shows(&["workers", "show", "hostile", "--json"]);
    let whole: serde_json::Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(whole["labels"][&nasty], nasty.as_str(), "it is shown escaped, and means what was said: {whole}");
    let diagnostics = server.diagnostics();
    assert!(diagnostics.contains("hostile"), "{diagnostics}");
    expect_harmless("the diagnostics", &diagnostics);
}
