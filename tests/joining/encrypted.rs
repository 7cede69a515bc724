//! TLS between worker and coordinator, and certificates that stand for tokens.

use e2e::{Authority, Fleet, Installation, Launched, poll_until};
use rustix::process::Signal;
use std::sync::Arc;

use crate::remote::{LONG, python, session};

/// Files of TLS as flags.
fn flags<'a>(authority: &'a str, pair: Option<(&'a str, &'a str)>) -> Vec<&'a str> {
    let mut flags = vec!["--tls-ca", authority];
    if let Some((certificate, key)) = pair {
        flags.extend(["--tls-cert", certificate, "--tls-key", key]);
    }
    flags
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_worker_joins_by_tls_with_a_token_or_with_a_certificate_that_names_it() {
    let installation = Arc::new(Installation::new());
    let dir = installation.outside().to_owned();
    let authority = Authority::new(&dir, "ca");
    let ca = dir.join("ca.pem");
    let (certificate, key) = authority.certify("coordinator", &["localhost", "127.0.0.1"]);
    let server = flags(text(&ca), Some((text(&certificate), text(&key))));
    let mut fleet = Fleet::on(Arc::clone(&installation), &server);
    fleet.address();
    let token = fleet.token("token", &[]);

    let _by_token = fleet.worker("by-token", &token, &flags(text(&ca), None));
    let (certificate, key) = authority.certify("near", &["near"]);
    let pair = Some((text(&certificate), text(&key)));
    let mut command = fleet.certified_command("near", flags(text(&ca), pair));
    let mut near = Launched::start(command);
    near.says("joined coordinator=");
    command = fleet.certified_command("far", flags(text(&ca), pair));
    Launched::start(command).says("may not join");

    let other = Authority::new(&dir, "other");
    let (certificate, key) = other.certify("forged", &["forged"]);
    command = fleet.certified_command("forged", flags(text(&ca), Some((text(&certificate), text(&key)))));
    let mut forged = Launched::start(command);
    forged.says("not joined");
    assert!(!forged.said().contains("joined coordinator="), "{}", forged.said());
    let wrong = dir.join("other.pem");
    let mut deceived = Launched::start(fleet.worker_command("deceived", &token, flags(text(&wrong), None)));
    deceived.says("not joined");
    let mut plain = Launched::start(fleet.worker_command("plain", &token, [] as [&str; 0]));
    plain.says("not joined");

    let mut client = fleet.client();
    for _ in 0..2 {
        let session = session(&mut client);
        assert!(python(&mut client, &session, "print(6 * 7)").contains("42"));
    }
}

#[test]
fn a_worker_whose_certificate_is_not_trusted_any_more_is_sent_away() {
    let installation = Arc::new(Installation::new());
    let dir = installation.outside().to_owned();
    let (authority, next) = (Authority::new(&dir, "ca"), Authority::new(&dir, "next"));
    let ca = dir.join("ca.pem");
    let trusted = dir.join("trusted.pem");
    std::fs::copy(&ca, &trusted).expect("a file");
    let (certificate, key) = authority.certify("coordinator", &["127.0.0.1"]);
    let server = flags(text(&trusted), Some((text(&certificate), text(&key))));
    let impatient = [
        ("WORKER_KEEP_ALIVE", "1s"),
        ("WORKER_RECONNECT_GRACE", "4s"),
        ("WORKER_HEARTBEAT_TIMEOUT", "8s"),
        ("WORKER_HEARTBEAT_INTERVAL", "1s"),
    ];
    let mut fleet = Fleet::of(Arc::clone(&installation), &server, &impatient);
    fleet.address();
    let mut near = {
        let (certificate, key) = authority.certify("near", &["near"]);
        let flags = flags(text(&ca), Some((text(&certificate), text(&key))));
        Launched::start(fleet.certified_command("near", flags))
    };
    near.says("joined coordinator=");
    let mut other = {
        let (certificate, key) = next.certify("other", &["other"]);
        let flags = flags(text(&ca), Some((text(&certificate), text(&key))));
        Launched::start(fleet.certified_command("other", flags))
    };
    other.says("not joined");
    std::fs::copy(dir.join("next.pem"), &trusted).expect("a file");
    fleet.server.signal(Signal::HUP);
    other.says("joined coordinator=");
    poll_until("its life is over", LONG, || {
        let listed = fleet.installation().run(["workers", "ls", "--json"]);
        (!String::from_utf8_lossy(&listed.stdout).contains("\"near\"")).then_some(())
    });
}

#[test]
fn a_worker_is_dialled_with_tls_where_there_is_an_authority() {
    let installation = Arc::new(Installation::new());
    let dir = installation.outside().to_owned();
    let authority = Authority::new(&dir, "ca");
    let ca = dir.join("ca.pem");
    let (certificate, key) = authority.certify("coordinator", &["127.0.0.1"]);
    let mut server = flags(text(&ca), Some((text(&certificate), text(&key))));
    server.extend(["--advertise-allow", "127.0.0.1"]);
    let mut fleet = Fleet::on(Arc::clone(&installation), &server);
    fleet.address();
    let token = fleet.token("token", &[]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let address = format!("127.0.0.1:{port}");
    let (certificate, key) = authority.certify("worker", &["127.0.0.1"]);
    let mut arguments = flags(text(&ca), Some((text(&certificate), text(&key))));
    arguments.extend(["--advertise", &address, "--listen", &address]);
    let _worker = fleet.worker("far", &token, &arguments);
    let mut client = fleet.client();
    let session = session(&mut client);
    assert!(python(&mut client, &session, "print(6 * 7)").contains("42"));
}

#[test]
fn the_port_of_workers_is_not_opened_to_the_network_in_plain_text() {
    let installation = Installation::new();
    let output = installation.command(["serve", "--grpc", "0.0.0.0:0"]).output().expect("it starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--tls-cert") && said.contains("--insecure-plaintext"), "{said}");
}
