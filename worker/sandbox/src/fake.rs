//! A double for tests of the worker: nothing is isolated and nothing is run, every answer is canned.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{IsolationLevel, IsolationReport, Layer, LayerReport, LayerState};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::backend::{Backend, BoxFuture, Places, Sandbox, SandboxEnd, SandboxError, SandboxSpec, Spawn};
use crate::child::{Child, ChildEnd, SupervisorEvent};
use crate::datagram::{self, AsyncSocket};

/// What a fake program does.
#[derive(Debug, Clone, Default)]
pub struct FakeRun {
    /// What it writes to standard output.
    pub stdout: Vec<u8>,
    /// What it writes to standard error.
    pub stderr: Vec<u8>,
    /// What it writes to standard output later, each after a pause, unless it is interrupted or killed before.
    pub later: Vec<(Duration, Vec<u8>)>,
    /// How it ends.
    pub end: FakeEnd,
}

/// How a fake program ends.
#[derive(Debug, Clone)]
pub enum FakeEnd {
    /// At once.
    At(ChildEnd),
    /// When it is interrupted (SIGINT) or killed (SIGKILL).
    WhenSignalled,
    /// Only when it is killed.
    WhenKilled,
    /// Its supervisor dies.
    SupervisorLost,
}

impl Default for FakeEnd {
    fn default() -> Self {
        Self::At(ChildEnd { code: Some(0), ..ChildEnd::default() })
    }
}

type Script = dyn Fn(&Spawn) -> FakeRun + Send + Sync;

/// A backend that says it isolates in full and runs nothing.
pub struct FakeBackend {
    report: IsolationReport,
    script: Arc<Script>,
    held: BTreeSet<u32>,
    mortal: watch::Sender<bool>,
}

impl FakeBackend {
    /// A backend whose programs do what the script says.
    pub fn new(script: impl Fn(&Spawn) -> FakeRun + Send + Sync + 'static) -> Self {
        Self {
            report: report(IsolationLevel::Full),
            script: Arc::new(script),
            held: BTreeSet::new(),
            mortal: watch::Sender::new(true),
        }
    }

    /// The same backend, under whose user ids something may still run.
    #[must_use]
    pub fn with_held(mut self, held: impl IntoIterator<Item = u32>) -> Self {
        self.held = held.into_iter().collect();
        self
    }

    /// Whether its sandboxes die when they are destroyed. One that does not is waited for.
    pub fn mortal(&self) -> watch::Sender<bool> {
        self.mortal.clone()
    }

    /// The same backend, claiming this level.
    #[must_use]
    pub fn with_level(mut self, level: IsolationLevel) -> Self {
        self.report = report(level);
        self
    }
}

fn report(level: IsolationLevel) -> IsolationReport {
    let row = |layer| LayerReport { layer, state: LayerState::Enforced, detail: "a test double".into(), remedy: None };
    IsolationReport { level, layers: Layer::ALL.into_iter().map(row).collect() }
}

impl Backend for FakeBackend {
    fn report(&self) -> &IsolationReport {
        &self.report
    }

    fn open(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>> {
        // Of this host, where nobody knows its port.
        let listener = spec.proxy.map(|_| TcpListener::bind("127.0.0.1:0")).transpose();
        let sandbox = listener.map_err(SandboxError::Channel).map(|listener| FakeSandbox {
            report: self.report.clone(),
            places: Places::on_own_root(),
            script: self.script.clone(),
            listener: Mutex::new(listener),
            mortal: self.mortal.subscribe(),
            end: watch::Sender::new(None),
        });
        Box::pin(async move { Ok(Arc::new(sandbox?) as Arc<dyn Sandbox>) })
    }

    fn held(&self) -> BTreeSet<u32> {
        self.held.clone()
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

struct FakeSandbox {
    report: IsolationReport,
    places: Places,
    script: Arc<Script>,
    listener: Mutex<Option<TcpListener>>,
    mortal: watch::Receiver<bool>,
    end: watch::Sender<Option<SandboxEnd>>,
}

impl Sandbox for FakeSandbox {
    fn report(&self) -> &IsolationReport {
        &self.report
    }

    fn places(&self) -> &Places {
        &self.places
    }

    fn spawn(&self, spawn: Spawn) -> BoxFuture<'_, Result<Child, SandboxError>> {
        Box::pin(async move {
            if self.end.borrow().is_some() {
                return Err(SandboxError::Gone);
            }
            let (ours, theirs) = datagram::pair().map_err(SandboxError::Channel)?;
            let supervisor = AsyncSocket::new(theirs).map_err(SandboxError::Channel)?;
            tokio::spawn(play((self.script)(&spawn), spawn, supervisor, self.end.subscribe()));
            Child::from_ctl(ours).map_err(SandboxError::Channel)
        })
    }

    fn spawn_bare(&self, _spawn: Spawn) -> BoxFuture<'_, Result<u32, SandboxError>> {
        Box::pin(async { Ok(2) })
    }

    fn proxy_listener(&self) -> Option<TcpListener> {
        self.listener.lock().take()
    }

    fn destroy(&self) -> BoxFuture<'_, u32> {
        let mut mortal = self.mortal.clone();
        Box::pin(async move {
            // Nobody holds back the sandboxes of a backend that is gone.
            let _dies = mortal.wait_for(|mortal| *mortal).await;
            self.end.send_if_modified(|end| end.replace(SandboxEnd::Destroyed).is_none());
            1
        })
    }

    fn ended(&self) -> BoxFuture<'_, SandboxEnd> {
        let mut end = self.end.subscribe();
        Box::pin(async move {
            let ended = end.wait_for(Option::is_some).await.map(|end| *end);
            ended.ok().flatten().unwrap_or(SandboxEnd::Crashed)
        })
    }
}

/// Plays supervisor and program.
async fn play(run: FakeRun, spawn: Spawn, supervisor: AsyncSocket, mut gone: watch::Receiver<Option<SandboxEnd>>) {
    say(&supervisor, &SupervisorEvent::Started { pid: 3 }).await;
    let Spawn { stdout, stderr, .. } = spawn;
    let mut stdout = File::from(stdout);
    // A reader that went away is the test's choice.
    let _ = stdout.write_all(&run.stdout);
    let _ = File::from(stderr).write_all(&run.stderr);
    let played = async {
        let early = tokio::select! {
            biased;
            () = write_later(stdout, &run.later) => None,
            end = signalled(&FakeEnd::WhenSignalled, &supervisor) => Some(end),
        };
        match early {
            Some(end) => end,
            None => signalled(&run.end, &supervisor).await,
        }
    };
    let end = tokio::select! {
        end = played => end,
        _ = gone.wait_for(Option::is_some) => None,
    };
    if let Some(end) = end {
        say(&supervisor, &SupervisorEvent::Exited(end)).await;
    }
}

async fn write_later(mut stdout: File, later: &[(Duration, Vec<u8>)]) {
    for (pause, bytes) in later {
        tokio::time::sleep(*pause).await;
        let _ = stdout.write_all(bytes);
    }
}

async fn signalled(end: &FakeEnd, supervisor: &AsyncSocket) -> Option<ChildEnd> {
    let mortal = match end {
        FakeEnd::At(end) => return Some(end.clone()),
        FakeEnd::SupervisorLost => return None,
        FakeEnd::WhenSignalled => b"ik".as_slice(),
        FakeEnd::WhenKilled => b"k".as_slice(),
    };
    while let Ok(Some(datagram)) = supervisor.recv().await {
        if datagram.bytes.first().is_some_and(|byte| mortal.contains(byte)) {
            let signal = if datagram.bytes == b"i" { libc::SIGINT } else { libc::SIGKILL };
            return Some(ChildEnd { signal: Some(signal), ..ChildEnd::default() });
        }
    }
    None
}

async fn say(supervisor: &AsyncSocket, event: &SupervisorEvent) {
    let text = serde_json::to_vec(event).expect("events are plain data");
    // A child that was dropped listens no more.
    let _ = supervisor.send(&text, &[]).await;
}
