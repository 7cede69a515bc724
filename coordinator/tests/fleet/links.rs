//! What a connection must do to become a link, and what becomes of one that does not.

use std::time::Duration;

use codegen_types::Incarnation;
use coordinator::workers::{WorkerEvent, WorkersOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::double::{Double, Io, Route, Spec};
use crate::rig::{Rig, within};

async fn registered(rig: &mut Rig) -> (Double, String) {
    let token = rig.workers.issue_token(&"a".parse().unwrap());
    let mut double = Double::new(rig.unix(), Spec::named("a"));
    let ticket = double.register(token.expose()).await.unwrap().link_ticket;
    assert!(matches!(rig.event().await, WorkerEvent::Joined { .. }));
    (double, ticket)
}

#[tokio::test]
async fn a_ticket_opens_one_link_of_one_life_once() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let (mut double, ticket) = registered(&mut rig).await;
    let refused = Err("no the ticket is not valid\n".to_owned());
    assert_eq!(double.open_link("guess").await, refused);
    let incarnation = std::mem::replace(&mut double.spec.incarnation, Incarnation::mint());
    assert_eq!(double.open_link(&ticket).await, refused, "it belongs to another incarnation");
    double.spec.incarnation = incarnation;
    assert_eq!(double.open_link(&ticket).await, Ok(()));
    rig.link_up(&double, true).await;
    assert_eq!(double.open_link(&ticket).await, refused, "it was used");
    rig.link_up(&double, true).await;
}

#[tokio::test]
async fn a_ticket_ends_with_its_time() {
    let options = WorkersOptions { ticket_lifetime: Duration::ZERO, ..WorkersOptions::default() };
    let mut rig = Rig::new(options).await;
    let (mut double, ticket) = registered(&mut rig).await;
    assert!(double.open_link(&ticket).await.is_err());
}

#[tokio::test]
async fn a_worker_whose_link_broke_gets_a_new_ticket_and_the_old_one_is_void() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let mut double = rig.joined(Spec::named("a")).await;
    double.break_link();
    rig.link_up(&double, false).await;
    let first = double.heartbeat().await.unwrap();
    let second = double.heartbeat().await.unwrap();
    assert!(double.open_link(&first).await.is_err());
    assert_eq!(double.open_link(&second).await, Ok(()));
    rig.link_up(&double, true).await;
    let (end, _) = rig.start(&double, "hello").end().await;
    assert!(matches!(end, coordinator::workers::DispatchEnd::Answered(_)), "{end:?}");
}

#[tokio::test]
async fn a_connection_that_does_not_say_in_time_what_it_is_for_is_closed_and_delays_nobody() {
    let limit = Duration::from_millis(300);
    let mut rig = Rig::new(WorkersOptions { handshake_limit: limit, ..WorkersOptions::default() }).await;
    let mut silent = Vec::new();
    for route in rig.routes() {
        for said in [&b""[..], b"c", b"codegen-link/1 half-a-tick", b"PRI * HTTP/2.0\r\n\r\nSM"] {
            let (mut io, _) = route.connect().await;
            io.write_all(said).await.unwrap();
            silent.push(io);
        }
    }
    // They are still open; another is served meanwhile.
    rig.joined(Spec::named("a")).await;
    for io in &mut silent {
        let read = within(io.read_u8()).await;
        assert!(read.is_err(), "closed without an answer");
    }
}

#[tokio::test]
async fn a_connection_of_another_kind_is_closed_at_once() {
    let mut rig = Rig::new(WorkersOptions { handshake_limit: Duration::from_secs(600), ..Default::default() }).await;
    for route in rig.routes() {
        for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00", b"codegen-link/1 a b\n", &[0; 300]] {
            let (mut io, _) = route.connect().await;
            io.write_all(said).await.unwrap();
            assert!(within(io.read_u8()).await.is_err());
        }
    }
    rig.joined(Spec::named("a")).await;
}

/// A connection of somebody who speaks HTTP/2 and says nothing else.
async fn stranger(route: &Route) -> Box<dyn Io> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let (mut io, _) = route.connect().await;
    // It may be closed already.
    drop(io.write_all(PREFACE).await);
    io
}

/// What the other side says until it closes.
async fn until_closed(io: &mut Box<dyn Io>) {
    let mut buffer = [0; 64];
    while within(io.read(&mut buffer)).await.is_ok_and(|read| read > 0) {}
}

#[tokio::test]
async fn strangers_take_no_place_of_workers_and_none_for_long() {
    let options = WorkersOptions {
        strangers_max: 3,
        strangers_per_address_max: 3,
        stranger_limit: Duration::from_millis(500),
        connections_max: 1,
        ..WorkersOptions::default()
    };
    let mut rig = Rig::new(options).await;
    let [_, tcp] = rig.routes();
    let mut worker = rig.joined_over(tcp.clone(), Spec::named("a")).await;
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(stranger(&tcp).await);
    }
    until_closed(&mut strangers[3]).await;
    worker.heartbeat().await.unwrap();
    for io in &mut strangers {
        until_closed(io).await;
    }
    // There is room again, for a link too.
    worker.break_link();
    rig.link_up(&worker, false).await;
    worker.reopen_link().await;
    rig.link_up(&worker, true).await;
}

#[tokio::test]
async fn one_address_takes_not_all_places_of_strangers_and_of_workers() {
    let options = WorkersOptions { strangers_per_address_max: 2, ..WorkersOptions::default() };
    let mut rig = Rig::new(options).await;
    let flood = TcpSocket::new_v4().unwrap();
    flood.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut strangers = vec![flood.connect(rig.tcp).await.unwrap()];
    for _ in 0..3 {
        let more = TcpSocket::new_v4().unwrap();
        more.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        strangers.push(more.connect(rig.tcp).await.unwrap());
    }
    for closed in &mut strangers[2..] {
        assert_eq!(within(closed.read(&mut [0; 8])).await.unwrap_or(0), 0);
    }
    let [_, tcp] = rig.routes();
    rig.joined_over(tcp, Spec::named("a")).await;
}

#[tokio::test]
async fn a_flood_over_tcp_does_not_shut_the_unix_socket() {
    let options = WorkersOptions { strangers_max: 3, ..WorkersOptions::default() };
    let mut rig = Rig::new(options).await;
    let [_, tcp] = rig.routes();
    let mut flood = Vec::new();
    for _ in 0..8 {
        flood.push(tcp.connect().await);
    }
    rig.joined(Spec::named("a")).await;
}

#[tokio::test]
async fn a_process_of_another_user_gets_nothing_on_the_unix_socket() {
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a_process_of_another_user_gets_nothing_on_the_unix_socket needs root");
        return;
    }
    let rig = Rig::new(WorkersOptions::default()).await;
    for (path, mode) in [(rig.socket.parent().unwrap(), 0o755), (&rig.socket, 0o777)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  s.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0')\n\
                  print(len(s.recv(100)))";
    let run = |uid: &str| {
        let mut command = tokio::process::Command::new("setpriv");
        command.args(["--reuid", uid, "--regid", uid, "--clear-groups", "/usr/bin/python3", "-c", script]);
        command.arg(&rig.socket).output()
    };
    let ours = within(run("0")).await.unwrap();
    assert_ne!(String::from_utf8_lossy(&ours.stdout).trim(), "0", "{ours:?}");
    let theirs = within(run("1000")).await.unwrap();
    let said = String::from_utf8_lossy(&theirs.stdout).trim().to_owned();
    assert!(said == "0" || said.is_empty(), "{theirs:?}");
    assert!(!String::from_utf8_lossy(&theirs.stderr).contains("PermissionError"), "it could connect: {theirs:?}");
}
