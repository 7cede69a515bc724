//! Events of tasks in any order that a hostile worker may send them in: a task has one end, which is what the events up to it
//! say, or is unknown; what is passed on is bounded; and nobody else's task notices.

use codegen_proto::v1;
use codegen_types::{Display, ErrorCode, Event, EventBody, Exit, Failure, OperationResult, OutputStream};
use coordinator::workers::{DispatchEnd, WorkersOptions};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tonic::Status;

use crate::double::{Double, Spec};
use crate::rig::{LONG, Rig};
use crate::streams::Script;

/// How much a task may send, with a little more than that in some of the scripts.
const OUTPUT_BYTES_MAX: u64 = 2_000;
const PROGRESS_MAX: u32 = 3;
/// As in the dispatch: streams that make no sense, and those that break with nothing new on them.
const FAULTS_MAX: u32 = 1;
const STRIKES_MAX: u32 = 4;
/// Tasks at once, each with a script of its own.
const TASKS: usize = 24;

/// What an event says of its place.
#[derive(Debug, Clone, Copy)]
enum Place {
    Next,
    Again,
    First,
    Later(u64),
    Zero,
    Last,
}

/// What an event says; nothing is an event, too.
type Said = Option<EventBody>;

/// The events of one stream, and whether it ends as it should or breaks.
#[derive(Debug, Clone)]
struct Stream {
    events: Vec<(Place, Said)>,
    breaks: bool,
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        30 => Just(Place::Next),
        1 => Just(Place::Again),
        1 => Just(Place::First),
        1 => (1_u64..9).prop_map(Place::Later),
        1 => Just(Place::Zero),
        1 => Just(Place::Last),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    let output =
        |stream| (0_usize..700).prop_map(move |size| Some(EventBody::Output { stream, bytes: vec![b'x'; size] }));
    let picture = |size| Display { mime: "image/png".to_owned(), path: None, data: vec![0; size] };
    let failure = |code| Failure::new(code, "as it likes");
    prop_oneof![
        4 => Just(Some(EventBody::Started)),
        8 => output(OutputStream::Stdout),
        4 => output(OutputStream::Stderr),
        3 => Just(Some(EventBody::Progress { message: "half".to_owned() })),
        2 => (0_usize..300).prop_map(move |size| Some(EventBody::Display(picture(size)))),
        1 => Just(None),
        2 => (0_i32..3).prop_map(|code| {
            Some(EventBody::Finished(OperationResult::Exec(Exit { code: Some(code), ..Exit::default() })))
        }),
        1 => Just(Some(EventBody::Finished(OperationResult::Remove { removed: 1 }))),
        2 => prop_oneof![Just(ErrorCode::MemoryLimit), Just(ErrorCode::Internal), Just(ErrorCode::TaskTimeout)]
            .prop_map(move |code| Some(EventBody::Failed { failure: failure(code), exit: None })),
    ]
}

fn script() -> impl Strategy<Value = Vec<Stream>> {
    let events = prop::collection::vec((place(), said()), 0..12);
    let stream = (events, any::<bool>()).prop_map(|(events, breaks)| Stream { events, breaks });
    prop::collection::vec(stream, 1..6)
}

/// What a task comes to whose worker sends this.
#[derive(Debug, PartialEq)]
enum Outcome {
    NotStarted,
    Unknown,
    Answered(Box<EventBody>),
}

/// The same as the dispatch decides, said once more and simply: what it passes on, and how it ends.
fn expected(script: &[Stream]) -> (Vec<EventBody>, Outcome) {
    let (mut last, mut faults, mut strikes) = (0, 0, 0);
    let (mut passed, mut bytes_left, mut exceeded) = (Vec::new(), OUTPUT_BYTES_MAX as usize, false);
    for stream in script {
        for (place, said) in &stream.events {
            let body = match said {
                Some(body) if seq_of(*place, last) == last + 1 => body.clone(),
                Some(_) | None => {
                    faults += 1;
                    break;
                }
            };
            (last, strikes) = (last + 1, 0);
            match body {
                EventBody::Finished(OperationResult::Remove { .. }) => return (passed, Outcome::Unknown),
                EventBody::Finished(_) | EventBody::Failed { .. } => {
                    let code = |code| EventBody::Failed { failure: Failure::new(code, ""), exit: None };
                    let end = if exceeded { code(ErrorCode::OutputLimit) } else { body };
                    return (passed, Outcome::Answered(Box::new(end)));
                }
                EventBody::Started if passed.contains(&EventBody::Started) => {}
                EventBody::Output { stream, bytes } => {
                    let taken = bytes.len().min(bytes_left);
                    (exceeded, bytes_left) = (exceeded || taken < bytes.len(), bytes_left - taken);
                    if taken > 0 {
                        passed.push(EventBody::Output { stream, bytes: bytes[..taken].to_vec() });
                    }
                }
                EventBody::Progress { .. } => {
                    if passed.iter().filter(|body| matches!(body, EventBody::Progress { .. })).count() < 3 {
                        passed.push(body);
                    }
                }
                body @ (EventBody::Started | EventBody::Display(_) | EventBody::FilesChanged(_)) => passed.push(body),
            }
        }
        strikes += 1;
        if faults > FAULTS_MAX || strikes == STRIKES_MAX {
            return (passed, Outcome::Unknown);
        }
    }
    // It is asked again, and says that it never heard of the task.
    (passed, if last == 0 { Outcome::NotStarted } else { Outcome::Unknown })
}

fn seq_of(place: Place, last: u64) -> u64 {
    match place {
        Place::Next => last + 1,
        Place::Again => last,
        Place::First => 1,
        Place::Later(more) => last + 1 + more,
        Place::Zero => 0,
        Place::Last => u64::MAX,
    }
}

/// The script as it goes over the link. Places are counted as the coordinator counts them, so that those that are meant to
/// be right are.
fn sent(script: &[Stream]) -> Script {
    let mut last = 0;
    let streams = script.iter().map(|stream| {
        let mut events: Vec<Result<v1::TaskEvent, Status>> = Vec::new();
        let mut is_whole = true;
        for (place, said) in &stream.events {
            let seq = seq_of(*place, last);
            match said {
                Some(body) => events.push(Ok(Event { seq, body: body.clone() }.into())),
                None => events.push(Ok(v1::TaskEvent { seq, body: None, times: None })),
            }
            is_whole &= said.is_some() && seq == last + 1;
            last += u64::from(is_whole);
        }
        if stream.breaks {
            events.push(Err(Status::unavailable("as it likes")));
        }
        events
    });
    streams.collect()
}

async fn check(rig: &Rig, double: &Double, scripts: Vec<Vec<Stream>>) {
    let mut runs = Vec::new();
    for (number, script) in scripts.into_iter().enumerate() {
        let command = format!("script {number}");
        double.tasks.follow(&command, sent(&script));
        runs.push((rig.start_with(double, &command, |task| task.output_bytes_max = OUTPUT_BYTES_MAX), script));
        if number % 8 == 0 {
            runs.push((rig.start(double, "hello"), Vec::new()));
        }
    }
    for (run, script) in runs {
        let (end, events) = run.end().await;
        if script.is_empty() {
            let told: Vec<u8> = events
                .into_iter()
                .flat_map(|event| match event {
                    EventBody::Output { bytes, .. } => bytes,
                    _ => Vec::new(),
                })
                .collect();
            assert!(matches!(end, DispatchEnd::Answered(EventBody::Finished(_))), "another's task: {end:?}");
            assert_eq!(told, b"helloworld");
            continue;
        }
        let (passed, outcome) = expected(&script);
        assert!(events.iter().all(|event| !event.is_last()), "{events:?}");
        assert_eq!(events, passed, "{script:#?}");
        match (end, outcome) {
            (DispatchEnd::NotStarted(_), Outcome::NotStarted) | (DispatchEnd::Unknown(_), Outcome::Unknown) => {}
            (DispatchEnd::Answered(end), Outcome::Answered(wanted)) => match (&end, &*wanted) {
                (EventBody::Failed { failure, .. }, EventBody::Failed { failure: wanted, .. }) => {
                    assert_eq!(failure.code, wanted.code, "{script:#?}");
                }
                (_, wanted) => assert_eq!(&end, wanted, "{script:#?}"),
            },
            (end, outcome) => panic!("{end:?}, not {outcome:?}: {script:#?}"),
        }
    }
}

#[test]
fn a_task_has_one_end_in_whatever_order_its_worker_sends_events_and_no_other_task_notices() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // No time may run out: what is expected is told by the events alone.
    let options = WorkersOptions {
        cancel_slack: LONG * 10,
        display_bytes_max: 1 << 20,
        progress_events_max: PROGRESS_MAX,
        ..WorkersOptions::default()
    };
    let (rig, double) = runtime.block_on(async {
        let mut rig = Rig::new(options).await;
        let double = rig.joined(Spec::named("a")).await;
        (rig, double)
    });
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let scripts = prop::collection::vec(script(), 1..=TASKS);
    let checked = runner.run(&scripts, |scripts| {
        runtime.block_on(check(&rig, &double, scripts));
        Ok(())
    });
    // What was found is shown at its shortest.
    checked.unwrap_or_else(|found| panic!("{found}"));
    drop(runtime.enter());
}
