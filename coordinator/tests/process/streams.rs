//! The client's streams: whatever they are, they carry protocol and nothing else.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use rustix::fs::{OFlags, fcntl_getfl};
use serde_json::Value;

use crate::front::{Front, Place, echo, hello, poll};

#[test]
fn stdout_is_protocol_alone_at_every_log_level() {
    for mode in [&["--debug"][..], &["--debug", "--standalone"]] {
        let place = Place::new();
        let mut command = place.command(mode);
        command.env("LOG_LEVEL", "trace");
        let mut front = Front::launch(command);
        let mut stderr = std::mem::replace(&mut front.stderr, child_stderr());
        let reader = std::thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).map(|_| said)
        });
        front.greet();
        for _ in 0..20 {
            front.echo("quiet");
        }
        assert!(front.close().success());
        assert!(front.rest_of_stdout().is_empty());
        let said = reader.join().unwrap().unwrap();
        assert!(said.contains("a client connected"), "with --debug diagnostics reach stderr: {said}");
    }
}

/// Some stderr to put in the place of one that a thread reads.
fn child_stderr() -> std::process::ChildStderr {
    let mut child = std::process::Command::new("true").stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    child.wait().unwrap();
    stderr
}

#[test]
fn without_debug_a_client_s_stderr_stays_empty() {
    let place = Place::new();
    let mut front = place.client();
    front.echo("quiet");
    assert!(front.close().success());
    assert_eq!(front.said_on_stderr(), "");
}

#[test]
fn a_client_may_speak_over_a_socket_pair() {
    for mode in [&[][..], &["--standalone"]] {
        let place = Place::new();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut child = place
            .command(mode)
            .stdin(OwnedFd::from(theirs.try_clone().unwrap()))
            .stdout(OwnedFd::from(theirs.try_clone().unwrap()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut reader = BufReader::new(ours.try_clone().unwrap());
        for message in [hello(), echo("over a socket")] {
            writeln!(ours, "{message}").unwrap();
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert!(serde_json::from_str::<Value>(&line).unwrap()["result"].is_object(), "{line}");
        }
        assert!(!fcntl_getfl(&theirs).unwrap().contains(OFlags::NONBLOCK));
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(poll("the front ends", || child.try_wait().unwrap()).success());
    }
}

#[test]
fn a_client_may_be_a_file() {
    for mode in [&[][..], &["--standalone"]] {
        let place = Place::new();
        let mut input = tempfile::tempfile().unwrap();
        writeln!(input, "{}", hello()).unwrap();
        writeln!(input, r#"{{"jsonrpc":"2.0","method":"notifications/initialized"}}"#).unwrap();
        writeln!(input, "{}", echo("from a file")).unwrap();
        input.rewind().unwrap();
        let output = tempfile::NamedTempFile::new().unwrap();
        let stdout = File::options().append(true).open(output.path()).unwrap();
        let mut child = place.command(mode).stdin(input).stdout(stdout).stderr(Stdio::null()).spawn().unwrap();
        assert!(poll("the front ends", || child.try_wait().unwrap()).success());
        let said = std::fs::read_to_string(output.path()).unwrap();
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(said.contains("from a file"));
    }
}

#[test]
fn pipes_stay_as_the_client_made_them() {
    let place = Place::new();
    let mut front = place.client();
    front.echo("hello");
    assert!(!fcntl_getfl(front.stdin.as_ref().unwrap()).unwrap().contains(OFlags::NONBLOCK));
    assert!(!fcntl_getfl(front.stdout.get_ref()).unwrap().contains(OFlags::NONBLOCK));
}

#[test]
fn a_client_that_stops_reading_harms_nobody_else() {
    let place = Place::new();
    let mut deaf = place.client();
    let mut other = place.client();
    let long = "x".repeat(60_000);
    for _ in 0..20 {
        deaf.send(&echo(&long));
    }
    other.echo("still served");
    assert!(other.close().success());
}

#[test]
fn somebody_at_a_terminal_gets_a_hint_and_is_served_all_the_same() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let place = Place::new();
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
    let terminal = File::options().read(true).write(true).open(name).unwrap();
    let mut child = place.command(&[]).stdin(terminal).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut keyboard = File::from(keyboard);
    writeln!(keyboard, "{}", hello()).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(serde_json::from_str::<Value>(&line).unwrap()["result"].is_object());
    // Ctrl-D.
    keyboard.write_all(&[4]).unwrap();
    assert!(poll("the front ends", || child.try_wait().unwrap()).success());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("an MCP server") && said.contains("mcpServers"), "{said}");
}
