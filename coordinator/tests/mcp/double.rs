//! A session layer that runs nothing: programs are words that say what happens.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use codegen_types::event::{Edited, FileKind, FileStat, Found};
use codegen_types::{
    ErrorCode, EventBody, Exit, Failure, LogSeq, Operation, OperationResult, OutputStream, Principal, Program, Reach,
    Runtime, SessionId, TaskId,
};
use coordinator::session::{
    Captured, Changes, ChangesFollower, Completed, CreateSession, Launched, Live, Role, SessionFollower,
    SessionSnapshot, Shares, TaskCall, TaskInfo, TaskOutcome, TaskPhase, TaskSeen, UpdateSession,
};
use coordinator::tools::SessionCalls;
use coordinator_core::egress::InForce;
use coordinator_core::quota::{Quotas, Standing, Usage};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// What the double has, and what was asked of it.
#[derive(Default)]
pub struct Double {
    sessions: Mutex<HashMap<SessionId, Arc<SessionSnapshot>>>,
    pub calls: Mutex<Vec<TaskCall>>,
    /// Lets programs named `wait` go on.
    pub go: Notify,
    pub running: AtomicUsize,
    tasks: Mutex<HashMap<TaskId, Task>>,
    ended: Notify,
    /// What changes in workspaces.
    pub changes: Changes,
    /// What runs in sessions.
    pub live: Live,
    /// What workspaces hold. While there is nothing, every path is a file that says hello.
    pub files: Mutex<Vec<(FileStat, Vec<u8>)>>,
    /// Refuses every task for want of a log.
    pub log_is_gone: std::sync::atomic::AtomicBool,
}

/// A task that was launched.
struct Task {
    principal: Principal,
    session: SessionId,
    task: TaskId,
    tool: &'static str,
    cancel: CancellationToken,
    outcome: Option<TaskOutcome>,
}

impl Task {
    fn of(call: &TaskCall, cancel: CancellationToken) -> Self {
        let (principal, session) = (call.principal.clone(), call.session);
        Self { principal, session, task: call.task, tool: call.tool, cancel, outcome: None }
    }

    fn info(&self) -> TaskInfo {
        let phase = match self.outcome.as_ref().map(|outcome| &outcome.result) {
            None => TaskPhase::Running,
            Some(Ok(_)) => TaskPhase::Finished,
            Some(Err(failure)) => TaskPhase::Failed(failure.code),
        };
        let ended_ms = self.outcome.as_ref().map(|_| 1_000);
        let (principal, tool) = (self.principal.clone(), self.tool.to_owned());
        TaskInfo { task: self.task, session: self.session, principal, tool, phase, begun_ms: 0, ended_ms }
    }
}

pub struct Sessions(pub Arc<Double>);

impl Double {
    fn find(&self, principal: &Principal, session: SessionId) -> Result<Arc<SessionSnapshot>, Failure> {
        let found = self.sessions.lock().get(&session).cloned();
        found
            .filter(|snapshot| snapshot.access(principal).is_some())
            .ok_or_else(|| Failure::new(ErrorCode::SessionNotFound, "no session of yours has that handle"))
    }

    fn seen(&self, principal: &Principal, task: TaskId) -> Result<TaskSeen, Failure> {
        let tasks = self.tasks.lock();
        let known = tasks.get(&task).filter(|known| known.principal == *principal);
        let known = known.ok_or_else(|| Failure::new(ErrorCode::NotFound, "no task of yours has that id"))?;
        let log = Captured { head: b"so far\n".to_vec(), ..Captured::default() };
        Ok(TaskSeen { info: known.info(), log, outcome: known.outcome.clone() })
    }

    fn reshare(
        &self,
        principal: &Principal,
        session: SessionId,
        change: impl FnOnce(&Principal, &Shares) -> Shares,
    ) -> Result<Arc<SessionSnapshot>, Failure> {
        let mut snapshot = SessionSnapshot::clone(&*self.find(principal, session)?);
        snapshot.shares = change(principal, &snapshot.shares);
        self.sessions.lock().insert(session, Arc::new(snapshot));
        self.changes.tell(session, None);
        self.find(principal, session)
    }

    pub fn set_state(&self, session: SessionId, state: &'static str) {
        let mut sessions = self.sessions.lock();
        let mut snapshot = SessionSnapshot::clone(&sessions[&session]);
        snapshot.state = state;
        sessions.insert(session, Arc::new(snapshot));
    }

    /// What a look at [`files`](Self::files) gives; `None` while there are none.
    fn look(&self, operation: &Operation) -> Option<Result<Completed, Failure>> {
        let files = self.files.lock();
        if files.is_empty() {
            return None;
        }
        let result = match operation {
            Operation::Read(read) => {
                let (stat, contents) = files.iter().find(|(stat, _)| stat.path == read.path.as_str())?.clone();
                let contents = contents.into_iter().skip(usize::try_from(read.offset).ok()?);
                let limit = usize::try_from(read.limit.unwrap_or(u64::MAX)).ok()?;
                OperationResult::Read { contents: contents.take(limit).collect(), stat }
            }
            Operation::List(list) => {
                let of = |stat: &FileStat| stat.path.rsplit_once('/').map_or("", |(of, _)| of) == list.path.as_str();
                let mut entries: Vec<_> = files.iter().map(|(stat, _)| stat.clone()).filter(of).collect();
                let truncated = entries.len() > list.entries_max as usize;
                entries.truncate(list.entries_max as usize);
                OperationResult::List { entries, truncated }
            }
            _ => return None,
        };
        Some(Ok(completed(result, "")))
    }

    async fn execute(
        &self,
        call: &TaskCall,
        events: &mpsc::Sender<EventBody>,
        cancel: &CancellationToken,
    ) -> Result<Completed, Failure> {
        if let Some(seen) = self.look(&call.operation) {
            return seen;
        }
        let stat = FileStat {
            path: call.path.clone().unwrap_or_default(),
            kind: FileKind::File,
            size: 5,
            modified_ms: 0,
            etag: Some("v1".to_owned()),
            mode: 0o644,
            target: None,
        };
        match &call.operation {
            Operation::Exec(exec) => match &exec.program {
                Program::PythonCode { code, .. } => program(self, code, events, cancel).await,
                Program::PythonFile { .. }
                | Program::Shell { .. }
                | Program::Script { .. }
                | Program::Install { .. } => Ok(completed(exited(0), "ran\n")),
            },
            Operation::Read(_) => Ok(completed(OperationResult::Read { contents: b"hello".to_vec(), stat }, "")),
            Operation::Write(_) => Ok(completed(OperationResult::Write { stat, created: true }, "")),
            Operation::List(_) => Ok(completed(OperationResult::List { entries: vec![stat], truncated: false }, "")),
            Operation::Stat(_) => Ok(completed(OperationResult::Stat { stat }, "")),
            Operation::Move(_) => Ok(completed(OperationResult::Move { stat }, "")),
            Operation::Remove(_) => Ok(completed(OperationResult::Remove { removed: 1 }, "")),
            Operation::Search(_) => Ok(completed(OperationResult::Search(Found::default()), "")),
            Operation::Edit(_) => {
                Ok(completed(OperationResult::Edit(Edited { stat, replaced: 1, diff: "-a\n+b\n".to_owned() }), ""))
            }
            Operation::Kernels(_) => Ok(completed(OperationResult::Kernels { kernels: Vec::new() }, "")),
        }
    }
}

/// `say TEXT` writes it, `count N` writes N lines, `wait` waits to be let go, `for ever` until it is cancelled, `quiet`
/// for 25 seconds, `fail` exits with 1.
async fn program(
    double: &Double,
    code: &str,
    events: &mpsc::Sender<EventBody>,
    cancel: &CancellationToken,
) -> Result<Completed, Failure> {
    let say = async |text: &str| {
        let _ = events.send(EventBody::Output { stream: OutputStream::Stdout, bytes: text.into() }).await;
    };
    match code.split_once(' ').unwrap_or((code, "")) {
        ("say", text) => {
            say(text).await;
            Ok(completed(exited(0), text))
        }
        ("count", n) => {
            for line in 0..n.parse().expect("a number") {
                say(&format!("line {line}\n")).await;
            }
            Ok(completed(exited(0), "counted\n"))
        }
        ("quiet", _) => {
            tokio::time::sleep(std::time::Duration::from_secs(25)).await;
            Ok(completed(exited(0), ""))
        }
        ("wait", _) => {
            tokio::select! {
                () = double.go.notified() => {
                    say("let go\n").await;
                    Ok(completed(exited(0), "let go\n"))
                }
                () = cancel.cancelled() => Err(Failure::new(ErrorCode::TaskCancelled, "cancelled")),
            }
        }
        ("for", "ever") => {
            say("on and on\n").await;
            cancel.cancelled().await;
            Err(Failure::new(ErrorCode::TaskCancelled, "cancelled"))
        }
        ("fail", _) => Ok(completed(exited(1), "")),
        other => panic!("no such program: {other:?}"),
    }
}

fn exited(code: i32) -> OperationResult {
    OperationResult::Exec(Exit { code: Some(code), ..Exit::default() })
}

fn completed(result: OperationResult, stdout: &str) -> Completed {
    let stdout = Captured { head: stdout.into(), ..Captured::default() };
    Completed {
        result: Some(result),
        stdout,
        stderr: Captured::default(),
        both: Captured::default(),
        displays: vec![],
        overlapped: vec![],
    }
}

impl Sessions {
    /// The session that a principal made under that key.
    fn made_under(&self, principal: &Principal, key: &str) -> Option<Arc<SessionSnapshot>> {
        let sessions = self.0.sessions.lock();
        let is_it = |made: &&Arc<SessionSnapshot>| {
            made.principal == *principal && made.key.as_ref().is_some_and(|under| under.key == key)
        };
        sessions.values().find(is_it).cloned()
    }
}

impl SessionCalls for Sessions {
    fn knows_key<'a>(&'a self, _: &'a Principal, _: SessionId, _: &'a str) -> BoxFuture<'a, bool> {
        ready(false).boxed()
    }

    fn knows_creation(&self, principal: &Principal, key: &str) -> bool {
        self.made_under(principal, key).is_some()
    }

    fn runtimes(&self, _: &SessionSnapshot) -> Vec<Runtime> {
        let (version, path) = ("20.20.2".to_owned(), "/usr/bin/node".to_owned());
        vec![Runtime { name: "node".to_owned(), version, path }]
    }

    fn in_force(&self, session: &SessionSnapshot) -> InForce {
        let hosts = session.network.allow.iter().map(|host| (host.clone(), Reach::Public)).collect();
        InForce { hosts, dropped: Vec::new() }
    }

    fn create(
        &self,
        principal: Principal,
        create: CreateSession,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        async move {
            let same = create.key.as_ref().and_then(|key| self.made_under(&principal, &key.key));
            match same {
                Some(made) if made.key == create.key => return Ok(made),
                Some(_) => return Err(Failure::new(ErrorCode::InvalidArgument, "`idempotency_key`: used otherwise")),
                None => {}
            }
            let snapshot = Arc::new(SessionSnapshot {
                id: SessionId::mint(),
                principal,
                shares: Shares::default(),
                writer: None,
                name: create.name,
                metadata: create.metadata,
                network: create.network,
                key: create.key,
                state: "ready",
                lease: None,
                isolation: None,
                ttl_ms: create.ttl.map_or(1_800_000, |ttl| ttl.as_millis() as u64),
                created_ms: 0,
                last_used_ms: 0,
                closed_ms: None,
                retained_until_ms: 0,
                running: vec![],
                tasks: 0,
                workspace_bytes: None,
                receipt: Arc::default(),
            });
            self.0.sessions.lock().insert(snapshot.id, Arc::clone(&snapshot));
            Ok(snapshot)
        }
        .boxed()
    }

    fn get(&self, principal: &Principal, session: SessionId) -> Result<Arc<SessionSnapshot>, Failure> {
        self.0.find(principal, session)
    }

    fn standing(&self, _: &Principal) -> Standing {
        Usage::default().standing(&Quotas::default(), 1, 0)
    }

    fn list(&self, principal: &Principal, include_closed: bool) -> Vec<Arc<SessionSnapshot>> {
        let sessions = self.0.sessions.lock();
        let mut listed: Vec<_> = sessions
            .values()
            .filter(|s| s.access(principal).is_some() && (include_closed || s.state != "closed"))
            .cloned()
            .collect();
        listed.sort_by_key(|s| s.id);
        listed
    }

    fn update(
        &self,
        principal: Principal,
        session: SessionId,
        update: UpdateSession,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        async move {
            let mut snapshot = SessionSnapshot::clone(&*self.0.find(&principal, session)?);
            snapshot.name = update.name.or(snapshot.name);
            snapshot.metadata.extend(update.metadata.unwrap_or_default());
            let snapshot = Arc::new(snapshot);
            self.0.sessions.lock().insert(session, Arc::clone(&snapshot));
            Ok(snapshot)
        }
        .boxed()
    }

    fn share(
        &self,
        principal: Principal,
        session: SessionId,
        with: Principal,
        role: Role,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        ready(self.0.reshare(&principal, session, |owner, shares| {
            shares.with(owner, &with, role).expect("the test shares as it may")
        }))
        .boxed()
    }

    fn unshare(
        &self,
        principal: Principal,
        session: SessionId,
        with: Principal,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        ready(self.0.reshare(&principal, session, |_, shares| shares.without(&with))).boxed()
    }

    fn close(&self, principal: Principal, session: SessionId) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        async move {
            self.0.find(&principal, session)?;
            self.0.set_state(session, "closed");
            self.0.find(&principal, session)
        }
        .boxed()
    }

    fn launch(
        &self,
        call: TaskCall,
        events: mpsc::Sender<EventBody>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Launched> {
        let (task, double) = (call.task, Arc::clone(&self.0));
        let refused = match double.find(&call.principal, call.session) {
            Err(failure) => Some(failure),
            Ok(_) if double.log_is_gone.load(Ordering::Relaxed) => {
                Some(Failure::new(ErrorCode::AuditUnavailable, "no log"))
            }
            Ok(_) => None,
        };
        if let Some(failure) = refused {
            let outcome = TaskOutcome { task, result: Err(failure), partial: None, audit_seq: None, replayed: false };
            let launched = Launched { task, begun: ready(false).boxed(), outcome: ready(outcome).boxed() };
            return ready(launched).boxed();
        }
        double.running.fetch_add(1, Ordering::Relaxed);
        double.tasks.lock().insert(task, Task::of(&call, cancel.clone()));
        let (reply, outcome) = oneshot::channel();
        tokio::spawn(async move {
            let result = double.execute(&call, &events, &cancel).await;
            double.running.fetch_sub(1, Ordering::Relaxed);
            double.calls.lock().push(call);
            let outcome = TaskOutcome { task, result, partial: None, audit_seq: Some(LogSeq(1)), replayed: false };
            if let Some(known) = double.tasks.lock().get_mut(&task) {
                known.outcome = Some(outcome.clone());
            }
            double.ended.notify_waiters();
            let _ = reply.send(outcome);
        });
        let outcome = outcome.map(|outcome| outcome.expect("the double lives")).boxed();
        ready(Launched { task, begun: ready(true).boxed(), outcome }).boxed()
    }

    fn task(&self, principal: Principal, task: TaskId) -> BoxFuture<'_, Result<TaskSeen, Failure>> {
        ready(self.0.seen(&principal, task)).boxed()
    }

    fn tasks(
        &self,
        principal: Principal,
        session: Option<SessionId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<TaskInfo>, Failure>> {
        let tasks = self.0.tasks.lock();
        let theirs = tasks.values().filter(|t| t.principal == principal && session.is_none_or(|s| s == t.session));
        ready(Ok(theirs.map(Task::info).take(limit as usize).collect())).boxed()
    }

    fn wait(
        &self,
        principal: Principal,
        task: TaskId,
        timeout: std::time::Duration,
    ) -> BoxFuture<'_, Result<TaskSeen, Failure>> {
        async move {
            let until_it_ended = async {
                loop {
                    let ended = self.0.ended.notified();
                    match self.0.seen(&principal, task) {
                        Ok(TaskSeen { outcome: None, .. }) => ended.await,
                        seen => return seen,
                    }
                }
            };
            let in_time = tokio::time::timeout(timeout, until_it_ended).await;
            in_time.unwrap_or_else(|_| self.0.seen(&principal, task))
        }
        .boxed()
    }

    fn cancel_task(&self, principal: Principal, task: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        let seen = self.0.seen(&principal, task);
        if let Some(task) = self.0.tasks.lock().get(&task).filter(|_| seen.is_ok()) {
            task.cancel.cancel();
        }
        ready(seen.map(drop)).boxed()
    }

    fn follow_session(&self, principal: &Principal, session: SessionId) -> Result<SessionFollower, Failure> {
        self.0.find(principal, session)?;
        Ok(self.0.live.follow(session, std::future::pending().boxed()))
    }

    fn changes(&self) -> ChangesFollower {
        self.0.changes.follow()
    }
}
