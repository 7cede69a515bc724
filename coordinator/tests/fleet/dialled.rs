//! Workers that advertise an address and are dialled there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coordinator::config::Plaintext;
use coordinator::workers::{Dialler, WorkersOptions};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::double::{Double, Spec};
use crate::rig::{Rig, until, within};

/// A rig that dials on this machine, so many at once.
async fn dialling(connections_max: usize) -> Rig {
    // Heartbeats may then come as fast as the test sends them.
    let options = WorkersOptions { heartbeat_interval: Duration::from_millis(10), ..WorkersOptions::default() };
    let mut rig = Rig::new(options).await;
    let allow = vec!["127.0.0.0/8".parse().unwrap()];
    rig.workers = rig.workers.clone().dialling(Dialler::new(allow, Plaintext::Local, None, connections_max));
    rig
}

async fn advertising(rig: &Rig, name: &str, listener: &TcpListener) -> (Double, String) {
    let token = rig.workers.issue_token(&name.parse().unwrap());
    let advertise = Some(listener.local_addr().unwrap().to_string());
    let mut double = Double::new(rig.unix(), Spec { advertise, ..Spec::named(name) });
    let ticket = double.register(token.expose()).await.unwrap().link_ticket;
    (double, ticket)
}

/// Accepts and says nothing. Gives how many connections there were, and how many there are.
fn silent(listener: TcpListener) -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (all, open) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let counts = (Arc::clone(&all), Arc::clone(&open));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            all.fetch_add(1, Ordering::Relaxed);
            open.fetch_add(1, Ordering::Relaxed);
            let open = Arc::clone(&open);
            tokio::spawn(async move {
                let mut buffer = [0; 256];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    counts
}

#[tokio::test]
async fn a_worker_is_dialled_by_one_at_a_time_however_often_it_asks_and_keeps_no_other_from_it() {
    let rig = dialling(2).await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut liar, _) = advertising(&rig, "liar", &dead).await;
    let (all, open) = silent(dead);
    let mut asked = 0;
    while asked < 200 {
        asked += usize::from(liar.heartbeat().await.is_ok());
    }
    until("it is dialled", || all.load(Ordering::Relaxed) > 0).await;
    until("by one at a time", || open.load(Ordering::Relaxed) <= 1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut honest, ticket) = advertising(&rig, "honest", &listener).await;
    within(honest.be_dialled(&listener, &ticket)).await;
    rig.link_up(&honest, true).await;
    assert!(open.load(Ordering::Relaxed) <= 1);
}

#[tokio::test]
async fn who_answers_to_a_ticket_that_was_replaced_gets_no_link() {
    let rig = dialling(4).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut double, first) = advertising(&rig, "a", &listener).await;
    // Whoever has the address now lets the first ticket in after the worker was given another one.
    let (mut stale, _) = within(listener.accept()).await.unwrap();
    let second = double.heartbeat().await.unwrap();
    assert_ne!(first, second);
    drop(tokio::io::AsyncWriteExt::write_all(&mut stale, b"ok\n").await);
    within(double.be_dialled(&listener, &second)).await;
    rig.link_up(&double, true).await;
    let mut rest = Vec::new();
    drop(within(stale.read_to_end(&mut rest)).await);
    let text = String::from_utf8_lossy(&rest);
    assert!(!text.contains("PRI * HTTP/2.0"), "no call was begun on it: {text}");
    let (end, _) = rig.start(&double, "hello").end().await;
    assert!(matches!(end, coordinator::workers::DispatchEnd::Answered(_)), "{end:?}");
}
