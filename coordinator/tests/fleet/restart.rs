//! Workers that an earlier server knew, and connections that die without a word.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codegen_types::{ErrorCode, EventBody, OperationResult, SessionId, TaskId};
use coordinator::workers::{DispatchEnd, Fleet as _, TaskAttach, WorkerEvent, WorkersOptions};
use coordinator_core::worker::Timing;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::double::{Double, Route, Spec};
use crate::rig::{LONG, Rig, within};

fn attach(double: &Double, task: TaskId) -> TaskAttach {
    TaskAttach {
        task,
        session: SessionId::mint(),
        lease: double.lease(),
        operation: "exec".to_owned(),
        timeout: Duration::from_secs(60),
        output_bytes_max: 1 << 20,
        patience: LONG,
    }
}

/// The same life of the worker, as it comes to another server.
async fn goes_over(old: &Double, rig: &mut Rig) -> Double {
    let token = rig.workers.issue_token(&old.spec.id);
    let mut double = Double::new(rig.unix(), old.spec.clone());
    double.tasks = Arc::clone(&old.tasks);
    let registered = double.register(token.expose()).await.unwrap();
    double.open_link(&registered.link_ticket).await.unwrap();
    double
}

#[tokio::test]
async fn a_task_of_an_earlier_server_is_followed_once_its_worker_has_come_and_is_not_run_again() {
    let mut first = Rig::new(WorkersOptions::default()).await;
    let old = first.joined(Spec::named("a")).await;
    let mut run = first.start(&old, "gated");
    assert_eq!(run.output().await, "before");
    let mut second = Rig::new(WorkersOptions::default()).await;
    second.workers.expect(vec![(old.spec.id.clone(), old.spec.incarnation)]);
    let (workers, id) = (second.workers.clone(), run.id);
    let (sender_again, mut again) = mpsc::channel(16);
    let task = attach(&old, id);
    let followed = tokio::spawn(async move { workers.attach(task, sender_again, CancellationToken::new()).await });
    let double = goes_over(&old, &mut second).await;
    double.tasks.gate.notify_one();
    let end = within(followed).await.unwrap();
    assert!(matches!(end, DispatchEnd::Answered(EventBody::Finished(OperationResult::Exec(_)))), "{end:?}");
    let mut said = Vec::new();
    while let Some(event) = again.recv().await {
        if let EventBody::Output { bytes, .. } = event {
            said.extend(bytes);
        }
    }
    assert_eq!(said, b"beforeafter", "from the first event on");
    assert_eq!(double.tasks.executed(id), 1);
}

#[tokio::test]
async fn a_worker_that_never_had_a_task_says_so_and_one_that_does_not_come_is_gone() {
    let ms = Duration::from_millis;
    let timing =
        Timing { reconnect_grace: ms(400), prune_after: ms(1_000), reassign_after: ms(600), keep_alive: ms(200) };
    let mut rig = Rig::new(WorkersOptions { timing, keep_alive_interval: ms(100), ..Default::default() }).await;
    let old = Double::new(rig.unix(), Spec::named("a"));
    rig.workers.expect(vec![(old.spec.id.clone(), old.spec.incarnation)]);
    let workers = rig.workers.clone();
    let task = attach(&old, TaskId::mint());
    let denied = tokio::spawn({
        let (workers, task) = (workers.clone(), task.clone());
        async move { workers.attach(task, mpsc::channel(1).0, CancellationToken::new()).await }
    });
    let _double = goes_over(&old, &mut rig).await;
    assert!(matches!(rig.event().await, WorkerEvent::Joined { .. }));
    let end = within(denied).await.unwrap();
    assert!(
        matches!(&end, DispatchEnd::NotStarted(failure) if failure.code == ErrorCode::WorkerUnavailable),
        "{end:?}"
    );
    let absent = Double::new(rig.unix(), Spec::named("b"));
    rig.workers.expect(vec![(absent.spec.id.clone(), absent.spec.incarnation)]);
    let end =
        within(workers.attach(attach(&absent, TaskId::mint()), mpsc::channel(1).0, CancellationToken::new())).await;
    assert!(matches!(&end, DispatchEnd::Unknown(failure) if failure.code == ErrorCode::TaskOutcomeUnknown), "{end:?}");
    let gone = loop {
        if let WorkerEvent::Gone { worker, incarnation } = rig.event().await {
            break (worker, incarnation);
        }
    };
    assert!(
        [(absent.spec.id, absent.spec.incarnation), (old.spec.id, old.spec.incarnation)].contains(&gone),
        "{gone:?}"
    );
}

/// Passes bytes on until it is told to swallow them, as a network does that loses a connection without a word.
async fn swallower(to: SocketAddr) -> (SocketAddr, CancellationToken) {
    let (listener, swallow) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
    let (address, swallows) = (listener.local_addr().unwrap(), swallow.clone());
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(near_in, far_out, swallows.clone()));
            tokio::spawn(pass(far_in, near_out, swallows.clone()));
        }
    });
    (address, swallow)
}

async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, swallow: CancellationToken) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if !swallow.is_cancelled() && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_open_at_one_end_only_is_noticed_after_two_pings() {
    let interval = Duration::from_millis(300);
    assert!(WorkersOptions::default().keep_alive_interval * 2 <= Duration::from_secs(20));
    let mut rig = Rig::new(WorkersOptions { keep_alive_interval: interval, ..WorkersOptions::default() }).await;
    let (address, swallow) = swallower(rig.tcp).await;
    let token = rig.workers.issue_token(&"a".parse().unwrap());
    let mut double = Double::new(Route::Tcp(address), Spec::named("a"));
    let registered = double.register(token.expose()).await.unwrap();
    rig.event().await;
    double.open_link(&registered.link_ticket).await.unwrap();
    rig.link_up(&double, true).await;
    swallow.cancel();
    let silent = Instant::now();
    rig.link_up(&double, false).await;
    assert!(silent.elapsed() < interval * 2 + Duration::from_secs(10), "{:?}", silent.elapsed());
}
