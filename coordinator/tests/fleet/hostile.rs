//! Workers that lie: about who they are, what they hold, how much there is of it.

use std::time::{Duration, Instant};

use codegen_audit::EventKind;
use codegen_proto::metadata::{JOIN_TOKEN_KEY, WORKER_SESSION_KEY, with_secret};
use codegen_proto::status::stated_code;
use codegen_proto::{Secret, v1};
use codegen_types::{Epoch, ErrorCode, HeldSession, SessionId};
use coordinator::config::Reflection;
use coordinator::workers::WorkersOptions;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use crate::double::{Double, Spec};
use crate::rig::{Rig, until, within};

fn held(count: usize) -> Vec<HeldSession> {
    let one = || HeldSession { session: SessionId::mint(), epoch: Epoch(u64::MAX), open: true, tasks: Vec::new() };
    std::iter::repeat_with(one).take(count).collect()
}

#[tokio::test]
async fn a_worker_speaks_for_no_other_worker() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let honest = rig.joined(Spec::named("honest")).await;
    let mut liar = rig.joined(Spec::named("liar")).await;
    let own = liar.spec.clone();
    liar.spec.id = honest.spec.id.clone();
    assert_eq!(stated_code(&liar.heartbeat().await.unwrap_err()), Some(ErrorCode::Unauthenticated));
    liar.spec.incarnation = honest.spec.incarnation;
    assert_eq!(stated_code(&liar.heartbeat().await.unwrap_err()), Some(ErrorCode::Unauthenticated));
    assert_eq!(stated_code(&liar.leave().await.unwrap_err()), Some(ErrorCode::Unauthenticated));
    liar.spec = own;
    liar.heartbeat().await.unwrap();
    assert_eq!(rig.workers.snapshot().len(), 2, "nobody left");
}

#[tokio::test]
async fn who_takes_anothers_incarnation_does_not_get_between_it_and_its_link() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let mut honest = rig.joined(Spec::named("honest")).await;
    let token = rig.workers.issue_token(&"a-liar".parse().unwrap());
    let mut liar = Double::new(rig.unix(), Spec { incarnation: honest.spec.incarnation, ..Spec::named("a-liar") });
    let ticket = liar.register(token.expose()).await.unwrap().link_ticket;
    honest.break_link();
    until("the link is down", || rig.workers.snapshot().iter().any(|row| row.id == honest.spec.id && !row.link_up))
        .await;
    honest.reopen_link().await;
    until("the link is up", || rig.workers.snapshot().iter().any(|row| row.id == honest.spec.id && row.link_up)).await;
    liar.open_link(&ticket).await.unwrap();
    until("both", || rig.workers.snapshot().iter().all(|row| row.link_up)).await;
    let (end, _) = rig.start(&honest, "hello").end().await;
    assert!(matches!(end, coordinator::workers::DispatchEnd::Answered(_)), "{end:?}");
}

#[tokio::test]
async fn ten_thousand_sessions_with_forged_epochs_cost_nobody_else_a_slot() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let honest = rig.joined(Spec::named("honest")).await;
    let session = SessionId::mint();
    rig.open(session, &honest.lease()).await.unwrap();
    let mut liar = rig.joined(Spec { sessions_max: u32::MAX, ..Spec::named("liar") }).await;
    liar.spec.held = held(10_000);
    liar.spec.held[0].session = session;
    let began = Instant::now();
    liar.heartbeat().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let rows = rig.workers.snapshot();
    let slots = |name: &str| rows.iter().find(|row| row.id.as_str() == name).unwrap().slots;
    assert_eq!((slots("honest").used, slots("honest").total), (1, 8), "what the liar says is about the liar");
    assert_eq!(slots("liar").total, 4_096, "no worker has more than that, whatever it says");
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_next_message_is_not() {
    let rig = Rig::new(WorkersOptions::default()).await;
    let token = rig.workers.issue_token(&"a".parse().unwrap());
    let mut double = Double::new(rig.routes()[1].clone(), Spec::named("a"));
    let good = double.registration();
    let mut labelled = good.clone();
    let labels = &mut labelled.capabilities.as_mut().unwrap().labels;
    labels.extend((0..65).map(|number| (format!("label{number}"), String::new())));
    let mut wordy = good.clone();
    wordy.capabilities.as_mut().unwrap().labels.insert("label".to_owned(), "x".repeat(1 << 20));
    let mut verbose = good.clone();
    verbose.version = "1".repeat(1_000);
    let mut busy = good.clone();
    let tasks = vec![codegen_types::TaskId::mint().to_string(); 2_000];
    busy.held =
        vec![v1::HeldSession { session_id: SessionId::mint().to_string(), task_ids: tasks, ..Default::default() }];
    for request in [labelled, wordy, verbose, busy] {
        let refused = double.try_register(token.expose(), request).await.unwrap_err();
        assert_eq!(stated_code(&refused), Some(ErrorCode::InvalidArgument), "{refused}");
    }
    let mut huge = good.clone();
    huge.advertise = "x".repeat(9 << 20);
    assert!(double.try_register(token.expose(), huge).await.is_err());
    double.try_register(token.expose(), good).await.unwrap();
}

#[tokio::test]
async fn a_worker_two_minor_releases_away_is_told_so_and_one_that_is_one_away_joins() {
    let rig = Rig::new(WorkersOptions::default()).await;
    let own: coordinator_core::release::Release = env!("CARGO_PKG_VERSION").parse().unwrap();
    let [major, minor, _] =
        <[u32; 3]>::try_from(own.to_string().split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>())
            .unwrap();
    let mut joined = 0;
    for (name, version, may) in [
        ("same", format!("{major}.{minor}.99"), true),
        ("newer", format!("{major}.{}.0", minor + 1), true),
        ("much-newer", format!("{major}.{}.0", minor + 2), false),
        ("other-major", format!("{}.{minor}.0", major + 1), false),
        ("nonsense", "latest".to_owned(), false),
    ] {
        let token = rig.workers.issue_token(&name.parse().unwrap());
        let mut double = Double::new(rig.unix(), Spec::named(name));
        let mut request = double.registration();
        request.version.clone_from(&version);
        match double.try_register(token.expose(), request).await {
            Ok(_) => assert!(may, "{version}"),
            Err(refused) => {
                assert!(!may, "{refused}");
                assert_eq!(stated_code(&refused), Some(ErrorCode::PreconditionFailed), "{refused}");
                assert!(
                    refused.message().contains(&version) && refused.message().contains(&own.to_string()),
                    "{refused}"
                );
            }
        }
        joined += usize::from(may);
    }
    assert_eq!(rig.workers.snapshot().len(), joined);
    assert_eq!(rig.records(EventKind::WorkerRefused).len(), 3);
}

#[tokio::test]
async fn a_worker_that_says_it_drains_gets_no_session_and_is_never_healthy_again() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let mut double = rig.joined(Spec::named("a")).await;
    double.spec.draining = true;
    double.heartbeat().await.unwrap();
    assert_eq!(rig.workers.snapshot()[0].state.as_str(), "draining");
    double.spec.draining = false;
    double.heartbeat().await.unwrap();
    assert_eq!(rig.workers.snapshot()[0].state.as_str(), "draining");
}

/// The answer to a call of which no message ever comes.
async fn unsaid<W, A>(channel: Channel, method: &'static str, key: &'static str, secret: &str) -> Status
where
    W: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let request = with_secret(futures::stream::pending::<W>(), key, &Secret::new(secret)).unwrap();
    let path = PathAndQuery::from_static(method);
    let answer = client.client_streaming(request, path, ProstCodec::<W, A>::default());
    let answered: Result<Response<A>, Status> = within(answer).await;
    answered.map(drop).unwrap_err()
}

#[tokio::test]
async fn no_message_of_a_stranger_is_read() {
    const REGISTER: &str = "/codegen.v1.WorkerLifecycle/RegisterWorker";
    const HEARTBEAT: &str = "/codegen.v1.WorkerLifecycle/Heartbeat";
    const LEAVE: &str = "/codegen.v1.WorkerLifecycle/DeregisterWorker";
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let [_, tcp] = rig.routes();
    let worker = rig.joined_over(tcp, Spec::named("a")).await;
    let channel = Endpoint::from_shared(format!("http://{}", rig.tcp)).unwrap().connect().await.unwrap();
    for wrong in ["", "guess", &"x".repeat(10_000)] {
        let answers = [
            unsaid::<v1::RegisterWorkerRequest, v1::RegisterWorkerResponse>(
                channel.clone(),
                REGISTER,
                JOIN_TOKEN_KEY,
                wrong,
            )
            .await,
            unsaid::<v1::HeartbeatRequest, v1::HeartbeatResponse>(
                channel.clone(),
                HEARTBEAT,
                WORKER_SESSION_KEY,
                wrong,
            )
            .await,
            unsaid::<v1::DeregisterWorkerRequest, v1::DeregisterWorkerResponse>(
                channel.clone(),
                LEAVE,
                WORKER_SESSION_KEY,
                wrong,
            )
            .await,
        ];
        for refused in answers {
            assert_eq!(stated_code(&refused), Some(ErrorCode::Unauthenticated), "{refused}");
        }
    }
    assert_eq!(rig.records(EventKind::WorkerRefused).len(), 9, "each is in the log");
    assert!(rig.workers.snapshot().iter().any(|row| row.id == worker.spec.id && row.link_up));
}

#[tokio::test]
async fn a_probe_says_little() {
    let rig = Rig::new(WorkersOptions { reflection: Reflection::On, ..WorkersOptions::default() }).await;
    let channel = Endpoint::from_shared(format!("http://{}", rig.tcp)).unwrap().connect().await.unwrap();
    let long = HealthCheckRequest { service: "x".repeat(8 << 10) };
    let refused = HealthClient::new(channel.clone()).check(long).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let long = ServerReflectionRequest { host: "x".repeat(8 << 10), message_request: None };
    let mut asked = ServerReflectionClient::new(channel).server_reflection_info(futures::stream::iter([long])).await;
    // The stream of questions breaks, and that of answers ends with it.
    if let Ok(answers) = &mut asked {
        let told = answers.get_mut().message().await;
        assert!(!matches!(told, Ok(Some(_))), "{told:?}");
    }
}

#[tokio::test]
async fn a_flood_of_heartbeats_is_shed_and_the_worker_stays() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let mut flooding = rig.joined(Spec::named("flooding")).await;
    let mut honest = rig.joined(Spec::named("honest")).await;
    let mut taken = 0;
    for _ in 0..3_000 {
        match flooding.heartbeat().await {
            Ok(_) => taken += 1,
            Err(shed) => assert_eq!(stated_code(&shed), Some(ErrorCode::RateLimited), "{shed}"),
        }
    }
    assert!(taken < 200, "{taken} of 3,000");
    honest.heartbeat().await.unwrap();
    assert_eq!(rig.workers.snapshot().len(), 2);
}
