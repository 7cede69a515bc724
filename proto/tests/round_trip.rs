//! What is written on the wire reads back as it was.

use std::time::Duration;

use codegen_proto::{
    AttachTask, CancelTask, CloseSession, DeregisterWorker, ExecuteTask, Heartbeat, HeartbeatAnswer, OpenSession,
    Registered, Secret, SessionClosed, SessionOpened, v1,
};
use codegen_types::event::{
    ChangeKind, Edited, FileChange, FileKind, FileMatches, FileStat, Found, FoundLine, KernelInfo, SearchCut,
    SkippedFiles,
};
use codegen_types::operation::{
    Edit, Kernels, List, Move, Pictures, Read, Remove, ScriptSource, Search, Stat, Write, WriteMode,
};
use codegen_types::{
    Capabilities, Contact, ContactOutcome, Display, Epoch, ErrorCode, Event, EventBody, Exec, Exit, Failure,
    HeldSession, HostUse, Incarnation, IsolationLevel, IsolationReport, KernelName, Layer, LayerReport, LayerState,
    Lease, Limits, Network, Operation, OperationResult, OutputStream, Package, Program, ResourceUse, Resources,
    Runtime, SessionId, TaskId, WorkspacePath,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use uuid::Uuid;

/// Sends a value through its encoded form.
fn through<W: Message + Default, T: Into<W> + TryFrom<W>>(value: T) -> T
where
    T::Error: std::fmt::Debug,
{
    let wire: W = value.into();
    let encoded = wire.encode_to_vec();
    T::try_from(W::decode(encoded.as_slice()).expect("decodes")).expect("converts")
}

fn session() -> impl Strategy<Value = SessionId> {
    any::<u128>().prop_map(|bits| SessionId::from_uuid(Uuid::from_u128(bits)))
}

fn task() -> impl Strategy<Value = TaskId> {
    any::<u128>().prop_map(|bits| TaskId::from_uuid(Uuid::from_u128(bits)))
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    any::<u128>().prop_map(|bits| Incarnation::from_uuid(Uuid::from_u128(bits)))
}

fn lease() -> impl Strategy<Value = Lease> {
    ("[a-z0-9._-]{1,20}", incarnation(), any::<u64>()).prop_map(|(worker, incarnation, epoch)| Lease {
        worker: worker.parse().expect("a worker's name"),
        incarnation,
        epoch: Epoch(epoch),
    })
}

fn path() -> impl Strategy<Value = WorkspacePath> {
    vec("[a-zä _.-]{1,12}x", 0..5).prop_map(|parts| WorkspacePath::parse(&parts.join("/")).expect("a legal path"))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..64)
}

fn plain() -> impl Strategy<Value = String> {
    "[^\0]{0,40}"
}

fn program() -> impl Strategy<Value = Program> {
    prop_oneof![
        (".{0,40}", vec(plain(), 0..4)).prop_map(|(code, args)| Program::PythonCode { code, args }),
        (path(), vec(plain(), 0..4)).prop_map(|(path, args)| Program::PythonFile { path, args }),
        plain().prop_map(|command| Program::Shell { command }),
        ("[a-z]{1,8}", source(), vec(plain(), 0..4)).prop_map(|(runtime, source, args)| Program::Script {
            runtime,
            source,
            args
        }),
        (vec(plain(), 0..4), any::<bool>())
            .prop_map(|(requirements, upgrade)| Program::Install { requirements, upgrade }),
    ]
}

fn source() -> impl Strategy<Value = ScriptSource> {
    prop_oneof![".{0,40}".prop_map(ScriptSource::Code), path().prop_map(ScriptSource::File)]
}

fn kernel() -> impl Strategy<Value = KernelName> {
    "[A-Za-z0-9_.-]{1,64}".prop_map(|name| KernelName::try_from(name).expect("a kernel's name"))
}

fn exec() -> impl Strategy<Value = Exec> {
    let env = btree_map("[A-Z_]{1,8}", plain(), 0..4);
    let network =
        prop_oneof![Just(Network::None), option::of(".{0,40}").prop_map(|index_url| Network::Packages { index_url })];
    (program(), bytes(), env, option::of(kernel()), network).prop_map(|(program, stdin, env, kernel, network)| Exec {
        program,
        stdin,
        env,
        kernel,
        network,
    })
}

fn search() -> impl Strategy<Value = Search> {
    (path(), ".{0,20}", any::<[bool; 2]>(), option::of(".{0,20}"), 0..=50_u32, 0..=10_000_u32).prop_map(
        |(path, pattern, [literal, ignore_case], glob, context, matches_max)| Search {
            path,
            pattern,
            literal,
            ignore_case,
            glob,
            context,
            matches_max,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    let mode = select(vec![WriteMode::Overwrite, WriteMode::Create, WriteMode::Append]);
    prop_oneof![
        exec().prop_map(Operation::Exec),
        search().prop_map(Operation::Search),
        (path(), ".{0,20}", ".{0,20}", any::<bool>(), option::of("[0-9a-f-]{1,40}")).prop_map(
            |(path, old, new, replace_all, if_match)| Operation::Edit(Edit { path, old, new, replace_all, if_match })
        ),
        Just(Operation::Kernels(Kernels::List)),
        kernel().prop_map(|name| Operation::Kernels(Kernels::Restart { name })),
        (path(), any::<u64>(), option::of(any::<u64>()), any::<bool>()).prop_map(|(path, offset, limit, drawn)| {
            let pictures = if drawn { Pictures::Drawn } else { Pictures::AsBytes };
            Operation::Read(Read { path, offset, limit, pictures })
        }),
        (path(), bytes(), mode, option::of("[0-9a-f-]{1,40}"))
            .prop_map(|(path, contents, mode, if_match)| Operation::Write(Write { path, contents, mode, if_match })),
        (path(), any::<bool>(), option::of(".{0,20}"), 0..20_000_u32).prop_map(
            |(path, recursive, pattern, entries_max)| Operation::List(List { path, recursive, pattern, entries_max })
        ),
        path().prop_map(|path| Operation::Stat(Stat { path })),
        (path(), path(), any::<bool>()).prop_map(|(from, to, overwrite)| Operation::Move(Move { from, to, overwrite })),
        (path(), any::<bool>()).prop_map(|(path, recursive)| Operation::Remove(Remove { path, recursive })),
    ]
}

fn stat() -> impl Strategy<Value = FileStat> {
    let kind = select(vec![FileKind::File, FileKind::Directory, FileKind::Symlink, FileKind::Other]);
    let texts = (".{0,40}", option::of("[0-9a-f-]{1,40}"), option::of(".{0,40}"));
    (texts, kind, any::<u64>(), any::<i64>(), any::<u32>()).prop_map(
        |((path, etag, target), kind, size, modified_ms, mode)| FileStat {
            path,
            kind,
            size,
            modified_ms,
            etag,
            mode,
            target,
        },
    )
}

fn change() -> impl Strategy<Value = FileChange> {
    let kind = select(vec![ChangeKind::Created, ChangeKind::Modified, ChangeKind::Deleted]);
    (path(), kind, any::<u64>()).prop_map(|(path, change, size)| FileChange { path, change, size })
}

fn contact() -> impl Strategy<Value = Contact> {
    let outcome = select(vec![ContactOutcome::Reached, ContactOutcome::Refused, ContactOutcome::Failed]);
    ("[a-z.:0-9]{1,20}", outcome, any::<(u32, u64, u64)>()).prop_map(
        |(host, outcome, (connections, sent_bytes, received_bytes))| Contact {
            host,
            outcome,
            connections,
            sent_bytes,
            received_bytes,
        },
    )
}

fn exit() -> impl Strategy<Value = Exit> {
    let ends = (option::of(any::<i32>()), option::of(any::<i32>()), any::<[u64; 3]>());
    let package = ("[a-z]{1,8}", "[0-9.]{1,8}").prop_map(|(name, version)| Package { name, version });
    let texts = (vec(".{0,40}", 0..3), option::of(path()), vec("[a-z.:0-9]{1,20}", 0..3));
    let said = (texts, vec(package, 0..3), vec(contact(), 0..3))
        .prop_map(|((notes, file, hosts), packages, contacts)| (notes, file, hosts, packages, contacts));
    (ends, vec(change(), 0..4), any::<bool>(), any::<u32>(), said).prop_map(
        |((code, signal, [wall_ms, cpu_ms, memory_peak_bytes]), files_changed, truncated, killed, said)| Exit {
            code,
            signal,
            used: ResourceUse { wall_ms, cpu_ms, memory_peak_bytes },
            files_changed,
            files_changed_truncated: truncated,
            leftovers_killed: killed,
            notes: said.0,
            output_file: said.1,
            hosts: said.2,
            packages: said.3,
            contacts: said.4,
        },
    )
}

fn found() -> impl Strategy<Value = Found> {
    let line = (any::<u64>(), any::<bool>(), ".{0,20}").prop_map(|(number, is_match, text)| FoundLine {
        number,
        is_match,
        text,
    });
    let file = (".{0,20}", vec(line, 0..4)).prop_map(|(path, lines)| FileMatches { path, lines });
    let cuts = vec![SearchCut::Matches, SearchCut::Volume, SearchCut::Files, SearchCut::Time];
    (vec(file, 0..4), any::<[u64; 4]>(), option::of(select(cuts))).prop_map(
        |(files, [files_searched, binary, too_large, unreadable], cut)| Found {
            files,
            files_searched,
            skipped: SkippedFiles { binary, too_large, unreadable },
            cut,
        },
    )
}

fn kernel_info() -> impl Strategy<Value = KernelInfo> {
    (kernel(), any::<bool>(), any::<u32>(), any::<[u64; 2]>(), any::<i64>()).prop_map(
        |(name, busy, waiting, [calls, memory_bytes], started_ms)| KernelInfo {
            name,
            busy,
            waiting,
            calls,
            started_ms,
            memory_bytes,
        },
    )
}

fn result() -> impl Strategy<Value = OperationResult> {
    prop_oneof![
        exit().prop_map(OperationResult::Exec),
        (bytes(), stat()).prop_map(|(contents, stat)| OperationResult::Read { contents, stat }),
        (stat(), any::<bool>()).prop_map(|(stat, created)| OperationResult::Write { stat, created }),
        (vec(stat(), 0..4), any::<bool>())
            .prop_map(|(entries, truncated)| OperationResult::List { entries, truncated }),
        stat().prop_map(|stat| OperationResult::Stat { stat }),
        stat().prop_map(|stat| OperationResult::Move { stat }),
        any::<u64>().prop_map(|removed| OperationResult::Remove { removed }),
        found().prop_map(OperationResult::Search),
        (stat(), any::<u64>(), ".{0,60}").prop_map(|(stat, replaced, diff)| OperationResult::Edit(Edited {
            stat,
            replaced,
            diff
        })),
        vec(kernel_info(), 0..4).prop_map(|kernels| OperationResult::Kernels { kernels }),
    ]
}

fn failure() -> impl Strategy<Value = Failure> {
    (select(ErrorCode::ALL.to_vec()), ".{0,60}").prop_map(|(code, message)| Failure::new(code, message))
}

fn event() -> impl Strategy<Value = Event> {
    let stream = select(vec![OutputStream::Stdout, OutputStream::Stderr]);
    let body = prop_oneof![
        Just(EventBody::Started),
        (stream, bytes()).prop_map(|(stream, bytes)| EventBody::Output { stream, bytes }),
        ".{0,40}".prop_map(|message| EventBody::Progress { message }),
        ("[a-z/]{1,20}", option::of(path()), bytes()).prop_map(|(mime, path, data)| EventBody::Display(Display {
            mime,
            path,
            data
        })),
        vec(change(), 0..4).prop_map(EventBody::FilesChanged),
        result().prop_map(EventBody::Finished),
        (failure(), option::of(exit())).prop_map(|(failure, exit)| EventBody::Failed { failure, exit }),
    ];
    (1_u64.., body).prop_map(|(seq, body)| Event { seq, body })
}

fn isolation() -> impl Strategy<Value = IsolationReport> {
    let level =
        select(vec![IsolationLevel::None, IsolationLevel::Reduced, IsolationLevel::Portable, IsolationLevel::Full]);
    let state = select(vec![LayerState::Enforced, LayerState::Partial, LayerState::Absent]);
    let rows = vec((state, ".{0,20}", option::of(".{0,20}")), 0..=Layer::ALL.len());
    (level, rows).prop_map(|(level, rows)| {
        let row = |(layer, (state, detail, remedy))| LayerReport { layer, state, detail, remedy };
        IsolationReport { level, layers: Layer::ALL.into_iter().zip(rows).map(row).collect() }
    })
}

fn held() -> impl Strategy<Value = HeldSession> {
    (session(), any::<u64>(), any::<bool>(), vec(task(), 0..4)).prop_map(|(session, epoch, open, tasks)| HeldSession {
        session,
        epoch: Epoch(epoch),
        open,
        tasks,
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    [
        1..u64::MAX,
        1..u64::MAX,
        1..u64::MAX,
        1..u64::MAX,
        1..u64::MAX,
        1..u64::MAX,
        1..u64::MAX,
        1..u64::MAX,
        1..u64::MAX,
        1..u64::MAX,
        1..u64::MAX,
    ]
    .prop_map(|n| Limits {
        task_ms: n[0],
        task_ms_max: n[1],
        memory_bytes: n[2],
        processes: n[3],
        cpu_millicores: n[4],
        output_bytes: n[5],
        workspace_bytes: n[6],
        file_bytes: n[7],
        scratch_bytes: n[8],
        open_files: n[9],
        workspace_files: n[10],
    })
}

proptest! {
    #[test]
    fn a_task(task in task(), session in session(), lease in lease(), ms in 0..2_000_000_000_u64, operation in operation()) {
        let request = ExecuteTask { task, session, lease, timeout: Duration::from_millis(ms), operation };
        prop_assert_eq!(through::<v1::TaskRequest, _>(request.clone()), request);
    }

    #[test]
    fn an_event(event in event()) {
        prop_assert_eq!(through::<v1::TaskEvent, _>(event.clone()), event);
    }

    #[test]
    fn attaching_and_cancelling(task in task(), session in session(), lease in lease(), n in 1..2_000_000_000_u64) {
        let attach = AttachTask { task, session, lease: lease.clone(), from_seq: n };
        prop_assert_eq!(through::<v1::AttachTaskRequest, _>(attach.clone()), attach);
        let cancel = CancelTask { task, session, lease, grace: Duration::from_millis(n) };
        prop_assert_eq!(through::<v1::CancelTaskRequest, _>(cancel.clone()), cancel);
    }

    #[test]
    fn opening_and_closing_a_session(
        session in session(), lease in lease(), limits in limits(), isolation in isolation(), flag in any::<bool>(),
        processes_killed in any::<u32>(), workspace_bytes in any::<u64>(), contacts in vec(contact(), 0..4),
    ) {
        let open = OpenSession { session, lease: lease.clone(), limits, isolation_minimum: isolation.level, egress: None };
        prop_assert_eq!(through::<v1::OpenSessionRequest, _>(open.clone()), open);
        let opened = SessionOpened { isolation, workspace_created: flag };
        prop_assert_eq!(through::<v1::OpenSessionResponse, _>(opened.clone()), opened);
        let close = CloseSession { session, lease, delete_workspace: flag };
        prop_assert_eq!(through::<v1::CloseSessionRequest, _>(close.clone()), close);
        let closed = SessionClosed { processes_killed, workspace_bytes, contacts };
        prop_assert_eq!(through::<v1::CloseSessionResponse, _>(closed.clone()), closed);
    }

    #[test]
    fn what_a_worker_says_of_itself(
        isolation in isolation(), held in vec(held(), 0..4), lease in lease(), sessions_max in any::<u32>(),
        labels in btree_map("[a-z]{1,8}", "[a-z]{0,8}", 0..4), words in any::<[u32; 2]>(), memory_bytes in any::<u64>(),
        draining in any::<bool>(), sizes in any::<[u64; 2]>(),
    ) {
        let runtime = Runtime { name: "python".into(), version: "3.11.2".into(), path: "/usr/bin/python3".into() };
        let resources = Resources { cpus: words[1], memory_bytes: sizes[0], disk_bytes: sizes[1] };
        let capabilities = Capabilities { isolation, runtimes: vec![runtime], sessions_max, labels, resources };
        prop_assert_eq!(through::<v1::Capabilities, _>(capabilities.clone()), capabilities);
        let (worker, incarnation) = (lease.worker, lease.incarnation);
        let [sessions_open, tasks_running] = words;
        let used = HostUse { load_permille: words[0], memory_available_bytes: sizes[1], disk_free_bytes: sizes[0] };
        let beat = Heartbeat { worker, incarnation, sessions_open, tasks_running, memory_bytes, held, draining, used };
        prop_assert_eq!(through::<v1::HeartbeatRequest, _>(beat.clone()), beat);
    }

    /// A peer that sends arbitrary bytes gets an error, never a panic.
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(wire) = v1::TaskRequest::decode(bytes.as_slice()) {
            let _refused_or_not = ExecuteTask::try_from(wire);
        }
        if let Ok(wire) = v1::TaskEvent::decode(bytes.as_slice()) {
            let _refused_or_not = Event::try_from(wire);
        }
    }
}

#[test]
fn no_environment_is_no_variables() {
    let exec = Exec::of(Program::Shell { command: "true".into() });
    assert_eq!(through::<v1::Exec, _>(exec.clone()), exec);
}

#[test]
fn joining_and_leaving() {
    let registered = Registered {
        worker_session: Secret::new("session"),
        link_ticket: None,
        heartbeat_interval: Duration::from_secs(30),
    };
    let arrived = through::<v1::RegisterWorkerResponse, _>(registered);
    assert_eq!((arrived.worker_session.expose(), arrived.link_ticket.is_none()), ("session", true));
    assert_eq!(arrived.heartbeat_interval, Duration::from_secs(30));
    let answer = through::<v1::HeartbeatResponse, _>(HeartbeatAnswer { link_ticket: Some(Secret::new("ticket")) });
    assert_eq!(answer.link_ticket.as_ref().map(Secret::expose), Some("ticket"));
    let (worker, incarnation) = ("w".parse().expect("a name"), Incarnation::mint());
    let leave = DeregisterWorker { worker, incarnation, reason: "stopping".into() };
    assert_eq!(through::<v1::DeregisterWorkerRequest, _>(leave.clone()), leave);
}
