//! Several fronts, several servers, several versions: who finds whom.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixListener;

use crate::front::{Front, Place, SOON, poll};

#[test]
fn fronts_that_start_at_once_share_one_server() {
    let place = Place::new();
    let mut fronts: Vec<Front> = (0..6).map(|_| place.front(&[])).collect();
    for front in &mut fronts {
        front.greet();
        front.echo("hello");
    }
    let started = fs::read_dir(place.path().join("audit")).unwrap().flatten().map(|entry| entry.path());
    let log: String = started
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(log.matches("\"server.started\"").count(), 1);
    let [first, others @ ..] = fronts.as_mut_slice() else { unreachable!("there are six") };
    assert!(first.close().success());
    for other in others {
        other.echo("still here");
    }
}

#[test]
fn the_server_gets_none_of_the_client_s_environment() {
    let place = Place::new();
    let mut command = place.command(&[]);
    command.env("SECRET_OF_THE_CLIENT", "hunter2").env("LOG_LEVEL", "debug");
    let mut front = Front::launch(command);
    front.greet();
    let environment = fs::read(format!("/proc/{}/environ", place.server().unwrap())).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains("hunter2") && !environment.contains("SECRET"), "{environment}");
    assert!(environment.contains("LOG_LEVEL=debug"));
}

#[test]
fn a_client_that_asks_for_more_isolation_than_the_running_server_keeps_to_is_refused() {
    let place = Place::new();
    let mut front = place.front(&["--isolation-minimum", "reduced"]);
    front.greet();
    let mut stricter = place.front(&["--isolation-minimum", "full"]);
    assert_eq!(stricter.wait().code(), Some(1));
    assert!(stricter.said_on_stderr().contains("isolation minimum `reduced`"));
}

#[test]
fn beside_a_server_of_another_version_a_front_serves_alone_and_says_so() {
    let place = Place::new();
    let listener = UnixListener::bind(place.path().join("server.sock")).unwrap();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"{\"reply\":\"other_version\",\"version\":\"99.0.0\"}\n").unwrap();
        stream
    });
    let mut front = place.front(&[]);
    front.greet();
    front.echo("alone");
    let version = env!("CARGO_PKG_VERSION");
    assert!(place.path().join(format!("v{version}/audit")).is_dir());
    assert!(front.close().success());
    // The descriptors in flight to the other server hold the front's stderr open.
    drop(other.join().unwrap());
    assert!(front.said_on_stderr().contains("a server of version 99.0.0 runs"));
    fs::remove_file(place.path().join("server.sock")).unwrap();
}

#[test]
fn standalone_beside_a_server_keeps_its_sessions_apart_and_says_so() {
    let place = Place::new();
    let mut served = place.client();
    let mut alone = place.front(&["--standalone"]);
    alone.greet();
    alone.echo("alone");
    assert!(place.path().join("standalone-1/audit").is_dir());
    assert!(alone.close().success());
    assert!(alone.said_on_stderr().contains("standalone-1"));
    served.echo("still here");
}

#[test]
fn a_second_server_on_the_same_directory_is_refused_by_name() {
    let place = Place::new();
    let _front = place.client();
    let server = place.server().unwrap();
    let mut second = place.front(&["serve"]);
    assert_eq!(second.wait().code(), Some(1));
    let said = second.said_on_stderr();
    assert!(said.contains(&format!("process {server}")), "{said}");
}

#[test]
fn a_chosen_port_that_is_taken_is_the_client_s_reason() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let place = Place::new();
    let mut front = place.front(&["--grpc-port", &port]);
    assert_eq!(front.wait().code(), Some(1));
    let said = front.said_on_stderr();
    assert!(said.contains(&port) && said.contains("--grpc"), "{said}");
}

#[test]
fn a_state_path_longer_than_a_socket_address_works() {
    let place = Place::new();
    let long = place.path().join("x".repeat(150));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command.env_clear().env("HOME", place.path()).env("GRPC_PORT", "0").env("LINGER", "0s");
    command.arg("--state-dir").arg(&long);
    let mut front = Front::launch(command);
    front.greet();
    front.echo("hello");
    assert!(front.close().success());
    poll("the server has ended", || (!long.join("server.sock").exists()).then_some(()));
}
