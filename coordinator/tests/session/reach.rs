//! What sessions reach, told to their workers whenever the operator decides otherwise, whatever fails meanwhile.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use codegen_audit::Audit;
use codegen_types::packages::HostPort;
use codegen_types::{ErrorCode, Failure, SessionId, SessionNetwork};
use coordinator::policy::Policies;
use coordinator::secrets::{NewSecret, SecretText, Secrets, Users};
use coordinator::session::{CreateSession, SessionOptions};
use coordinator_core::egress::PermittedHosts;
use tempfile::TempDir;

use crate::rig::{Ground, Rig, ann, call, code, options, stdout, until};

const HOSTS: [&str; 2] = ["a.example:443", "b.example:443"];
const SECRET: &str = "deploy";
/// The second host is taken away.
const STRICTER: &str = "[[rule]]\nname = 'closed'\neffect = 'deny'\nhost = 'b.example'\n";

/// Who decides what sessions reach.
struct Operator {
    dir: TempDir,
    log: Audit,
    policies: Policies,
    secrets: Secrets,
}

fn hosts() -> Vec<HostPort> {
    HOSTS.iter().map(|host| HostPort::parse(host, 443).unwrap()).collect()
}

impl Operator {
    async fn new() -> Arc<Self> {
        let (dir, log) = (tempfile::tempdir().unwrap(), Audit::in_memory());
        let file = dir.path().join("policy.toml");
        fs::write(&file, "").unwrap();
        let policies = Policies::load(Some(file), &log).await.unwrap();
        let secrets = Secrets::new(dir.path(), log.clone());
        let secret = NewSecret {
            name: SECRET.to_owned(),
            host: hosts().remove(0),
            header: "authorization".to_owned(),
            users: Users::Everybody,
            value: SecretText::new("hunter2"),
        };
        secrets.set(secret, &ann()).await.unwrap();
        Arc::new(Self { dir, log, policies, secrets })
    }

    fn options(&self) -> SessionOptions {
        let egress = PermittedHosts { private: hosts(), ..PermittedHosts::default() };
        SessionOptions { egress, policies: self.policies.clone(), secrets: self.secrets.clone(), ..options() }
    }

    async fn decides(&self, rules: &str) {
        fs::write(self.dir.path().join("policy.toml"), rules).unwrap();
        self.policies.reload(&self.log).await.unwrap();
    }

    /// Whether what opens the secrets is as private as it must be.
    fn keeps_identity_private(&self, private: bool) {
        let mode = fs::Permissions::from_mode(if private { 0o600 } else { 0o644 });
        fs::set_permissions(self.dir.path().join("secrets.identity"), mode).unwrap();
    }
}

async fn session(rig: &Rig, secrets: &[&str]) -> SessionId {
    let secrets = secrets.iter().map(|&name| name.to_owned()).collect();
    let network = SessionNetwork { allow: hosts(), secrets, approved: false };
    rig.sessions.create(&ann(), CreateSession { network, ..CreateSession::default() }).await.unwrap().id
}

fn last(rig: &Rig) -> Vec<String> {
    rig.fleet.told().pop().unwrap_or_default()
}

/// A host is taken away, and the worker that is told of it gives no answer.
async fn decided_in_vain(operator: &Operator, rig: &Rig) {
    let asked = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&asked);
    *rig.fleet.on_open.lock() = Some(Box::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    rig.fleet.fail_open(Some(Failure::new(ErrorCode::WorkerUnavailable, "away")));
    operator.decides(STRICTER).await;
    until("it was asked in vain", || asked.load(Ordering::Relaxed) > 0).await;
}

#[tokio::test]
async fn what_is_decided_while_a_session_is_made_is_told_to_its_worker() {
    let operator = Operator::new().await;
    let rig = Rig::with(Ground::in_memory(), operator.options()).await;
    let (deciding, asked) = (Arc::clone(&operator), AtomicUsize::default());
    *rig.fleet.on_open.lock() = Some(Box::new(move || {
        if asked.fetch_add(1, Ordering::Relaxed) == 0 {
            let deciding = Arc::clone(&deciding);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            thread::spawn(move || runtime.block_on(deciding.decides(STRICTER))).join().unwrap();
        }
    }));
    session(&rig, &[]).await;
    assert_eq!(rig.fleet.told()[0], HOSTS);
    until("it is told of one host", || last(&rig) == HOSTS[..1]).await;
}

#[tokio::test]
async fn what_is_taken_away_while_a_worker_is_away_is_told_to_it_when_it_is_back_and_no_task_is_needed_for_it() {
    let operator = Operator::new().await;
    let rig = Rig::with(Ground::in_memory(), operator.options()).await;
    session(&rig, &[]).await;
    decided_in_vain(&operator, &rig).await;
    rig.fleet.fail_open(None);
    rig.news.send(rig.fleet.rejoin(&[])).await.unwrap();
    until("it is told of one host", || last(&rig) == HOSTS[..1]).await;
    assert_eq!(rig.fleet.told().len(), 2);
}

#[tokio::test]
async fn a_worker_of_which_no_answer_came_is_told_again_though_all_is_as_before() {
    let operator = Operator::new().await;
    let rig = Rig::with(Ground::in_memory(), operator.options()).await;
    session(&rig, &[]).await;
    decided_in_vain(&operator, &rig).await;
    operator.decides("").await;
    rig.fleet.fail_open(None);
    until("it is told again", || rig.fleet.told().len() > 1).await;
    assert_eq!(last(&rig), HOSTS);
}

#[tokio::test]
async fn where_secrets_cannot_be_read_hosts_are_taken_away_all_the_same_and_nothing_runs_without_them() {
    let operator = Operator::new().await;
    let rig = Rig::with(Ground::in_memory(), operator.options()).await;
    let session = session(&rig, &[SECRET]).await;
    assert_eq!(last(&rig), [&HOSTS[..], &[SECRET]].concat());
    operator.keeps_identity_private(false);
    operator.decides(STRICTER).await;
    until("it is told of one host and no secret", || last(&rig) == HOSTS[..1]).await;
    assert!(code(&rig.run(call(session)).await).is_some() && rig.fleet.dispatched().is_empty());
    operator.keeps_identity_private(true);
    assert_eq!(stdout(&rig.run(call(session)).await), "ok");
    assert_eq!(last(&rig), [HOSTS[0], SECRET]);
}

#[tokio::test]
async fn a_worker_that_is_not_to_have_secrets_any_more_is_told_of_hosts_all_the_same() {
    let operator = Operator::new().await;
    let rig = Rig::with(Ground::in_memory(), operator.options()).await;
    let session = session(&rig, &[SECRET]).await;
    rig.fleet.keep_secrets(true);
    operator.decides(STRICTER).await;
    until("it is told of one host and no secret", || last(&rig) == HOSTS[..1]).await;
    assert_eq!(code(&rig.run(call(session)).await), Some(ErrorCode::PermissionDenied));
    assert!(rig.fleet.dispatched().is_empty());
}
