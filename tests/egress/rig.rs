//! The product, and hosts that its sessions may reach or may not.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{Authority, Client, Installation, User, descendants, poll_until};
use serde_json::{Value, json};

/// How long what must happen may take.
pub const LONG: Duration = Duration::from_secs(120);

/// A host on the loopback interface of the machine. Dropping it ends it.
pub struct Origin {
    process: Child,
    port: u16,
    /// What it said: its port, and then a line for each request, before the request is answered.
    said: File,
}

impl Origin {
    /// Serves plain HTTP, or HTTPS with this certificate and key.
    pub fn serve(certificate: Option<&(PathBuf, PathBuf)>) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("egress/origin.py");
        let said = tempfile::tempfile().expect("a file");
        let mut command = Command::new("python3");
        command.arg(script).stdout(said.try_clone().expect("a descriptor")).stderr(Stdio::null()).stdin(Stdio::null());
        if let Some((certificate, key)) = certificate {
            command.args([certificate, key]);
        }
        let process = command.spawn().expect("Python starts");
        let port = poll_until("a host has a port", LONG, || {
            let said = whole(&said);
            said.split_once('\n').map(|(port, _)| port.parse().expect("a port"))
        });
        Self { process, port, said }
    }

    /// The requests that it got, each with its method and path.
    pub fn log(&self) -> Vec<String> {
        whole(&self.said).lines().skip(1).map(str::to_owned).collect()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// As sessions name it. The names of loopback mean the session's own, so that no program would ask the proxy for them.
    pub fn host(&self) -> String {
        format!("127.0.0.2:{}", self.port)
    }
}

/// All of a file that somebody else writes to.
fn whole(file: &File) -> String {
    let mut bytes = vec![0; usize::try_from(file.metadata().expect("its length").len()).expect("room")];
    file.read_exact_at(&mut bytes, 0).expect("it only grows");
    String::from_utf8(bytes).expect("text")
}

impl Drop for Origin {
    fn drop(&mut self) {
        // One that is gone already is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The product whose operator permits one host with TLS and one without, and a third that is not permitted.
pub struct Rig {
    pub installation: Installation,
    pub encrypted: Origin,
    pub plain: Origin,
    pub foreign: Origin,
    /// The certificate of whoever certified the first.
    pub authority: PathBuf,
}

impl Rig {
    pub fn new(user: User) -> Self {
        Self::with(user, |_| String::new())
    }

    /// With further hosts that are permitted as public ones.
    pub fn with(user: User, public: impl FnOnce(&Origin) -> String) -> Self {
        let installation = Installation::for_user(user);
        let directory = installation.outside();
        let certificate = Authority::new(directory, "authority").certify("origin", &["127.0.0.2"]);
        let (encrypted, plain, foreign) = (Origin::serve(Some(&certificate)), Origin::serve(None), Origin::serve(None));
        let text = format!(
            "egress_private_hosts = '{}, {}'\negress_hosts = '{}'\n",
            encrypted.host(),
            plain.host(),
            public(&foreign)
        );
        let authority = directory.join("authority.pem");
        let rig = Self { encrypted, plain, foreign, authority, installation };
        rig.configure(&text);
        rig
    }

    /// What the next server is told.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.installation.outside().join("config.toml"), text).expect("a configuration file");
    }

    /// Has the next server permit these hosts, wherever their names lead.
    pub fn permit(&self, hosts: &[&str]) {
        self.configure(&format!("egress_private_hosts = '{}'\n", hosts.join(", ")));
    }

    /// A client of the server, which trusts the authority.
    pub fn client(&self) -> Client {
        let config = self.installation.outside().join("config.toml");
        let mut command = self.installation.command([Path::new("--config"), &config]);
        // The strongest of the settings that say so, whatever the machine's own pip is told.
        command.env("PIP_CERT", &self.authority);
        let mut client = Client::launch(command);
        client.initialize("2025-11-25");
        client
    }

    /// A session that may reach these hosts, with the authority's certificate in `ca.pem`.
    pub fn session(&self, client: &mut Client, hosts: &[&str]) -> String {
        let made = client.tool("session_create", json!({"network": {"allow": hosts}}));
        made.ok();
        let session = made.structured["session_id"].as_str().expect("a handle").to_owned();
        let certificate = std::fs::read_to_string(&self.authority).expect("a certificate");
        let write = json!({"session_id": session, "path": "ca.pem", "contents": certificate});
        client.tool("fs_write", write).ok();
        session
    }

    /// Keeps a secret for a host, for everybody.
    pub fn keep(&self, name: &str, host: &str, value: &str) {
        keep(&self.installation, name, host, value);
    }

    /// The process id of the server's own worker.
    pub fn worker_pid(&self) -> u32 {
        let server = self.installation.server_pid().expect("a server runs");
        *descendants(server).first().expect("the first that the server started")
    }

    /// What the tasks of all sessions said of a host with this outcome: connections, in all.
    pub fn connections(&self, host: &str, outcome: &str) -> u64 {
        let records = self.records("task.outcome");
        let contacts = records.iter().filter_map(|record| record["detail"]["contacts"].as_array()).flatten();
        let those = contacts.filter(|contact| contact["host"] == host && contact["outcome"] == outcome);
        those.filter_map(|contact| contact["connections"].as_u64()).sum()
    }

    /// The records of the log of one type.
    pub fn records(&self, kind: &str) -> Vec<Value> {
        let query = self.installation.run(["audit", "query", "--json"]);
        let text = String::from_utf8_lossy(&query.stdout).into_owned();
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a record a line"));
        records.filter(|record| record["type"] == kind).collect()
    }
}

/// Keeps a secret for a host on the server of an installation, for everybody.
pub fn keep(installation: &Installation, name: &str, host: &str, value: &str) {
    let arguments = ["secrets", "set", name, "--host", host, "--header", "X-Token", "--everybody"];
    let mut command = installation.command(arguments);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary starts");
    writeln!(process.stdin.take().expect("a pipe"), "{value}").expect("it reads");
    let output = process.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(name) && !said.contains(value), "{said}");
}

/// Begins to run Python in a session, and gives its task.
pub fn begin(client: &mut Client, session: &str, code: &str) -> Value {
    let arguments = json!({"session_id": session, "code": code, "background": true, "timeout_seconds": 300});
    let begun = client.tool("run_python", arguments);
    begun.ok();
    begun.meta["codegen/task_id"].clone()
}

/// Waits for the end of a task, however slow the machine is, and gives what it printed.
pub fn finish(client: &mut Client, task: &Value) -> String {
    loop {
        let seen = client.tool("task_wait", json!({"task_id": task, "timeout_seconds": 10}));
        if seen.meta["codegen/state"] != "running" {
            return seen.text;
        }
    }
}

/// Waits until a program of a session has put this file there, and gives its first line.
pub fn written(client: &mut Client, session: &str, path: &str) -> String {
    poll_until(&format!("{path} is written"), LONG, || {
        let read = client.tool("fs_read", json!({"session_id": session, "path": path}));
        (!read.is_error).then(|| read.text.lines().next().unwrap_or_default().to_owned())
    })
}

/// Runs Python in a session and gives what it printed.
pub fn python(client: &mut Client, session: &str, code: &str) -> String {
    client.tool("run_python", json!({"session_id": session, "code": code, "timeout_seconds": 60})).text
}

/// What a program needs to ask for a URL, and to say what came of it.
pub const ASK: &str = "import json, ssl, socket, urllib.request, urllib.error\n\
    context = ssl.create_default_context(cafile='ca.pem')\n\
    def ask(url, data=None, headers={}):\n    \
        try:\n        \
            request = urllib.request.Request(url, data=data, headers=headers)\n        \
            opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))\n        \
            answer = opener.open(request, timeout=20)\n        \
            return answer.status, answer.read().decode()\n    \
        except urllib.error.HTTPError as error: return error.code, error.read().decode()\n    \
        except OSError as error: return 0, str(error)\n";
