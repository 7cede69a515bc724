//! How fronts and servers end, and that nothing of them is left.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::front::{Front, Place, below, is_running, poll, signal};

/// What a person or client would call at once.
const PROMPTLY: Duration = Duration::from_secs(10);

#[test]
fn the_end_of_stdin_is_the_end_of_the_front() {
    let place = Place::new();
    let mut front = place.client();
    front.echo("hello");
    let start = Instant::now();
    assert!(front.close().success());
    assert!(start.elapsed() < PROMPTLY);
    assert!(front.rest_of_stdout().is_empty());
}

#[test]
fn a_signal_ends_the_front_promptly_and_in_order() {
    for which in [Signal::TERM, Signal::INT, Signal::HUP] {
        let place = Place::new();
        let mut front = place.client();
        front.echo("hello");
        let start = Instant::now();
        front.signal(which);
        assert!(front.wait().success(), "{which:?}");
        assert!(start.elapsed() < PROMPTLY, "{which:?}");
    }
}

#[test]
fn a_server_that_nobody_needs_ends_and_leaves_no_process_and_no_socket() {
    let place = Place::new();
    let mut command = place.command(&[]);
    command.env("LINGER", "0s");
    let mut front = Front::launch(command);
    front.greet();
    let server = place.server().unwrap();
    let mut all = below(server);
    all.push(server);
    assert!(front.close().success());
    poll("every process has ended", || (!all.iter().any(|pid| is_running(*pid))).then_some(()));
    assert_eq!(place.socket_files(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_server_stays_for_its_linger() {
    let place = Place::new();
    let mut front = place.client();
    let server = place.server();
    assert!(front.close().success());
    place.client().echo("again");
    assert_eq!(place.server(), server);
}

#[test]
fn a_stopped_server_tells_its_fronts_and_cleans_up() {
    for which in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let mut front = place.client();
        front.echo("hello");
        let server = place.server().unwrap();
        let mut all = below(server);
        all.push(server);
        signal(server, which);
        assert_eq!(front.wait().code(), Some(1));
        assert!(front.said_on_stderr().contains("the server was stopped"));
        poll("every process has ended", || (!all.iter().any(|pid| is_running(*pid))).then_some(()));
        assert!(place.socket_files().is_empty());
    }
}

#[test]
fn a_server_that_is_told_to_read_its_files_again_goes_on() {
    let place = Place::new();
    let mut front = place.client();
    let server = place.server().unwrap();
    signal(server, Signal::HUP);
    poll("the server says so", || place.diagnostics().contains("asked to read files again").then_some(()));
    front.echo("hello");
    assert_eq!(place.server(), Some(server));
    assert!(front.close().success());
}

#[test]
fn the_loss_of_the_server_is_the_front_s_end_with_a_reason() {
    let place = Place::new();
    let mut front = place.client();
    let server = place.server().unwrap();
    let mut all = below(server);
    all.push(server);
    signal(server, Signal::KILL);
    assert_eq!(front.wait().code(), Some(1));
    assert!(front.said_on_stderr().contains("the server is gone"));
    poll("what it had started has ended", || (!all.iter().any(|pid| is_running(*pid))).then_some(()));
}

#[test]
fn what_a_killed_server_left_is_replaced() {
    let place = Place::new();
    let mut front = place.client();
    signal(place.server().unwrap(), Signal::KILL);
    front.wait();
    assert!(!place.socket_files().is_empty(), "a killed server leaves its sockets");
    place.client().echo("back again");
}

#[test]
fn a_front_that_is_killed_takes_only_its_own_connection_with_it() {
    let place = Place::new();
    let mut killed = place.client();
    let mut other = place.client();
    killed.signal(Signal::KILL);
    killed.wait();
    other.echo("still here");
    assert!(killed.rest_of_stdout().is_empty(), "the server closed its copy of the stream");
}

#[test]
fn standalone_ends_with_its_client_and_leaves_nothing() {
    let place = Place::new();
    for end in ["stdin", "signal"] {
        let mut front = place.front(&["--standalone"]);
        front.greet();
        front.echo("alone");
        let all = below(front.child.id());
        let status = if end == "stdin" {
            front.close()
        } else {
            front.signal(Signal::TERM);
            front.wait()
        };
        assert!(status.success(), "{end}");
        poll("every process has ended", || (!all.iter().any(|pid| is_running(*pid))).then_some(()));
        assert!(place.socket_files().is_empty());
        assert!(front.rest_of_stdout().is_empty());
    }
}

#[test]
fn an_operator_s_server_stays_without_clients_until_a_signal_and_prints_nothing() {
    let place = Place::new();
    let mut command = place.command(&["serve"]);
    command.env("LINGER", "0s");
    let mut server = Front::launch(command);
    poll("the server listens", || place.server());
    let mut front = place.client();
    front.echo("hello");
    assert_eq!(place.server(), Some(server.child.id()));
    assert!(front.close().success());
    assert!(server.child.try_wait().unwrap().is_none(), "it needs no client to stay");
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(server.rest_of_stdout().is_empty());
    assert!(place.socket_files().is_empty());
}
