//! What clients do: sessions made and closed, programs run, repeated under their keys, and cancelled.

use std::sync::Arc;
use std::time::Duration;

use codegen_types::{ErrorCode, Exec, Operation, Principal, Program, SessionId, TaskId};
use coordinator::session::{CreateSession, Leave, Sessions, TaskCall, TaskOutcome};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ground::{Call, Ground, Told, Truth, output_of};
use crate::settled::says_that_its_output_is_lost;

/// Sessions that are used at once.
const SESSIONS_MAX: usize = 8;

pub fn ann() -> Principal {
    Principal::os_user("ann")
}

/// What a client does next.
enum Act {
    Create { wait: Duration },
    Run { number: u64, call: Call },
    Close(SessionId),
    Cancel(TaskId),
    Nothing,
}

/// Acts again and again until there is peace, or the coordinator is gone.
pub async fn until_peace(ground: &Arc<Ground>, sessions: &Sessions) {
    loop {
        let pause = ground.with(|truth| truth.random.below(900));
        tokio::time::sleep(Duration::from_millis(20 + pause)).await;
        if ground.with(|truth| truth.is_peace) {
            return;
        }
        let act = ground.with(choose);
        tokio::spawn(perform(Arc::clone(ground), sessions.clone(), act));
    }
}

fn choose(truth: &mut Truth) -> Act {
    let one = pick(truth, truth.sessions.len()).map(|at| truth.sessions[at]);
    match (truth.random.below(20), one) {
        (0..4, _) if truth.sessions.len() < SESSIONS_MAX => {
            Act::Create { wait: Duration::from_millis(truth.random.below(3_000)) }
        }
        (4..15, Some(session)) => new_call(truth, session),
        (15, Some(session)) if truth.random.below(3) == 0 => {
            truth.sessions.retain(|other| *other != session);
            Act::Close(session)
        }
        (16, Some(_)) => match pick(truth, truth.calls.len()).and_then(|at| truth.calls.values().nth(at)) {
            Some(call) => Act::Cancel(call.attempts[0].0),
            None => Act::Nothing,
        },
        (17..20, Some(_)) => again(truth),
        _ => Act::Nothing,
    }
}

fn pick(truth: &mut Truth, of: usize) -> Option<usize> {
    (of > 0).then(|| usize::try_from(truth.random.below(of as u64)).unwrap())
}

fn new_call(truth: &mut Truth, session: SessionId) -> Act {
    let number = truth.calls.len() as u64 + 1;
    let key = truth.random.one_in(2).then(|| format!("key {number}"));
    let call = Call { session, key, attempts: vec![(TaskId::mint(), None)] };
    truth.calls.insert(number, call.clone());
    Act::Run { number, call }
}

/// The same call under the same key, as a client does that has lost its connection.
fn again(truth: &mut Truth) -> Act {
    let keyed: Vec<u64> =
        truth.calls.iter().filter(|(_, call)| call.key.is_some()).map(|(number, _)| *number).collect();
    let Some(at) = pick(truth, keyed.len()) else { return Act::Nothing };
    let number = keyed[at];
    let call = truth.calls.get_mut(&number).unwrap();
    call.attempts.push((TaskId::mint(), None));
    truth.counts.repeated += 1;
    Act::Run { number, call: truth.calls[&number].clone() }
}

async fn perform(ground: Arc<Ground>, sessions: Sessions, act: Act) {
    match act {
        Act::Nothing => {}
        // Two at once, as there are many clients.
        Act::Create { wait } => {
            tokio::join!(create(&ground, &sessions, wait), create(&ground, &sessions, Duration::ZERO));
        }
        Act::Close(session) => {
            let closed = sessions.close(&ann(), session).await;
            ground.tell(format_args!("{session} is closed: {:?}", closed.map(|snapshot| snapshot.state)));
        }
        Act::Cancel(task) => {
            let cancelled = sessions.cancel_task(&ann(), task).await;
            ground.tell(format_args!("{task} is cancelled: {cancelled:?}"));
        }
        Act::Run { number, call } => run(&ground, &sessions, number, &call).await,
    }
}

async fn create(ground: &Ground, sessions: &Sessions, wait: Duration) {
    match sessions.create(&ann(), CreateSession { wait, ..CreateSession::default() }).await {
        Ok(made) => ground.with(|truth| {
            truth.tell(format_args!("{} is made", made.id));
            truth.sessions.push(made.id);
        }),
        Err(failure) => ground.tell(format_args!("no session: {failure}")),
    }
}

async fn run(ground: &Ground, sessions: &Sessions, number: u64, call: &Call) {
    let (task, attempt) = (call.attempts.last().unwrap().0, call.attempts.len() - 1);
    ground.tell(format_args!("{} calls program {number} as {task}", call.session));
    let (events, mut heard) = mpsc::channel(4);
    let hearing = async { while heard.recv().await.is_some() {} };
    let calling = sessions.run(task_call(number, task, call), events, CancellationToken::new());
    let (outcome, ()) = tokio::join!(calling, hearing);
    let told = told(&outcome);
    ground.with(|truth| {
        truth.tell(format_args!("program {number} as {}: {}", outcome.task, shown(&outcome)));
        if let Told::Result(output) = &told
            && *output != output_of(number)
        {
            let output = String::from_utf8_lossy(output).into_owned();
            truth.broken = Some(format!("program {number} has a result that is not its own: {output:?}"));
        }
        match &told {
            Told::Result(_) => truth.counts.finished += 1,
            Told::Failed(ErrorCode::TaskOutcomeUnknown) => truth.counts.unknown += 1,
            Told::Failed(_) => truth.counts.refused += 1,
        }
        truth.calls.get_mut(&number).unwrap().attempts[attempt] = (outcome.task, Some(told));
    });
}

fn told(outcome: &TaskOutcome) -> Told {
    match &outcome.result {
        // It has run, and nothing else is known.
        Ok(completed) if says_that_its_output_is_lost(completed) => Told::Failed(ErrorCode::TaskOutcomeUnknown),
        Ok(completed) => Told::Result(completed.stdout.head.clone()),
        Err(failure) => Told::Failed(failure.code),
    }
}

fn shown(outcome: &TaskOutcome) -> String {
    match &outcome.result {
        Ok(completed) => format!("{:?} {:?}", completed.result, String::from_utf8_lossy(&completed.stdout.head)),
        Err(failure) => failure.to_string(),
    }
}

fn task_call(number: u64, task: TaskId, call: &Call) -> TaskCall {
    let program = Program::Shell { command: format!("program {number}") };
    TaskCall {
        principal: ann(),
        session: call.session,
        task,
        tool: "run_shell",
        called_as: "run_shell".to_owned(),
        args: json!({ "command": format!("program {number}") }),
        path: None,
        operation: Operation::Exec(Exec::of(program)),
        read_only: false,
        timeout: None,
        idempotency_key: call.key.clone(),
        client: None,
        trace: None,
        arrival: None,
        leave: Leave::Free,
    }
}
