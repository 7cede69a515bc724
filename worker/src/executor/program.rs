//! Running a program: start it, pass on what it writes, end it when it must end, say what it did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{ErrorCode, EventBody, Exec, Exit, Failure, OperationResult, OutputStream, Program, ResourceUse};
use sandbox::{ChildEnd, SandboxEnd};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::changes;
use super::displays::Displays;
use super::ending::Ending;
use super::output::Output;
use super::stdio::{self, Stdio, Streams};
use super::subject::{self, Ended, Subject};
use crate::disk::{self, Scratch};
use crate::egress::Egress;
use crate::files;
use crate::runtimes::{Prepared, StartError};
use crate::session::{Live, Session, Turn};
use crate::tasks::{Gate, Task};

/// How long a supervisor may take to say that a killed program is gone, before its whole sandbox is destroyed.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// What is said of a program whose sandbox was lost before it could say that the program runs.
const PERHAPS: &str = "The sandbox was lost while it started the program: whether the program began is not known.";

/// How long a sandbox whose supervisor is lost may take to end by itself.
const OWN_END: Duration = Duration::from_millis(250);

/// Runs a program to its end; the task's last event.
pub(crate) async fn run(
    task: &Arc<Task>,
    session: &Arc<Session>,
    exec: Exec,
    turn: Option<Turn>,
    clock: Clock,
    gate: &Gate,
) -> EventBody {
    // Those that are held begin when they pass.
    if gate.is_open() {
        task.begin();
    }
    match start_and_watch(task, session, exec, turn, clock, gate).await {
        Ok(last) => last,
        Err(failure) => EventBody::Failed { failure, exit: None },
    }
}

/// When a task's time is up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub deadline: Instant,
    pub given: Duration,
    /// How much of the time was over when it began.
    waited: Duration,
}

impl Clock {
    /// Gives so much time from now.
    pub fn start(given: Duration) -> Self {
        Self { deadline: Instant::now() + given, given, waited: Duration::ZERO }
    }

    /// The same, for a task that waited until now for its turn.
    pub fn after_waiting(self) -> Self {
        let left = self.deadline.saturating_duration_since(Instant::now());
        Self { waited: self.given.saturating_sub(left), ..self }
    }
}

async fn start_and_watch(
    task: &Arc<Task>,
    session: &Arc<Session>,
    exec: Exec,
    mut turn: Option<Turn>,
    clock: Clock,
    gate: &Gate,
) -> Result<EventBody, Failure> {
    let early = |ending: Ending| Ok(ending.failed(None));
    let Exec { program, stdin, env, kernel: _, network } = exec;
    let runtimes = session.runtimes();
    let env = with_proxy(session, &program, env);
    let mut prepared = runtimes.prepare(session.workspace(), program, env, network).await?;
    subject::check(session, turn.as_ref(), &prepared)?;
    prepared.hold_at(gate);
    if session.live_now().is_none() || turn.as_mut().is_some_and(Turn::must_clear) {
        gate.pass().await;
    }
    if let Some(turn) = &mut turn {
        turn.clear().await;
    }
    // What is refused because the session is ending was ended, and did not fail.
    let (live, news) = tokio::select! {
        biased;
        ending = stopped(task, clock) => return early(ending),
        live = session.live() => live?,
    };
    let mut notes: Vec<String> = news.into_iter().collect();
    let before = files::scan(session.workspace()).await?;
    let no_pipes = |error: std::io::Error| {
        tracing::error!(task = %task.id, %error, "no pipes for a program");
        Failure::new(ErrorCode::Internal, "The worker could not make pipes; nothing was run.")
    };
    let (stdio, streams) = Stdio::make(!stdin.is_empty(), session.uid()).map_err(no_pipes)?;
    let (shows, shown) = stdio::one_way(session.uid()).map_err(no_pipes)?;
    let was_held = !gate.is_open();
    let starting = subject::start(session, &live, turn, &prepared, stdio, shows, gate);
    tokio::pin!(starting);
    let started = tokio::select! {
        biased;
        // What may have begun to run is ended like all that runs, so that nothing of it is left.
        ending = stopped(task, clock) => match tokio::time::timeout(KILL_DEADLINE, &mut starting).await {
            Ok(started) => started,
            Err(_) => {
                live.destroy().await;
                return early(ending);
            }
        },
        started = &mut starting => started,
    };
    task.begin();
    let began = gate.open_since().filter(|_| was_held).unwrap_or_else(Instant::now);
    let (mut subject, news) = started.map_err(|error| start_failure(task, error))?;
    notes.extend(news);
    if subject.outlives_its_task() {
        session.look_after();
    }
    let showing = Displays::new(task, session, clock);
    let output = Output::new(task, session.limits().output_bytes, Some(Arc::clone(session.workspace())));
    let exited = CancellationToken::new();
    let Streams { stdin: feed, stdout, stderr } = streams;
    let watched = async {
        let watched = watch(&mut subject, task, session, live.sampled_scratch(session.limits()), &output, clock).await;
        exited.cancel();
        watched
    };
    let (watched, said, (), (), (), ()) = tokio::join!(
        watched,
        showing.pump(shown, &exited),
        output.pump(OutputStream::Stdout, stdout, &exited),
        output.pump(OutputStream::Stderr, stderr, &exited),
        write_stdin(feed, stdin, &exited),
        changes::tell(task, session.workspace(), &before, &exited),
    );
    let wall_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (end, mut ending) = watched;
    notes.extend(said);
    // What a program wrote last is read after it ended, and counts.
    if ending.is_none() && output.is_exceeded() {
        ending = Some(Ending::Output(session.limits().output_bytes));
    }
    let (end, lost) = match end {
        Some(Ended { end, note }) => {
            notes.extend(note);
            (end, None)
        }
        None => {
            notes.extend((!subject.has_begun()).then(|| PERHAPS.to_owned()));
            ending = ending.or_else(|| live.outgrown().map(|of| Ending::of_outgrown(of, session.limits())));
            destroy(&live, session).await
        }
    };
    if matches!(ending, Some(Ending::Scratch(_))) {
        // Nobody but the session's programs could make room there, and each of them would be ended first.
        live.destroy().await;
    }
    let kept = output.kept().await;
    notes.extend(kept.note);
    let (files_changed, files_changed_truncated) = match files::scan(session.workspace()).await {
        Ok(after) => before.changes_to(&after),
        Err(failure) => {
            notes.push(format!("Which files it changed is not known: {}", failure.message));
            (Vec::new(), true)
        }
    };
    notes.extend(refusals(session, end.processes_refused));
    let mut exit = Exit {
        code: end.code,
        signal: end.signal,
        used: ResourceUse { wall_ms, cpu_ms: end.cpu_ms, memory_peak_bytes: end.memory_peak_bytes },
        files_changed,
        files_changed_truncated,
        leftovers_killed: end.leftovers_killed,
        notes,
        output_file: kept.file,
        ..Exit::default()
    };
    if let Prepared::Install(installation) = &prepared {
        installation.tell(&mut exit).await;
    }
    exit.contacts = session.egress().map(Egress::take_contacts).unwrap_or_default();
    Ok(last_event(task, session, exit, ending, lost, &end))
}

/// The variables of a call, and those by which its program finds the session's proxy. An installation has its own way.
fn with_proxy(session: &Session, program: &Program, env: BTreeMap<String, String>) -> BTreeMap<String, String> {
    match (session.egress(), program) {
        (None, _) | (_, Program::Install { .. }) => env,
        (Some(egress), _) => egress.variables().into_iter().chain(env).collect(),
    }
}

/// Waits until the task must end for a reason that has nothing to do with its program.
pub(super) async fn stopped(task: &Task, clock: Clock) -> Ending {
    tokio::select! {
        why = task.stopped() => why.into(),
        () = tokio::time::sleep_until(clock.deadline) => Ending::TimedOut { given: clock.given, waited: clock.waited },
    }
}

/// Waits for the program's end and brings it about when it must end. No end: its supervisor is lost.
async fn watch(
    subject: &mut Subject,
    task: &Task,
    session: &Session,
    scratch: Option<Scratch>,
    output: &Output<'_>,
    clock: Clock,
) -> (Option<Ended>, Option<Ending>) {
    let limits = session.limits();
    let restarted = subject.restarted();
    let must_end = async {
        tokio::select! {
            ending = stopped(task, clock) => ending,
            () = restarted => Ending::KernelRestarted,
            () = output.exceeded() => Ending::Output(limits.output_bytes),
            of = disk::outgrown(session.workspace(), scratch) => Ending::of_outgrown(of, limits),
        }
    };
    let ending = tokio::select! {
        end = subject.wait() => return (end.ok(), None),
        ending = must_end => ending,
    };
    if let Some(grace) = ending.grace(subject.outlives_its_task()) {
        // A session that is closed meanwhile destroys the sandbox, which ends the wait.
        if let Ok(end) = tokio::time::timeout(grace, subject.end_by_interrupt()).await {
            return (end.ok(), Some(ending));
        }
    }
    subject.kill(ending).await;
    let end = tokio::time::timeout(KILL_DEADLINE, subject.wait()).await;
    (end.ok().and_then(Result::ok), Some(ending))
}

async fn write_stdin(feed: Option<pipe::Sender>, bytes: Vec<u8>, exited: &CancellationToken) {
    if let Some(mut feed) = feed {
        tokio::select! {
            // A program need not read what it is given.
            _ = feed.write_all(&bytes) => {}
            () = exited.cancelled() => {}
        }
    }
}

/// Ends a sandbox in which survivors of a task can no longer be told from others.
async fn destroy(live: &Arc<Live>, session: &Session) -> (ChildEnd, Option<SandboxEnd>) {
    // A sandbox that is ending by itself, for want of memory, says so when it is let end.
    let by_itself = tokio::time::timeout(OWN_END, live.ended()).await.is_ok();
    if !by_itself {
        tracing::warn!(session = %session.id(), "a supervisor was lost; the session's sandbox is destroyed");
    }
    let leftovers_killed = live.destroy().await;
    // What does not die must not keep its task from being told of.
    let end = tokio::time::timeout(KILL_DEADLINE, live.ended()).await.unwrap_or(SandboxEnd::Crashed);
    (ChildEnd { signal: Some(libc::SIGKILL), leftovers_killed, ..ChildEnd::default() }, Some(end))
}

fn last_event(
    task: &Task,
    session: &Session,
    exit: Exit,
    ending: Option<Ending>,
    lost: Option<SandboxEnd>,
    end: &ChildEnd,
) -> EventBody {
    let failed = exit.signal.is_some() || exit.code != Some(0);
    if lost == Some(SandboxEnd::MemoryLimit) || (end.memory_limit_hit && failed) {
        return Ending::Memory(session.limits().memory_bytes).failed(Some(exit));
    }
    if let Some(ending) = ending {
        return ending.failed(Some(exit));
    }
    if lost.is_some() {
        let note = "\n[the sandbox was restarted: the process that watches over this task was killed, and with it every \
                    process of the session; files of the workspace are kept]\n";
        task.push(EventBody::Output { stream: OutputStream::Stderr, bytes: note.into() });
    }
    if end.processes_refused > 0 && failed && lost.is_none() {
        let max = session.limits().processes;
        let message =
            format!("it could not start another process or thread beside the {max} that its session may have");
        return EventBody::Failed { failure: Failure::new(ErrorCode::ProcessLimit, message), exit: Some(exit) };
    }
    EventBody::Finished(OperationResult::Exec(exit))
}

/// A sentence for whoever did not see that the system refused to start processes or threads.
fn refusals(session: &Session, count: u64) -> Option<String> {
    let max = session.limits().processes;
    let note = "The session had as many processes and threads as it may";
    (count > 0).then(|| format!("{note} ({max}): starting another was refused {count} times meanwhile."))
}

fn start_failure(task: &Task, error: StartError) -> Failure {
    tracing::warn!(task = %task.id, error = &error as &dyn std::error::Error, "a program did not start");
    error.failure()
}
