//! Joining with static tokens, and what becomes of a worker whose token is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use codegen_audit::EventKind;
use codegen_proto::status::stated_code;
use codegen_types::{ErrorCode, Incarnation, Principal, WorkerId};
use coordinator::identity::{NewToken, Scopes, TokenId, Tokens};
use coordinator::store::Memory;
use coordinator::workers::{Fleet as _, WorkerEvent, WorkersOptions};
use coordinator_core::worker::Timing;

use crate::double::{Double, Spec};
use crate::rig::{LONG, Rig};

fn me() -> Principal {
    Principal::os_user("operator")
}

struct Issuer(Tokens);

impl Issuer {
    /// A rig that lets workers join with static tokens, and what makes these.
    async fn with(options: WorkersOptions) -> (Rig, Self) {
        let mut rig = Rig::new(options).await;
        let tokens = Tokens::load(Arc::new(Memory::default()), rig.audit.clone()).await.unwrap();
        rig.workers = rig.workers.clone().joined_by(tokens.clone());
        (rig, Self(tokens))
    }

    async fn make(&self, principal: &str, scopes: &str, lifetime_seconds: Option<u64>) -> (TokenId, String) {
        let (principal, scopes) = (principal.to_owned(), scopes.parse::<Scopes>().unwrap());
        let made = self.0.create(NewToken { principal, scopes, lifetime_seconds, note: None }, &me()).await;
        let (view, text) = made.unwrap();
        (view.id, text.expose().to_owned())
    }
}

/// Times short enough to see a reaper at work.
fn brisk() -> WorkersOptions {
    let ms = Duration::from_millis;
    WorkersOptions {
        keep_alive_interval: ms(20),
        heartbeat_interval: ms(50),
        timing: Timing {
            keep_alive: ms(40),
            reconnect_grace: ms(1_000),
            reassign_after: ms(2_000),
            prune_after: ms(4_000),
        },
        ..WorkersOptions::default()
    }
}

#[tokio::test]
async fn a_token_needs_the_scope_and_lets_only_its_own_worker_join_where_it_names_one() {
    let (mut rig, issuer) = Issuer::with(WorkersOptions::default()).await;
    let (_, of_user) = issuer.make("alice", "tools,sessions,admin", None).await;
    let (_, of_any) = issuer.make("worker", "worker", None).await;
    let (_, of_a) = issuer.make("worker:a", "worker", None).await;
    for (name, token, may) in [
        ("a", &of_user, false),
        ("b", &of_a, false),
        ("embedded", &of_any, false),
        ("a", &of_a, true),
        ("b", &of_any, true),
    ] {
        let registered = Double::new(rig.unix(), Spec::named(name)).register(token).await;
        match registered {
            Ok(_) => assert!(may, "{name}"),
            Err(refused) => {
                assert!(!may, "{name}: {refused}");
                assert_eq!(stated_code(&refused), Some(ErrorCode::Unauthenticated));
            }
        }
    }
    for _ in 0..2 {
        assert!(matches!(rig.event().await, WorkerEvent::Joined { .. }));
    }
    let records = rig.records(EventKind::WorkerRefused);
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| !record.line.contains(&of_user[20..])), "no token in the log");
}

#[tokio::test]
async fn who_shares_a_token_takes_no_name_from_a_worker_that_is_there_or_has_one_of_its_own() {
    let (rig, issuer) = Issuer::with(WorkersOptions::default()).await;
    let (_, shared) = issuer.make("worker", "worker", None).await;
    issuer.make("worker:own", "worker", None).await;
    let mut there = Double::new(rig.unix(), Spec::named("there"));
    let ticket = there.register(&shared).await.unwrap().link_ticket;
    there.open_link(&ticket).await.unwrap();
    rig.link_up(&there, true).await;
    for (name, code) in [("there", ErrorCode::AlreadyExists), ("own", ErrorCode::Unauthenticated)] {
        let refused = Double::new(rig.unix(), Spec::named(name)).register(&shared).await.unwrap_err();
        assert_eq!(stated_code(&refused), Some(code), "{name}: {refused}");
    }
    // The same life may join again.
    there.register(&shared).await.unwrap();
}

#[tokio::test]
async fn who_shares_a_token_takes_the_name_of_a_worker_that_was_away_for_long_or_whose_life_it_follows() {
    let (mut rig, issuer) = Issuer::with(brisk()).await;
    let (_, shared) = issuer.make("worker", "worker", None).await;
    let mut there = Double::new(rig.unix(), Spec::named("a"));
    let ticket = there.register(&shared).await.unwrap().link_ticket;
    there.open_link(&ticket).await.unwrap();
    rig.link_up(&there, true).await;
    there.break_link();
    rig.link_up(&there, false).await;
    let route = rig.unix();
    let other = |follows| Double::new(route.clone(), Spec { follows, ..Spec::named("a") });
    let begun = Instant::now();
    for follows in [None, Some(Incarnation::mint())] {
        let refused = other(follows).register(&shared).await.unwrap_err();
        assert_eq!(stated_code(&refused), Some(ErrorCode::AlreadyExists), "{refused}");
    }
    assert!(begun.elapsed() < brisk().timing.reconnect_grace, "the test was too slow to tell");
    // What knows the life before has its disk.
    let mut next = other(Some(there.spec.incarnation));
    next.register(&shared).await.unwrap();
    let gone = |event: &WorkerEvent| matches!(event, WorkerEvent::Gone { incarnation, .. } if *incarnation == there.spec.incarnation);
    while !gone(&rig.event().await) {}
    // Whoever else comes waits, also for one whose link never was up.
    let mut late = other(None);
    let begun = Instant::now();
    while let Err(refused) = late.register(&shared).await {
        let code = stated_code(&refused);
        assert!(matches!(code, Some(ErrorCode::AlreadyExists | ErrorCode::RateLimited)), "{refused}");
        assert!(begun.elapsed() < LONG, "in time");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(begun.elapsed() > brisk().timing.reconnect_grace / 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn after_a_restart_a_name_is_kept_for_the_lives_that_may_come_back() {
    let (mut rig, issuer) = Issuer::with(brisk()).await;
    let (_, shared) = issuer.make("worker", "worker", None).await;
    let before = [Incarnation::mint(), Incarnation::mint()];
    let name: WorkerId = "a".parse().unwrap();
    rig.workers.expect(before.map(|life| (name.clone(), life)).to_vec());
    let refused = Double::new(rig.unix(), Spec::named("a")).register(&shared).await.unwrap_err();
    assert_eq!(stated_code(&refused), Some(ErrorCode::AlreadyExists), "{refused}");
    let resumed = Spec { incarnation: before[0], ..Spec::named("a") };
    Double::new(rig.unix(), resumed).register(&shared).await.unwrap();
    assert!(matches!(rig.event().await, WorkerEvent::Joined { incarnation, .. } if incarnation == before[0]));
    // One that proves by its token which worker it is waits for nobody.
    let (_, own) = issuer.make("worker:b", "worker", None).await;
    rig.workers.expect(vec![("b".parse().unwrap(), before[1])]);
    Double::new(rig.unix(), Spec::named("b")).register(&own).await.unwrap();
    assert!(matches!(rig.event().await, WorkerEvent::Gone { incarnation, .. } if incarnation == before[1]));
}

#[tokio::test]
async fn revoking_a_token_ends_its_workers_and_keeps_them_out() {
    let (mut rig, issuer) = Issuer::with(brisk()).await;
    let (id, token) = issuer.make("worker", "worker", None).await;
    let mut double = Double::new(rig.unix(), Spec::named("a"));
    let ticket = double.register(&token).await.unwrap().link_ticket;
    double.open_link(&ticket).await.unwrap();
    rig.link_up(&double, true).await;
    assert!(matches!(rig.event().await, WorkerEvent::Joined { .. }));
    issuer.0.revoke(&id, &me()).await.unwrap();
    let refused = double.heartbeat().await.unwrap_err();
    assert_eq!(stated_code(&refused), Some(ErrorCode::Unauthenticated), "{refused}");
    // It need not say anything for its life to end.
    assert!(matches!(rig.event().await, WorkerEvent::Gone { .. }));
    assert_eq!(rig.records(EventKind::WorkerGone)[0].detail.as_ref().unwrap()["why"], "dismissed");
    let refused = double.register(&token).await.unwrap_err();
    assert_eq!(stated_code(&refused), Some(ErrorCode::Unauthenticated));
    let why = rig.records(EventKind::WorkerRefused)[0].detail.as_ref().unwrap()["why"].clone();
    assert_eq!(why, "the token was revoked");
}

#[tokio::test]
async fn a_token_that_expires_ends_its_workers_too() {
    let (mut rig, issuer) = Issuer::with(brisk()).await;
    let (_, token) = issuer.make("worker", "worker", Some(1)).await;
    Double::new(rig.unix(), Spec::named("a")).register(&token).await.unwrap();
    assert!(matches!(rig.event().await, WorkerEvent::Joined { .. }));
    assert!(matches!(rig.event().await, WorkerEvent::Gone { .. }));
    let refused = Double::new(rig.unix(), Spec::named("a")).register(&token).await.unwrap_err();
    assert_eq!(stated_code(&refused), Some(ErrorCode::Unauthenticated));
}

#[tokio::test]
async fn two_workers_with_one_name_and_its_token_do_not_push_each_other_out_without_end() {
    let (mut rig, issuer) = Issuer::with(WorkersOptions::default()).await;
    let (_, token) = issuer.make("worker:a", "worker", None).await;
    let mut both = [Double::new(rig.unix(), Spec::named("a")), Double::new(rig.unix(), Spec::named("a"))];
    let mut refused = 0;
    for turn in 0..40 {
        let double = &mut both[turn % 2];
        match double.register(&token).await {
            Ok(registered) => {
                double.open_link(&registered.link_ticket).await.unwrap();
                rig.link_up(double, true).await;
            }
            Err(status) => {
                assert_eq!(stated_code(&status), Some(ErrorCode::RateLimited), "{status}");
                refused += 1;
            }
        }
        while rig.events.try_recv().is_ok() {}
    }
    let gone = rig.records(EventKind::WorkerGone).len();
    assert_eq!(gone, 1, "the second took over, and the first does not take it back at once");
    assert!(rig.records(EventKind::WorkerJoined).len() < 20, "{refused} were refused");
}

#[tokio::test]
async fn who_shares_a_token_fills_not_all_places_with_names_that_it_invents() {
    let (rig, issuer) = Issuer::with(WorkersOptions { workers_max: 6, ..WorkersOptions::default() }).await;
    let (_, shared) = issuer.make("worker", "worker", None).await;
    let (_, own) = issuer.make("worker:own", "worker", None).await;
    for number in 0..6 {
        let registered = Double::new(rig.unix(), Spec::named(&format!("invented-{number}"))).register(&shared).await;
        match registered {
            Ok(_) => assert!(number < 3, "{number}"),
            Err(refused) => {
                assert!(number >= 3, "{number}: {refused}");
                assert_eq!(stated_code(&refused), Some(ErrorCode::QuotaExceeded));
            }
        }
    }
    Double::new(rig.unix(), Spec::named("own")).register(&own).await.unwrap();
}
