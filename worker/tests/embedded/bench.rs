//! A worker process with one session, and what a task of it did.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use codegen_proto::v1::worker_client::WorkerClient;
use codegen_proto::{AttachTask, CancelTask, ExecuteTask, OpenSession, SessionOpened};
use codegen_types::operation::{Write as WriteFile, WriteMode};
use codegen_types::{
    Epoch, ErrorCode, Event, EventBody, Exec, Exit, IsolationLevel, Lease, Limits, Operation, OperationResult,
    OutputStream, Program, SessionId, TaskId,
};
use tokio::net::UnixListener;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::coordinator::Coordinator;

pub struct Bench {
    pub worker: Child,
    pub stdin: Option<ChildStdin>,
    pub coordinator: Coordinator,
    pub client: WorkerClient<Channel>,
    pub session: SessionId,
    pub lease: Lease,
    directory: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The end of standard input ends the worker; a test that failed must not leave one behind.
        drop(self.stdin.take());
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

/// What a task did.
#[derive(Debug)]
pub struct Ran {
    pub events: Vec<Event>,
    pub stdout: String,
    pub stderr: String,
    pub exit: Option<Exit>,
    pub code: Option<ErrorCode>,
}

impl Ran {
    fn of(events: Vec<Event>) -> Self {
        let text = |wanted: OutputStream| {
            let bytes: Vec<u8> = events
                .iter()
                .filter_map(|event| match &event.body {
                    EventBody::Output { stream, bytes } if *stream == wanted => Some(bytes.clone()),
                    _ => None,
                })
                .flatten()
                .collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) = (text(OutputStream::Stdout), text(OutputStream::Stderr));
        let (exit, code) = match &events.last().expect("a task has events").body {
            EventBody::Finished(OperationResult::Exec(exit)) => (Some(exit.clone()), None),
            EventBody::Failed { failure, exit } => (exit.clone(), Some(failure.code)),
            _ => (None, None),
        };
        for (index, event) in events.iter().enumerate() {
            assert_eq!(event.seq, index as u64 + 1, "sequence numbers have no gaps");
        }
        Self { events, stdout, stderr, exit, code }
    }

    /// The exit code of a program that ended by itself.
    pub fn exit_code(&self) -> Option<i32> {
        assert_eq!(self.code, None, "{self:#?}");
        self.exit.as_ref().and_then(|exit| exit.code)
    }

    pub fn signal(&self) -> Option<i32> {
        self.exit.as_ref().and_then(|exit| exit.signal)
    }
}

impl Bench {
    pub async fn new() -> Self {
        Self::with_limits(Limits::default()).await
    }

    pub async fn with_limits(limits: Limits) -> Self {
        let mut bench = Self::without_session(None).await;
        bench.open(limits).await;
        bench
    }

    /// A worker that has no session yet, and makes sandboxes with these limits ahead of need.
    pub async fn without_session(spare_limits: Option<Limits>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("worker.sock");
        let coordinator = Coordinator::serve(UnixListener::bind(&socket).expect("a socket"));
        let (worker, stdin) = start(&directory, &socket, spare_limits);
        let client = coordinator.link().await;
        let registration = coordinator.registered.borrow().last().cloned().expect("it registered first");
        let lease = Lease {
            worker: registration.worker_id.parse().expect("a worker id"),
            incarnation: registration.incarnation.parse().expect("an incarnation"),
            epoch: Epoch(1),
        };
        Self { worker, stdin: Some(stdin), coordinator, client, session: SessionId::mint(), lease, directory }
    }

    /// The directory of the workspaces.
    pub fn workspaces(&self) -> PathBuf {
        self.directory.path().join("workspaces")
    }

    pub async fn open(&mut self, limits: Limits) -> SessionOpened {
        let open = OpenSession {
            session: self.session,
            lease: self.lease.clone(),
            limits,
            isolation_minimum: IsolationLevel::Reduced,
            egress: None,
        };
        let opened = self.client.open_session(codegen_proto::v1::OpenSessionRequest::from(open)).await;
        opened.expect("the session opens").into_inner().try_into().expect("a report")
    }

    pub fn request(&self, task: TaskId, operation: Operation) -> ExecuteTask {
        let timeout = Duration::from_secs(30);
        ExecuteTask { task, session: self.session, lease: self.lease.clone(), timeout, operation }
    }

    pub async fn stream(&self, request: ExecuteTask) -> Streaming<codegen_proto::v1::TaskEvent> {
        let request = codegen_proto::v1::TaskRequest::from(request);
        self.client
            .clone()
            .execute_task(futures::stream::iter([request]))
            .await
            .expect("the task is taken")
            .into_inner()
    }

    pub async fn run(&self, request: ExecuteTask) -> Ran {
        collect(self.stream(request).await).await
    }

    pub async fn exec(&self, program: Program, stdin: &str, env: &[(&str, &str)]) -> Ran {
        self.run(self.request(TaskId::mint(), exec(program, stdin, env))).await
    }

    pub async fn python(&self, code: &str) -> Ran {
        self.exec(python(code), "", &[]).await
    }

    pub async fn python_for(&self, code: &str, timeout: Duration) -> Ran {
        let mut request = self.request(TaskId::mint(), exec(python(code), "", &[]));
        request.timeout = timeout;
        self.run(request).await
    }

    pub async fn shell(&self, command: &str) -> Ran {
        self.exec(Program::Shell { command: command.to_owned() }, "", &[]).await
    }

    pub async fn write(&self, path: &str, contents: &str) {
        let write = WriteFile {
            path: path.to_owned().try_into().expect("a legal path"),
            contents: contents.into(),
            mode: WriteMode::Overwrite,
            if_match: None,
        };
        let ran = self.run(self.request(TaskId::mint(), Operation::Write(write))).await;
        assert_eq!(ran.code, None, "{ran:?}");
    }

    pub async fn cancel(&self, task: TaskId, grace: Duration) -> bool {
        let cancel = CancelTask { task, session: self.session, lease: self.lease.clone(), grace };
        let answer = self.client.clone().cancel_task(codegen_proto::v1::CancelTaskRequest::from(cancel)).await;
        answer.expect("the cancellation is taken").into_inner().was_running
    }

    pub async fn attach(&self, task: TaskId, from_seq: u64) -> Ran {
        let attach = AttachTask { task, session: self.session, lease: self.lease.clone(), from_seq };
        let answer = self.client.clone().attach_task(codegen_proto::v1::AttachTaskRequest::from(attach)).await;
        collect(answer.expect("the task is known").into_inner()).await
    }

    /// Waits until the worker process has ended; its exit code.
    pub async fn wait_for_end(&mut self, deadline: Duration) -> Option<i32> {
        let until = Instant::now() + deadline;
        poll(until, "the worker ends", || self.worker.try_wait().expect("a child of ours")).await.code()
    }
}

/// Asks again and again until there is an answer.
pub async fn poll<T>(until: Instant, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "{what} in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether a process of this machine has that text in its command line.
pub fn runs(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.windows(text.len()).any(|part| part == text.as_bytes()))
}

pub fn python(code: &str) -> Program {
    Program::PythonCode { code: code.to_owned(), args: Vec::new() }
}

pub fn exec(program: Program, stdin: &str, env: &[(&str, &str)]) -> Operation {
    let env: BTreeMap<String, String> = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Operation::Exec(Exec { stdin: stdin.into(), env, ..Exec::of(program) })
}

/// Ends a process of the bench from the host, as nothing inside can.
pub fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
}

/// The children of a process; none when it is gone.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// The process whose command line has that text, its parent, and so on up to `top`.
pub fn line_of(text: &str, top: u32) -> Option<Vec<u32>> {
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_text = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"sleep") && line.windows(text.len()).any(|part| part == text.as_bytes())
    };
    let mut line = vec![pids.find(has_text)?];
    while line.last() != Some(&top) {
        line.push(parent(*line.last()?).filter(|parent| *parent > 1)?);
    }
    Some(line)
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

pub async fn collect(mut stream: Streaming<codegen_proto::v1::TaskEvent>) -> Ran {
    let all = async {
        let mut events: Vec<Event> = Vec::new();
        while let Some(event) = stream.message().await.expect("the link holds") {
            events.push(event.try_into().expect("a well-formed event"));
        }
        events
    };
    Ran::of(tokio::time::timeout(Duration::from_secs(60), all).await.expect("the task ends"))
}

/// The worker under test. `WORKER_PROGRAM` names a copy of it, for a user who cannot reach the build directory.
pub fn worker_program() -> std::ffi::OsString {
    std::env::var_os("WORKER_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_worker").into())
}

fn start(directory: &tempfile::TempDir, socket: &Path, spare_limits: Option<Limits>) -> (Child, ChildStdin) {
    let mut message = serde_json::json!({
        "token": "token",
        "coordinator": format!("unix:{}", socket.display()),
        "worker_id": "embedded",
        "base_workspace": directory.path().join("workspaces"),
        "sessions_max": 8,
        "isolation_minimum": "reduced",
        "log_level": "info",
        "search_path": std::env::var("PATH").unwrap_or_default(),
    });
    if let Some(limits) = spare_limits {
        message["spare_limits"] = serde_json::json!(limits);
    }
    let mut worker = Command::new(worker_program())
        .arg("--embedded")
        .env_clear()
        .stdin(Stdio::piped())
        .spawn()
        .expect("the worker starts");
    let mut stdin = worker.stdin.take().expect("a pipe");
    writeln!(stdin, "{message}").expect("the start message");
    (worker, stdin)
}
