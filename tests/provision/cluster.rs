//! A cluster, as far as one StatefulSet goes: an API server that speaks its protocol over HTTP, and a controller whose pods are
//! processes of this machine. A volume outlives its pod, and goes when the pod is scaled away.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use e2e::{descendants, signal};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Who may ask.
const TOKEN: &str = "of-the-service-account";
/// Where the StatefulSet is.
const PATH: &str = "/apis/apps/v1/namespaces/agents/statefulsets/worker";
/// How often the controller looks whether pods have ended.
const CONTROL_INTERVAL: Duration = Duration::from_millis(50);

/// What a pod is like.
#[derive(Debug, Clone)]
pub struct Template {
    /// The program.
    pub binary: PathBuf,
    /// Where the coordinator takes workers.
    pub coordinator: String,
    /// The file with the workers' token.
    pub token: PathBuf,
    /// Sessions of each.
    pub slots: u32,
}

/// A running cluster. Dropping it ends its pods.
pub struct Cluster {
    root: PathBuf,
    port: u16,
    shared: Arc<Shared>,
    controller: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    set: Mutex<Set>,
    changed: Condvar,
}

#[derive(Default)]
struct Set {
    replicas: u32,
    version: u64,
    pods: BTreeMap<u32, Pod>,
    /// Every number of pods that was asked for.
    asked: Vec<u32>,
    forbids_scaling: bool,
    /// Whether requests to scale are let wait, and how many do.
    holds_scaling: bool,
    held: u32,
    /// Whether requests to scale are carried out and not answered; nor does the controller end pods meanwhile.
    is_stalled: bool,
    is_over: bool,
}

struct Pod {
    process: Child,
    is_ending: bool,
}

impl Cluster {
    /// Serves a StatefulSet with one pod, which is not there yet, and keeps its files below `root`.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn new(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        shared.lock().replicas = 1;
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { root: root.to_owned(), port, shared, controller: None }
    }

    /// A kubeconfig that leads here.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.root.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://127.0.0.1:{}", self.port)}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "agents"}}],
        });
        fs::write(&path, config.to_string()).expect("the kubeconfig is written");
        path
    }

    /// Runs as many pods as are asked for, from now on.
    pub fn run_pods(&mut self, template: Template) {
        let (shared, root) = (Arc::clone(&self.shared), self.root.clone());
        self.controller = Some(std::thread::spawn(move || control(&shared, &root, &template)));
    }

    /// How many pods are asked for.
    pub fn replicas(&self) -> u32 {
        self.shared.lock().replicas
    }

    /// The numbers of the pods that are there.
    pub fn pods(&self) -> Vec<u32> {
        self.shared.lock().pods.keys().copied().collect()
    }

    /// Every number of pods that was asked for so far.
    pub fn asked(&self) -> Vec<u32> {
        self.shared.lock().asked.clone()
    }

    /// Asks for another number of pods, as `kubectl scale` does.
    pub fn scale(&self, replicas: u32) {
        let mut set = self.shared.lock();
        (set.replicas, set.version) = (replicas, set.version + 1);
        self.shared.changed.notify_all();
    }

    /// Whether the account may scale.
    pub fn permit_scaling(&self, is_permitted: bool) {
        self.shared.lock().forbids_scaling = !is_permitted;
    }

    /// Lets requests to scale wait from now on, or goes on with them.
    pub fn hold_scaling(&self, holds: bool) {
        self.shared.lock().holds_scaling = holds;
        self.shared.changed.notify_all();
    }

    /// Has requests to scale carried out and not answered from now on, and no pod ended; or goes on with both.
    pub fn stall(&self, is_stalled: bool) {
        self.shared.lock().is_stalled = is_stalled;
        self.shared.changed.notify_all();
    }

    /// How many requests to scale wait.
    pub fn held(&self) -> u32 {
        self.shared.lock().held
    }

    /// Where a pod's workspaces are.
    pub fn volume(&self, ordinal: u32) -> PathBuf {
        volume(&self.root, ordinal)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
        if let Some(controller) = self.controller.take() {
            // A controller that panicked was the reason for the test's end.
            let _ended = controller.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Set> {
        self.set.lock().expect("no thread panics with the lock")
    }
}

fn volume(root: &Path, ordinal: u32) -> PathBuf {
    root.join(format!("volume-{ordinal}"))
}

fn control(shared: &Shared, root: &Path, template: &Template) {
    let mut set = shared.lock();
    while !set.is_over {
        let missing: Vec<u32> = (0..set.replicas).filter(|ordinal| !set.pods.contains_key(ordinal)).collect();
        for ordinal in missing {
            set.pods.insert(ordinal, start(root, template, ordinal));
            set.version += 1;
        }
        let replicas = set.replicas;
        let first_to_end = if set.is_stalled { u32::MAX } else { replicas };
        for (_, pod) in set.pods.range_mut(first_to_end..).filter(|(_, pod)| !pod.is_ending) {
            pod.is_ending = true;
            signal(pod.process.id(), Signal::TERM);
        }
        let over = |pod: &mut Pod| pod.process.try_wait().expect("waiting for a child").is_some();
        let ended: Vec<u32> = set.pods.iter_mut().filter_map(|(ordinal, pod)| over(pod).then_some(*ordinal)).collect();
        for ordinal in ended {
            set.pods.remove(&ordinal);
            set.version += 1;
            if ordinal >= replicas {
                fs::remove_dir_all(volume(root, ordinal)).expect("the volume goes");
            }
        }
        set = shared.changed.wait_timeout(set, CONTROL_INTERVAL).expect("no thread panics with the lock").0;
    }
    for pod in set.pods.values_mut() {
        let below = descendants(pod.process.id());
        let _gone = pod.process.kill();
        let _reaped = pod.process.wait();
        below.into_iter().for_each(|pid| signal(pid, Signal::KILL));
    }
}

fn start(root: &Path, template: &Template, ordinal: u32) -> Pod {
    let base = volume(root, ordinal);
    fs::create_dir_all(&base).expect("a volume");
    let mut command = Command::new(&template.binary);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["worker", "--coordinator", &template.coordinator, "--drain-timeout", "5s"]);
    command.env("WORKER_ID", format!("worker-{ordinal}")).env("BASE_WORKSPACE", base);
    command.env("WORKER_TOKEN_FILE", &template.token).env("MAX_SESSIONS", template.slots.to_string());
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Pod { process: process.expect("the pod starts"), is_ending: false }
}

fn answer(mut stream: TcpStream, shared: &Shared) {
    let Some((head, body)) = request(&mut stream) else { return };
    let (method, path) =
        head.split_once(' ').map(|(method, rest)| (method, rest.split(' ').next())).unwrap_or_default();
    let path = path.unwrap_or_default().split('?').next().unwrap_or_default();
    let token = format!("authorization: bearer {TOKEN}");
    let is_known = head.to_ascii_lowercase().contains(&token);
    let (code, said) = match (method, path) {
        _ if !is_known => refusal(401, "Unauthorized"),
        ("GET", PATH) => (200, shown(&shared.lock())),
        ("PATCH", scale) if scale.strip_suffix("/scale") == Some(PATH) => scaled(shared, &body),
        _ => refusal(404, "NotFound"),
    };
    let said = said.to_string();
    let answer = format!(
        "HTTP/1.1 {code} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{said}",
        said.len()
    );
    // A client that is gone wants nothing more.
    let _sent = stream.write_all(answer.as_bytes());
}

fn request(stream: &mut TcpStream) -> Option<(String, Value)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let length = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).unwrap_or_default()))
}

fn shown(set: &Set) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "worker", "namespace": "agents", "resourceVersion": set.version.to_string()},
        "spec": {"replicas": set.replicas, "serviceName": "worker", "selector": {}, "template": {}},
        "status": {"replicas": set.pods.len()},
    })
}

fn scaled(shared: &Shared, patch: &Value) -> (u16, Value) {
    let mut set = shared.lock();
    set.held += 1;
    set = shared.changed.wait_while(set, |set| set.holds_scaling).expect("no thread panics with the lock");
    set.held -= 1;
    if set.forbids_scaling {
        return refusal(403, "Forbidden");
    }
    let is_current = patch["metadata"]["resourceVersion"].as_str() == Some(&set.version.to_string());
    if !is_current {
        return refusal(409, "Conflict");
    }
    let Some(replicas) = patch["spec"]["replicas"].as_u64().and_then(|pods| u32::try_from(pods).ok()) else {
        return refusal(422, "Invalid");
    };
    (set.replicas, set.version) = (replicas, set.version + 1);
    set.asked.push(replicas);
    shared.changed.notify_all();
    drop(shared.changed.wait_while(set, |set| set.is_stalled).expect("no thread panics with the lock"));
    let scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "worker"}, "spec": {"replicas": replicas},
    });
    (200, scale)
}

fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let message = format!("the account may not: {reason}");
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}),
    )
}
