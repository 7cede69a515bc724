//! Joining, living and leaving.

use std::time::Duration;

use codegen_audit::EventKind;
use codegen_proto::status::stated_code;
use codegen_types::{Epoch, ErrorCode, HeldSession, Incarnation, SessionId};
use coordinator::config::Reflection;
use coordinator::workers::{DispatchEnd, EMBEDDED_WORKER, WorkerEvent, WorkersOptions};
use coordinator_core::worker::{Timing, WorkerStatus};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::double::{Double, Spec};
use crate::rig::{Rig, until};

#[tokio::test]
async fn a_worker_without_a_valid_token_is_refused_and_the_refusal_is_in_the_log() {
    let rig = Rig::new(WorkersOptions::default()).await;
    let token = rig.workers.issue_token(&"a".parse().unwrap());
    for route in rig.routes() {
        for wrong in ["", "guess", &token.expose()[1..]] {
            let refused = Double::new(route.clone(), Spec::named("a")).register(wrong).await.unwrap_err();
            assert_eq!(stated_code(&refused), Some(ErrorCode::Unauthenticated));
        }
        let other = Double::new(route, Spec::named("b")).register(token.expose()).await.unwrap_err();
        assert_eq!(stated_code(&other), Some(ErrorCode::Unauthenticated), "the token is of another name");
    }
    assert!(rig.workers.snapshot().is_empty());
    let records = rig.records(EventKind::WorkerRefused);
    assert_eq!(records.len(), 8);
    assert!(records.iter().all(|record| !record.line.contains(&token.expose()[1..])), "no token in the log");
}

#[tokio::test]
async fn a_flood_of_refusals_is_slowed_down_and_does_not_shut_a_valid_worker_out() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let mut stranger = Double::new(rig.unix(), Spec::named("a"));
    let mut last = None;
    for _ in 0..30 {
        last = stated_code(&stranger.register("guess").await.unwrap_err());
    }
    assert_eq!(last, Some(ErrorCode::RateLimited));
    assert!(rig.records(EventKind::WorkerRefused).len() < 30);
    rig.joined(Spec::named("b")).await;
}

#[tokio::test]
async fn a_token_serves_one_life_which_may_register_again() {
    for over_tcp in [false, true] {
        let mut rig = Rig::new(WorkersOptions::default()).await;
        let route = if over_tcp { rig.routes()[1].clone() } else { rig.unix() };
        let token = rig.workers.issue_token(&"a".parse().unwrap());
        let mut first = Double::new(route.clone(), Spec::named("a"));
        first.register(token.expose()).await.unwrap();
        first.register(token.expose()).await.unwrap();
        for _ in 0..2 {
            let joined = rig.event().await;
            assert!(matches!(joined, WorkerEvent::Joined { incarnation, .. } if incarnation == first.spec.incarnation));
        }
        let second = Double::new(route, Spec::named("a")).register(token.expose()).await.unwrap_err();
        assert_eq!(stated_code(&second), Some(ErrorCode::Unauthenticated));
        assert_eq!(rig.workers.snapshot()[0].incarnation, first.spec.incarnation);
    }
}

#[tokio::test]
async fn a_new_life_supersedes_the_old_one_in_this_order() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let old = rig.joined(Spec::named("a")).await;
    let held = HeldSession { session: SessionId::mint(), epoch: Epoch(1), open: false, tasks: Vec::new() };
    let token = rig.workers.issue_token(&old.spec.id);
    let mut new = Double::new(rig.unix(), Spec { held: vec![held.clone()], ..Spec::named("a") });
    new.register(token.expose()).await.unwrap();
    let (worker, incarnation) = (old.spec.id.clone(), old.spec.incarnation);
    assert_eq!(rig.event().await, WorkerEvent::Gone { worker: worker.clone(), incarnation });
    let incarnation = new.spec.incarnation;
    assert_eq!(
        rig.event().await,
        WorkerEvent::Joined { worker, incarnation, held: vec![held], held_is_partial: false }
    );
    let kinds: Vec<EventKind> = rig.audit.memory_records().iter().map(|record| record.kind).collect();
    assert_eq!(kinds[kinds.len() - 3..], [EventKind::WorkerJoined, EventKind::WorkerGone, EventKind::WorkerJoined]);
}

#[tokio::test]
async fn only_the_worker_session_lets_a_worker_live_or_leave() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let mut double = rig.joined(Spec::named("a")).await;
    assert_eq!(double.heartbeat().await.unwrap(), "", "the link is up, so there is no ticket");
    let right = std::mem::replace(&mut double.session, "wrong".to_owned());
    assert_eq!(stated_code(&double.heartbeat().await.unwrap_err()), Some(ErrorCode::Unauthenticated));
    assert_eq!(stated_code(&double.leave().await.unwrap_err()), Some(ErrorCode::Unauthenticated));
    double.session = right;
    let incarnation = std::mem::replace(&mut double.spec.incarnation, Incarnation::mint());
    assert_eq!(stated_code(&double.heartbeat().await.unwrap_err()), Some(ErrorCode::Unauthenticated));
    double.spec.incarnation = incarnation;
    double.leave().await.unwrap();
    assert!(matches!(rig.event().await, WorkerEvent::Gone { .. }));
    assert!(rig.workers.snapshot().is_empty());
    assert_eq!(stated_code(&double.heartbeat().await.unwrap_err()), Some(ErrorCode::Unauthenticated));
}

#[tokio::test]
async fn a_silent_worker_is_struck_off_and_a_speaking_one_is_not() {
    let ms = Duration::from_millis;
    let options = WorkersOptions {
        keep_alive_interval: ms(20),
        heartbeat_interval: ms(50),
        timing: Timing {
            keep_alive: ms(40),
            reconnect_grace: ms(100),
            reassign_after: ms(200),
            prune_after: ms(1_500),
        },
        ..WorkersOptions::default()
    };
    let mut rig = Rig::new(options).await;
    let mut doubles = Vec::new();
    for name in ["silent", "speaking"] {
        let token = rig.workers.issue_token(&name.parse().unwrap());
        let mut double = Double::new(rig.unix(), Spec::named(name));
        double.register(token.expose()).await.unwrap();
        rig.event().await;
        doubles.push(double);
    }
    let mut speaking = doubles.pop().unwrap();
    let gone = loop {
        tokio::select! {
            gone = rig.event() => break gone,
            () = tokio::time::sleep(ms(20)) => drop(speaking.heartbeat().await.unwrap()),
        }
    };
    assert!(matches!(gone, WorkerEvent::Gone { worker, .. } if worker.as_str() == "silent"));
    assert_eq!(rig.workers.snapshot().len(), 1);
    assert_eq!(rig.records(EventKind::WorkerGone)[0].detail.as_ref().unwrap()["why"], "pruned");
}

#[tokio::test]
async fn a_registration_that_makes_no_sense_is_refused() {
    let rig = Rig::new(WorkersOptions { workers_max: 1, ..WorkersOptions::default() }).await;
    let token = rig.workers.issue_token(&"a".parse().unwrap());
    let mut double = Double::new(rig.unix(), Spec::named("a"));
    let good = double.registration();
    let mut bad = good.clone();
    bad.incarnation = "inc_1".to_owned();
    let mut crowded = good.clone();
    crowded.held = vec![Default::default(); 20_000];
    let mut dialled = good.clone();
    dialled.advertise = "10.0.0.1:1".to_owned();
    let mut bare = good.clone();
    bare.capabilities = None;
    for request in [bad, crowded, dialled, bare] {
        let refused = double.try_register(token.expose(), request).await.unwrap_err();
        assert_eq!(stated_code(&refused), Some(ErrorCode::InvalidArgument), "{refused}");
    }
    double.try_register(token.expose(), good).await.unwrap();
    let token = rig.workers.issue_token(&"b".parse().unwrap());
    let full = Double::new(rig.unix(), Spec::named("b")).register(token.expose()).await.unwrap_err();
    assert_eq!(stated_code(&full), Some(ErrorCode::QuotaExceeded));
}

#[tokio::test]
async fn an_operator_sees_every_worker_as_it_is() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let mut double = rig.joined(Spec::named("a")).await;
    let row = rig.workers.snapshot().remove(0);
    assert_eq!((row.id.as_str(), row.state, row.slots.total), ("a", WorkerStatus::Healthy, 8));
    assert_eq!(row.runtimes[0].name, "python");
    assert!(row.last_heartbeat_age < Duration::from_secs(20));
    double.break_link();
    until("suspect", || rig.workers.snapshot()[0].state == WorkerStatus::Suspect).await;
}

#[tokio::test]
async fn health_is_told_to_whoever_asks_and_the_services_only_where_the_operator_says_so() {
    for reflection in [Reflection::Off, Reflection::On] {
        let rig = Rig::new(WorkersOptions { reflection, ..WorkersOptions::default() }).await;
        let channel = Endpoint::from_shared(format!("http://{}", rig.tcp)).unwrap().connect().await.unwrap();
        let asked = HealthCheckRequest { service: "codegen.v1.WorkerLifecycle".to_owned() };
        let answer = HealthClient::new(channel.clone()).check(asked).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
        let services = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { host: String::new(), message_request: services };
        let mut client = ServerReflectionClient::new(channel);
        let listed = client.server_reflection_info(futures::stream::iter([request])).await;
        match reflection {
            Reflection::Off => assert_eq!(listed.unwrap_err().code(), Code::Unimplemented),
            Reflection::On => {
                let answer = listed.unwrap().into_inner().message().await.unwrap().unwrap();
                assert!(format!("{answer:?}").contains("codegen.v1.WorkerLifecycle"), "{answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_end_of_the_embedded_workers_process_is_the_end_of_its_life_at_once() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    rig.workers.embedded_ended().await;
    let double = rig.joined(Spec::named(EMBEDDED_WORKER)).await;
    let mut run = rig.start(&double, "gated");
    run.output().await;
    rig.workers.embedded_ended().await;
    assert!(matches!(rig.event().await, WorkerEvent::Gone { .. }));
    let (end, _) = run.end().await;
    assert!(matches!(end, DispatchEnd::Unknown(_)), "{end:?}");
}
