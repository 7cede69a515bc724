//! Secrets go to workers that prove which one they are, and no other ever has them.

use std::path::PathBuf;
use std::sync::Arc;

use e2e::{Answer, Authority, Client, Fleet, Installation, Launched, poll_until};
use serde_json::json;

use crate::rig::{LONG, Origin, keep, python};
use crate::secrets::{VALUE, memory_has};

/// A server without a worker of its own, and a host that gets a secret.
struct Ground {
    fleet: Fleet,
    origin: Origin,
    /// The certificate of whoever certified the host.
    authority: PathBuf,
}

impl Ground {
    /// With further arguments and settings of the server.
    fn with(arguments: &[&str], environment: &[(&'static str, &'static str)]) -> Self {
        Self::on(Arc::new(Installation::new()), arguments, environment)
    }

    fn on(installation: Arc<Installation>, arguments: &[&str], environment: &[(&'static str, &'static str)]) -> Self {
        let directory = installation.outside().to_owned();
        let certificate = Authority::new(&directory, "authority").certify("origin", &["127.0.0.2"]);
        let origin = Origin::serve(Some(&certificate));
        let config = directory.join("config.toml");
        std::fs::write(&config, format!("egress_private_hosts = '{}'\n", origin.host())).expect("a file");
        let config = config.to_str().expect("UTF-8");
        let mut fleet = Fleet::of(Arc::clone(&installation), &[&["--config", config], arguments].concat(), environment);
        fleet.address();
        keep(&installation, "token", &origin.host(), VALUE);
        Self { fleet, origin, authority: directory.join("authority.pem") }
    }

    /// A worker that shows a token, and trusts the host's certificate.
    fn worker(&mut self, name: &str, token: &[&str], arguments: &[&str]) -> Launched {
        let token = self.fleet.token(&format!("token-{name}"), token);
        let mut command = self.fleet.worker_command(name, &token, arguments);
        command.env("PIP_CERT", &self.authority);
        let mut worker = Launched::start(command);
        worker.says("joined coordinator=");
        worker
    }

    /// What comes of asking for a session whose requests get the secret.
    fn ask(&self, client: &mut Client) -> Answer {
        client.tool("session_create", json!({"network": {"allow": [self.origin.host()], "secrets": ["token"]}}))
    }

    /// That no session gets the secret here, while one without it has the same host on its list.
    fn assert_not_told(&self, client: &mut Client) {
        poll_until("the worker takes sessions", LONG, || {
            let made = client.tool("session_create", json!({"network": {"allow": [self.origin.host()]}}));
            (!made.is_error).then_some(())
        });
        let refused = self.ask(client);
        assert!(refused.code("NO_WORKER_FITS").contains("not told secrets (SECRETS_WORKERS)"), "{}", refused.text);
    }

    /// That the secret reaches its host from here.
    fn assert_told(&self, client: &mut Client) {
        let made = poll_until("the worker takes sessions", LONG, || {
            let made = self.ask(client);
            (!made.is_error).then_some(made)
        });
        let session = made.structured["session_id"].as_str().expect("a handle");
        let code = format!(
            "import json, urllib.request\n\
             answer = json.loads(urllib.request.urlopen('https://{}/', timeout=60).read())\n\
             print([value == 'correct-horse-' + 'battery-staple' for name, value in answer['headers'] if name == 'x-token'])\n",
            self.origin.host()
        );
        let text = python(client, session, &code);
        assert!(text.contains("[True]"), "{text}");
    }
}

/// Whether the secret is in the memory of a worker.
fn has_secret(worker: &Launched) -> bool {
    memory_has(worker.pid(), VALUE.as_bytes()).expect("it runs")
}

#[test]
fn a_worker_that_shares_its_token_is_told_no_secret_and_one_with_a_token_of_its_own_is() {
    let mut ground = Ground::with(&[], &[]);
    let mut client = ground.fleet.client();
    let nameless = ground.fleet.certified_command("nameless", [] as [&str; 0]).output().expect("it starts");
    assert!(!nameless.status.success() && String::from_utf8_lossy(&nameless.stderr).contains("--token-file"));
    let sharing = ground.worker("sharing", &[], &[]);
    ground.assert_not_told(&mut client);
    let own = ground.worker("own", &["--worker-id", "own"], &[]);
    ground.assert_told(&mut client);
    assert!(has_secret(&own), "it would be found where it is");
    assert!(!has_secret(&sharing), "what is placed elsewhere is told elsewhere");
}

#[test]
fn the_operator_says_which_workers_are_told_secrets_and_plain_text_tells_none_of_another_host() {
    let own = ["--worker-id", "far"];
    for (settings, arguments, token, is_told) in [
        ("embedded", &[][..], &own[..], false),
        ("all", &[], &[], true),
        ("all", &["--insecure-plaintext"], &own, false),
    ] {
        let mut ground = Ground::with(arguments, &[("SECRETS_WORKERS", settings)]);
        let mut client = ground.fleet.client();
        let worker = ground.worker("far", token, &[]);
        if is_told {
            ground.assert_told(&mut client);
        } else {
            ground.assert_not_told(&mut client);
        }
        assert_eq!(has_secret(&worker), is_told, "{settings} {arguments:?}");
    }
}

#[test]
fn a_worker_with_a_certificate_of_its_own_is_told_secrets() {
    let installation = Arc::new(Installation::new());
    let directory = installation.outside().to_owned();
    let path = |name: &str| directory.join(name).to_str().expect("UTF-8").to_owned();
    let authority = Authority::new(&directory, "ca");
    let flags = |name: &str, names: &[&str]| {
        authority.certify(name, names);
        [
            "--tls-ca",
            &path("ca.pem"),
            "--tls-cert",
            &path(&format!("{name}.crt")),
            "--tls-key",
            &path(&format!("{name}.key")),
        ]
        .map(str::to_owned)
    };
    let (server, worker) = (flags("coordinator", &["127.0.0.1"]), flags("near", &["near"]));
    let server: Vec<_> = server.iter().map(String::as_str).collect();
    let mut ground = Ground::on(installation, &server, &[]);
    let mut client = ground.fleet.client();
    let mut command = ground.fleet.certified_command("near", worker);
    command.env("PIP_CERT", &ground.authority);
    let mut near = Launched::start(command);
    near.says("joined coordinator=");
    ground.assert_told(&mut client);
    assert!(has_secret(&near));
}
