//! A peer that lies is refused by field, and failures keep their codes.

use codegen_proto::{ExecuteTask, InvalidMessage, OpenSession, Registered, Secret, bounds, status, v1};
use codegen_types::{ErrorCode, Event, Failure, IsolationReport, Limits, SessionId, TaskId};
use tonic::{Code, Status};

fn lease() -> v1::Lease {
    let incarnation = codegen_types::Incarnation::mint().to_string();
    v1::Lease { worker_id: "w".into(), incarnation, epoch: 1 }
}

fn request(operation: v1::task_request::Operation) -> v1::TaskRequest {
    v1::TaskRequest {
        task_id: TaskId::mint().to_string(),
        session_id: SessionId::mint().to_string(),
        lease: Some(lease()),
        timeout_ms: 1_000,
        held: false,
        operation: Some(operation),
    }
}

fn read(path: &str) -> v1::task_request::Operation {
    v1::task_request::Operation::Read(v1::Read { path: path.into(), offset: 0, limit: None, draw_pictures: false })
}

fn shell(env: &[(&str, &str)], command: &str) -> v1::task_request::Operation {
    let program = v1::exec::Program::Shell(v1::Shell { command: command.into() });
    let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    v1::task_request::Operation::Exec(v1::Exec {
        program: Some(program),
        stdin: Vec::new().into(),
        env,
        kernel: None,
        packages: None,
    })
}

fn refusal(wire: v1::TaskRequest) -> InvalidMessage {
    ExecuteTask::try_from(wire).expect_err("must be refused")
}

#[test]
fn a_missing_part_is_named() {
    assert_eq!(
        refusal(v1::TaskRequest { lease: None, ..request(read("a")) }),
        InvalidMessage::Missing { field: "TaskRequest.lease" }
    );
    assert_eq!(
        refusal(v1::TaskRequest { operation: None, ..request(read("a")) }),
        InvalidMessage::Missing { field: "TaskRequest.operation" }
    );
}

#[test]
fn an_id_of_another_kind_is_refused() {
    let refused = refusal(v1::TaskRequest { task_id: SessionId::mint().to_string(), ..request(read("a")) });
    assert!(matches!(refused, InvalidMessage::Id { field: "TaskRequest.task_id", .. }), "{refused:?}");
}

#[test]
fn a_path_that_could_leave_is_a_path_violation() {
    for path in ["/etc/passwd", "../x", "a/../../x", "a\0"] {
        let failure = Failure::from(refusal(request(read(path))));
        assert_eq!(failure.code, ErrorCode::PathViolation, "{path:?}");
    }
    assert_eq!(Failure::from(refusal(request(read(&"x".repeat(256))))).code, ErrorCode::InvalidArgument);
}

#[test]
fn a_word_outside_its_vocabulary_is_refused() {
    let write = v1::Write { path: "a".into(), contents: Vec::new().into(), mode: "Overwrite".into(), if_match: None };
    let refused = refusal(request(v1::task_request::Operation::Write(write)));
    assert_eq!(refused, InvalidMessage::UnknownWord { field: "Write.mode" });
    let event = |body| Event::try_from(v1::TaskEvent { seq: 1, body: Some(body), times: None });
    let output = v1::Output { stream: "stdin".into(), data: Vec::new().into() };
    assert!(event(v1::task_event::Body::Output(output)).is_err());
    let failed = v1::Failed { code: "NO_SUCH_CODE".into(), message: String::new(), exit: None };
    assert!(event(v1::task_event::Body::Failed(failed)).is_err());
}

#[test]
fn what_would_confuse_the_kernel_is_refused() {
    for operation in [
        shell(&[], "echo \0"),
        shell(&[("", "x")], "true"),
        shell(&[("A=B", "x")], "true"),
        shell(&[("A", "\0")], "true"),
        shell(&[("A\0", "x")], "true"),
    ] {
        assert!(matches!(refusal(request(operation)), InvalidMessage::OutOfRange { .. }));
    }
}

#[test]
fn everything_has_a_bound() {
    let too_large = |operation| matches!(refusal(request(operation)), InvalidMessage::TooLarge { .. });
    let python = |args: Vec<String>| {
        let program = v1::exec::Program::PythonCode(v1::PythonCode { code: String::new(), args });
        v1::task_request::Operation::Exec(v1::Exec { program: Some(program), ..v1::Exec::default() })
    };
    assert!(too_large(shell(&[], &"x".repeat(bounds::SOURCE_BYTES_MAX + 1))));
    assert!(too_large(shell(&[("A", &"x".repeat(bounds::ENV_BYTES_MAX))], "true")));
    assert!(too_large(python(vec![String::new(); bounds::ARGS_MAX + 1])));
    assert!(too_large(python(vec!["x".repeat(bounds::ARGS_BYTES_MAX + 1)])));
    let list = v1::List { path: String::new(), recursive: true, pattern: None, entries_max: u32::MAX };
    assert!(too_large(v1::task_request::Operation::List(list)));
    assert!(matches!(
        refusal(v1::TaskRequest { timeout_ms: u64::MAX, ..request(read("a")) }),
        InvalidMessage::OutOfRange { field: "TaskRequest.timeout_ms", .. }
    ));
}

#[test]
fn a_limit_that_was_not_sent_is_not_no_limit() {
    let open = v1::OpenSessionRequest {
        session_id: SessionId::mint().to_string(),
        lease: Some(lease()),
        limits: Some(v1::Limits { memory_bytes: 0, ..Limits::default().into() }),
        isolation_minimum: "full".into(),
        egress: None,
    };
    assert_eq!(OpenSession::try_from(open), Err(InvalidMessage::Missing { field: "Limits.memory_bytes" }));
}

#[test]
fn a_layer_cannot_be_reported_twice() {
    let row =
        v1::LayerReport { layer: "seccomp".into(), state: "enforced".into(), detail: String::new(), remedy: None };
    let report = v1::IsolationReport { level: "full".into(), layers: vec![row.clone(), row] };
    assert!(IsolationReport::try_from(report).is_err());
}

#[test]
fn an_event_is_counted_from_one() {
    let body = Some(v1::task_event::Body::Started(v1::Started {}));
    assert!(Event::try_from(v1::TaskEvent { seq: 0, body, times: None }).is_err());
}

#[test]
fn a_secret_is_needed_and_not_shown() {
    let wire = v1::RegisterWorkerResponse { heartbeat_interval_ms: 1, ..v1::RegisterWorkerResponse::default() };
    let refused = Registered::try_from(wire).expect_err("without a worker session");
    assert_eq!(refused, InvalidMessage::Missing { field: "RegisterWorkerResponse.worker_session" });
    assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
}

#[test]
fn every_error_code_survives_its_status() {
    for code in ErrorCode::ALL {
        let failure = Failure::new(*code, "what to do: ä\n");
        let status = status::from_failure(failure.clone());
        assert_eq!(status.code(), status::grpc_code(*code));
        assert_ne!(status.code(), Code::Ok);
        let headers = status.into_http::<()>().into_parts().0.headers;
        let arrived = Status::from_header_map(&headers).expect("a status in the headers");
        assert_eq!(status::to_failure(&arrived), failure);
    }
}

#[test]
fn a_status_that_no_peer_of_ours_wrote_is_told_apart() {
    let code = |code: Code| status::to_failure(&Status::new(code, "secret detail of a transport"));
    assert_eq!(code(Code::Unavailable).code, ErrorCode::WorkerUnavailable);
    assert_eq!(code(Code::Unknown).code, ErrorCode::WorkerUnavailable);
    assert_eq!(code(Code::Unimplemented).code, ErrorCode::Internal);
    assert!(!code(Code::Unavailable).message.contains("secret"));
    assert!(!code(Code::Unimplemented).message.contains("secret"));
    let mut unknown = Status::unavailable("x");
    unknown.metadata_mut().insert(status::ERROR_CODE_KEY, "NO_SUCH_CODE".parse().expect("ascii"));
    assert_eq!(status::to_failure(&unknown).code, ErrorCode::WorkerUnavailable);
}

#[test]
fn a_long_message_of_ours_is_cut_and_accepted() {
    let failure = Failure::new(ErrorCode::Internal, "ä".repeat(10_000));
    let event = Event { seq: 1, body: codegen_types::EventBody::Failed { failure, exit: None } };
    let arrived = Event::try_from(v1::TaskEvent::from(event)).expect("is accepted");
    let codegen_types::EventBody::Failed { failure, .. } = arrived.body else { panic!("another event") };
    assert!(failure.message.len() <= bounds::MESSAGE_BYTES_MAX && failure.message.ends_with('…'));
}

#[test]
fn fields_of_a_newer_release_are_ignored_and_those_that_an_older_one_lacks_have_a_default() {
    let beat = v1::HeartbeatRequest {
        worker_id: "w".into(),
        incarnation: codegen_types::Incarnation::mint().to_string(),
        ..v1::HeartbeatRequest::default()
    };
    let mut bytes = prost::Message::encode_to_vec(&beat);
    // Field 1000, a length-delimited one, and field 1001, a number.
    bytes.extend([0xc2, 0x3e, 0x03, b'n', b'e', b'w', 0xc8, 0x3e, 0x07]);
    let wire = <v1::HeartbeatRequest as prost::Message>::decode(bytes.as_slice()).expect("it is understood");
    let heard = codegen_proto::Heartbeat::try_from(wire).expect("it is taken");
    assert!(!heard.draining && heard.used == codegen_types::HostUse::default());
}
