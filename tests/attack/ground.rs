//! Where attacks are made: an installation at some level of isolation, a session that attacks and one that it is to harm.

use std::io::{ErrorKind, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::Stdio;

use e2e::{Answer, Client, Installation, User, descendants, is_running};
use serde_json::{Value, json};

/// What the host holds in places that no session may read.
pub const HOST_SECRET: &str = "host-secret-value";
/// What the server keeps for itself, in its state directory.
const KEPT: [&str; 9] = [
    "state.db",
    "server.lock",
    "secrets.age",
    "secrets.identity",
    "audit/keys/checkpoint.key",
    "audit/keys/checkpoint.vkey",
    "audit/keys/redaction.key",
    "audit/segment-00000000000000000001.jsonl",
    "audit/writer.lock",
];
/// What the other session holds.
pub const SIBLING_SECRET: &str = "sibling-secret";

/// One column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its head.
    pub name: &'static str,
    /// The level that sessions must have.
    pub level: &'static str,
    /// As whom the product runs.
    pub user: User,
}

/// Every level that this test run can start the product at; `ATTACK_LEVEL` picks one.
pub fn columns() -> Vec<Column> {
    let column = |user: User| {
        let name = if user == User::Ordinary { "full, not root" } else { user.level() };
        Column { name, level: user.level(), user }
    };
    let wanted = std::env::var("ATTACK_LEVEL").ok();
    let users = [User::all(), User::below_full()].concat().into_iter();
    users.filter(|user| wanted.as_ref().is_none_or(|level| level == user.level())).map(column).collect()
}

/// The same; without a second one of level full, unless `make attack` asks for everything.
pub fn levels() -> Vec<Column> {
    let all = std::env::var_os("ATTACK_ROUNDS").is_some();
    columns().into_iter().filter(|column| all || column.user != User::Ordinary).collect()
}

/// An installation under attack.
pub struct Ground {
    pub column: Column,
    pub installation: Installation,
    pub client: Client,
    /// The session that attacks.
    pub attacker: String,
    /// The session that is to be harmed.
    pub victim: String,
    server: u32,
    outside: PathBuf,
    listeners: Listeners,
}

/// What listens on the host and must hear nothing.
pub struct Listeners {
    tcp: TcpListener,
    udp: UdpSocket,
    r#abstract: UnixListener,
    /// Under the same name, with `-datagram`.
    datagram: UnixDatagram,
    name: String,
}

impl Listeners {
    pub fn open() -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let name = format!("codegen-attack-{}", udp.local_addr().expect("an address").port());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let of_datagrams = SocketAddr::from_abstract_name(format!("{name}-datagram")).expect("a name");
        let this = Self {
            tcp: TcpListener::bind("127.0.0.1:0").expect("a port"),
            udp,
            r#abstract: UnixListener::bind_addr(&address).expect("a socket"),
            datagram: UnixDatagram::bind_addr(&of_datagrams).expect("a socket"),
            name,
        };
        this.tcp.set_nonblocking(true).expect("a flag");
        this.udp.set_nonblocking(true).expect("a flag");
        this.r#abstract.set_nonblocking(true).expect("a flag");
        this.datagram.set_nonblocking(true).expect("a flag");
        this
    }

    pub fn tcp_port(&self) -> u16 {
        self.tcp.local_addr().expect("an address").port()
    }

    pub fn udp_port(&self) -> u16 {
        self.udp.local_addr().expect("an address").port()
    }

    /// The name of the abstract socket.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What heard something.
    pub fn heard(&self) -> Vec<&'static str> {
        let silent = |error: Option<std::io::Error>| error.is_some_and(|error| error.kind() == ErrorKind::WouldBlock);
        let asked = [
            ("TCP", silent(self.tcp.accept().err())),
            ("UDP", silent(self.udp.recv(&mut [0; 64]).err())),
            ("an abstract socket", silent(self.r#abstract.accept().err())),
            ("one of datagrams", silent(self.datagram.recv(&mut [0; 64]).err())),
        ];
        asked.into_iter().filter(|(_, silent)| !silent).map(|(what, _)| what).collect()
    }
}

impl Ground {
    /// Installs the product, and opens both sessions.
    pub fn prepare(column: Column) -> Self {
        Self::prepare_with(column, "")
    }

    /// As [`prepare`](Self::prepare), with a configuration file of the product.
    pub fn prepare_with(column: Column, config: &str) -> Self {
        let installation = Installation::for_user(column.user);
        let outside = installation.outside().join("outside");
        std::fs::create_dir(&outside).expect("a directory");
        std::fs::write(outside.join("secret.txt"), HOST_SECRET).expect("a file");
        if let Some(id) = column.user.other_id() {
            for path in [outside.clone(), outside.join("secret.txt")] {
                chown(path, Some(id), Some(id)).expect("chown");
            }
        }
        let file = installation.outside().join("attack.toml");
        std::fs::write(&file, config).expect("a configuration file");
        let mut command = installation.command(["--config".as_ref(), file.as_os_str()]);
        // At level reduced a worker has one session, unless the operator wants it otherwise.
        command.env("HOST_SECRET", HOST_SECRET).env("REDUCED_SESSIONS", "2");
        let mut client = Client::launch(command);
        client.initialize("2025-11-25");
        let mut session = |name: &str| {
            let created = client.tool("session_create", json!({"name": name}));
            created.ok();
            let created = created.structured;
            assert_eq!(created["isolation"]["level"], column.level, "{created}");
            created["session_id"].as_str().expect("a handle").to_owned()
        };
        let (victim, attacker) = (session("victim"), session("attacker"));
        let server = installation.server_pid().expect("a server runs");
        Self { column, installation, client, attacker, victim, server, outside, listeners: Listeners::open() }
    }

    /// Runs code in the attacking session.
    pub fn attack(&mut self, code: &str, seconds: f64) -> Answer {
        let call = json!({"session_id": self.attacker, "code": code, "timeout_seconds": seconds});
        self.client.tool("run_python", call)
    }

    /// What an attacker could know at best, as Python source.
    pub fn facts(&mut self, denied: &Value) -> String {
        let below = descendants(self.server);
        let mut pids = vec![self.server, self.client.pid()];
        pids.extend(&below);
        let victim = include_str!("programs/victim.py");
        let call = json!({"session_id": self.victim, "kernel": "victim", "code": victim});
        let answer = self.client.tool("run_python", call).ok().to_owned();
        let line = answer.lines().find(|line| line.starts_with('{')).expect("what the victim has");
        let mut victim: Value = serde_json::from_str(line).expect("JSON");
        let workspace = self.workspace_of(&self.victim);
        let holders: Vec<u32> = descendants(self.server).into_iter().filter(|pid| !below.contains(pid)).collect();
        victim["workspace"] = json!(workspace);
        victim["id"] = json!(self.victim);
        victim["pids"] = json!(holders);
        let facts = json!({
            "secret_file": self.outside.join("secret.txt"),
            "outside_dir": self.outside,
            "state_dir": self.installation.state_dir(),
            "state_files": self.state_files(),
            "pids": pids,
            "victim": victim,
            "tcp_port": self.listeners.tcp_port(),
            "udp_port": self.listeners.udp_port(),
            "grpc_port": 50_050,
            "abstract": [self.listeners.name()],
            "denied": denied,
        });
        format!("import json, os\nFACTS = json.loads({:?})\n", facts.to_string())
    }

    /// Every file that the server keeps for itself, a secret among them.
    fn state_files(&self) -> Vec<PathBuf> {
        let arguments = ["secrets", "set", "kept", "--host", "api.example.com", "--everybody"];
        let mut keeping =
            self.installation.command(arguments).stdin(Stdio::piped()).spawn().expect("the binary starts");
        writeln!(keeping.stdin.take().expect("a pipe"), "{HOST_SECRET}").expect("it reads");
        assert!(keeping.wait().expect("it ends").success());
        let state = self.installation.state_dir();
        let (mut files, mut directories) = (Vec::new(), vec![state.clone()]);
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory).expect("a directory").flatten() {
                match entry.file_type().expect("a type") {
                    kind if kind.is_file() => files.push(entry.path()),
                    kind if kind.is_dir() && entry.file_name() != "workspaces" => directories.push(entry.path()),
                    _ => {}
                }
            }
        }
        for name in KEPT {
            assert!(files.contains(&state.join(name)), "there is no {name}: {files:?}");
        }
        files
    }

    /// The workspace of a session on the host.
    pub fn workspace_of(&self, session: &str) -> PathBuf {
        let mut directories = vec![self.installation.state_dir()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().contains(session) {
                    return entry.path();
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    directories.push(entry.path());
                }
            }
        }
        panic!("no workspace of {session}");
    }

    /// Fails unless the server and both sessions work on, and nothing of the host was touched.
    pub fn expect_unharmed(&mut self, after: &str) {
        let column = self.column.name;
        assert!(is_running(self.server), "{column}, {after}: the server is gone");
        assert_eq!(self.installation.server_pid(), Some(self.server), "{column}, {after}: another server");
        for session in [&self.victim, &self.attacker] {
            let call = json!({"session_id": session, "code": "print(6 * 7)"});
            let answer = self.client.tool("run_python", call);
            assert!(
                answer.ok().contains("42") && !answer.text.contains("forged"),
                "{column}, {after}: {}",
                answer.text
            );
        }
        let kernel = json!({"session_id": self.victim, "kernel": "victim", "code": "print(KEPT[0][:14])"});
        let kernel = self.client.tool("run_python", kernel);
        assert!(kernel.ok().contains(SIBLING_SECRET), "{column}, {after}: {}", kernel.text);
        assert_eq!(self.listeners.heard(), [""; 0], "{column}, {after}: what must hear nothing heard something");
        let mut there: Vec<String> = std::fs::read_dir(&self.outside)
            .expect("a directory")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        there.sort();
        assert_eq!(there, ["secret.txt"], "{column}, {after}: something was written outside");
        let secret = self.outside.join("secret.txt");
        assert_eq!(std::fs::read_to_string(&secret).expect("a file"), HOST_SECRET, "{column}, {after}");
        if self.column.level != "reduced" {
            let mode = std::fs::metadata(&secret).expect("a file").mode() & 0o7777;
            assert_eq!(mode, 0o644, "{column}, {after}: the mode of a file outside");
        }
    }

    /// Every process below the server.
    pub fn processes(&self) -> Vec<u32> {
        descendants(self.server)
    }
}
