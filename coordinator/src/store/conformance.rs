//! One suite for every store: what [`SessionStore`], [`TaskStore`], [`TokenStore`] and [`CordonStore`] promise.

use std::collections::BTreeMap;
use std::sync::Arc;

use codegen_types::packages::HostPort;
use codegen_types::{
    Display, Epoch, ErrorCode, Exit, Failure, Incarnation, IsolationLevel, IsolationReport, Lease, LogSeq,
    OperationResult, Principal, SessionId, SessionNetwork, TaskId,
};
use coordinator_core::session::{Role, SessionState, Shares};
use coordinator_core::task::TaskState;
use coordinator_core::worker::Admittance;
use serde_json::json;

use super::*;
use crate::identity::{Scope, Scopes, TokenDigest, TokenId};
use crate::session::{Captured, Completed, CreationKey, Receipt};

trait Store: SessionStore + TaskStore + TokenStore + CordonStore {}
impl<T: SessionStore + TaskStore + TokenStore + CordonStore> Store for T {}

/// A store to test, and what keeps its file.
struct Subject {
    store: Arc<dyn Store>,
    dir: Option<tempfile::TempDir>,
}

async fn subjects() -> Vec<Subject> {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(&dir.path().join("state.db")).await.unwrap();
    vec![Subject { store: Arc::new(Memory::default()), dir: None }, Subject { store: Arc::new(sqlite), dir: Some(dir) }]
}

fn lease() -> Lease {
    Lease { worker: "w".parse().unwrap(), incarnation: Incarnation::mint(), epoch: Epoch(3) }
}

fn session(created_ms: i64) -> SessionRow {
    SessionRow {
        id: SessionId::mint(),
        principal: Principal::os_user("ann"),
        shares: Shares::default().with(&Principal::os_user("ann"), &Principal::os_user("bob"), Role::Writer).unwrap(),
        name: Some("a name".to_owned()),
        metadata: BTreeMap::from([("key".to_owned(), json!({"nested": [1, "two", null]}))]),
        network: SessionNetwork {
            allow: vec![HostPort::new("api.example", 443).unwrap()],
            secrets: vec!["token".to_owned()],
            approved: true,
        },
        key: Some(CreationKey { key: "k".to_owned(), digest: [9; 32] }),
        state: SessionState::Ready { lease: lease() },
        isolation: Some(IsolationReport { level: IsolationLevel::Full, layers: vec![] }),
        ttl_ms: 1_800_000,
        created_ms,
        last_used_ms: created_ms + 5,
        tasks: 4,
        workspace_bytes: Some(5 << 30),
        receipt: Receipt {
            tasks: 4,
            bytes_out: u64::MAX >> 1,
            packages: [("numpy".to_owned(), "2.4.0".to_owned())].into(),
            hosts: ["index.example:443".to_owned()].into(),
            ..Receipt::default()
        },
        revision: 1,
        audit_seq: LogSeq(10),
    }
}

/// A row with nothing in it that may be absent.
fn bare(row: SessionRow) -> SessionRow {
    let (shares, receipt, network) = Default::default();
    SessionRow { name: None, shares, network, key: None, isolation: None, workspace_bytes: None, receipt, ..row }
}

fn task(session: SessionId, key: Option<&str>) -> TaskRow {
    TaskRow {
        id: TaskId::mint(),
        session,
        principal: Principal::os_user("ann"),
        tool: "run_python".to_owned(),
        key: key.map(str::to_owned),
        digest: [7; 32],
        state: TaskState::Dispatched { lease: lease(), placements: 1 },
        attempt: LogSeq(20),
        outcome_seq: None,
        begun_ms: 1_000,
        ended_ms: None,
        outcome: None,
        revision: 1,
    }
}

fn ended(row: &TaskRow, ended_ms: i64, stdout: Vec<u8>) -> TaskRow {
    let completed = Completed {
        result: Some(OperationResult::Exec(Exit { code: Some(0), ..Exit::default() })),
        stdout: Captured { head: stdout, tail: vec![0xff, 0], omitted: 9 },
        stderr: Captured::default(),
        both: Captured { head: vec![0xfe], tail: vec![], omitted: 3 },
        displays: vec![Display { mime: "image/png".to_owned(), path: None, data: vec![1, 2, 3] }],
        overlapped: vec![TaskId::mint()],
    };
    TaskRow {
        state: TaskState::Finished,
        outcome_seq: Some(LogSeq(21)),
        ended_ms: Some(ended_ms),
        outcome: Some(StoredOutcome { result: Ok(completed), partial: None }),
        revision: row.revision + 1,
        ..row.clone()
    }
}

#[tokio::test]
async fn a_session_reads_back_as_it_was_written_and_in_order_of_age() {
    for Subject { store, .. } in subjects().await {
        let (young, old) = (session(200), bare(session(100)));
        store.insert_session(young.clone()).await.unwrap();
        store.insert_session(old.clone()).await.unwrap();
        assert!(matches!(store.insert_session(old.clone()).await, Err(StoreError::Exists)));
        assert_eq!(store.sessions().await.unwrap(), [old, young]);
    }
}

#[tokio::test]
async fn a_write_from_an_old_reading_is_refused() {
    for Subject { store, .. } in subjects().await {
        let row = session(1);
        store.insert_session(row.clone()).await.unwrap();
        let (tasks, workspace_bytes) = (5, Some(0));
        let next = SessionRow { revision: 2, tasks, workspace_bytes, audit_seq: LogSeq(11), ..row.clone() };
        store.put_session(next.clone()).await.unwrap();
        let late = SessionRow { tasks: 99, ..next.clone() };
        assert!(matches!(store.put_session(late).await, Err(StoreError::Conflict)));
        assert!(matches!(store.put_session(SessionRow { revision: 2, ..session(1) }).await, Err(StoreError::Conflict)));
        assert_eq!(store.sessions().await.unwrap(), std::slice::from_ref(&next));
        assert!(matches!(store.remove_session(row.id, 1).await, Err(StoreError::Conflict)));
        store.remove_session(row.id, 2).await.unwrap();
        assert_eq!(store.sessions().await.unwrap(), []);
    }
}

#[tokio::test]
async fn the_store_knows_the_highest_record_it_follows() {
    for Subject { store, .. } in subjects().await {
        assert_eq!(store.progress().await.unwrap(), Progress::default());
        let row = SessionRow { audit_seq: LogSeq(100), ..session(1) };
        store.insert_session(row.clone()).await.unwrap();
        store.insert_session(SessionRow { audit_seq: LogSeq(9), ..session(2) }).await.unwrap();
        store.settle("log_x".to_owned(), LogSeq(50)).await.unwrap();
        let progress = store.progress().await.unwrap();
        let expected = Progress { log_id: Some("log_x".to_owned()), applied: LogSeq(100), settled_before: LogSeq(50) };
        assert_eq!(progress, expected);
    }
}

#[tokio::test]
async fn a_task_reads_back_as_it_was_written() {
    for Subject { store, .. } in subjects().await {
        let row = task(SessionId::mint(), Some("key"));
        store.insert_task(row.clone()).await.unwrap();
        assert_eq!(store.unfinished_tasks().await.unwrap(), std::slice::from_ref(&row));
        let over = ended(&row, 2_000, b"out \xfe".to_vec());
        store.put_task(over.clone()).await.unwrap();
        assert!(matches!(store.put_task(over.clone()).await, Err(StoreError::Conflict)));
        assert_eq!(store.task(row.id).await.unwrap().as_ref(), Some(&over));
        assert_eq!(store.task_by_key(row.session, row.principal.clone(), "key".to_owned()).await.unwrap(), Some(over));
        let other = store.task_by_key(row.session, Principal::os_user("bob"), "key".to_owned()).await.unwrap();
        assert_eq!(other, None, "another principal's key is another key");
        assert_eq!(store.unfinished_tasks().await.unwrap(), []);
        assert_eq!(store.task(TaskId::mint()).await.unwrap(), None);
        assert_eq!(store.progress().await.unwrap().applied, LogSeq(21));
    }
}

#[tokio::test]
async fn what_a_failed_task_left_reads_back_too() {
    for Subject { store, .. } in subjects().await {
        let row = task(SessionId::mint(), None);
        store.insert_task(row.clone()).await.unwrap();
        let mut over = ended(&row, 2_000, b"half".to_vec());
        let partial = over.outcome.take().and_then(|outcome| outcome.result.ok());
        over.state = TaskState::Failed { code: ErrorCode::TaskTimeout };
        over.outcome = Some(StoredOutcome { result: Err(Failure::new(ErrorCode::TaskTimeout, "too long")), partial });
        store.put_task(over.clone()).await.unwrap();
        assert_eq!(store.task(row.id).await.unwrap(), Some(over));
    }
}

#[tokio::test]
async fn the_tasks_of_a_principal_or_session_are_listed_without_outcomes_and_the_newest_first() {
    for Subject { store, .. } in subjects().await {
        let (mine, other) = (SessionId::mint(), SessionId::mint());
        let mut ids = Vec::new();
        for (session, begun_ms) in [(mine, 10), (other, 20), (mine, 30)] {
            let row = TaskRow { begun_ms, ..task(session, None) };
            store.insert_task(row.clone()).await.unwrap();
            store.put_task(ended(&row, begun_ms + 1, b"text".to_vec())).await.unwrap();
            ids.push(row.id);
        }
        let theirs = TaskRow { principal: Principal::os_user("bob"), begun_ms: 5, ..task(mine, None) };
        store.insert_task(theirs.clone()).await.unwrap();
        store.put_task(ended(&theirs, 6, b"text".to_vec())).await.unwrap();
        let listed = async |of, limit| {
            let rows = store.recent_tasks(of, limit).await.unwrap();
            assert!(rows.iter().all(|row| row.outcome.is_none() && row.state == TaskState::Finished));
            rows.iter().map(|row| row.id).collect::<Vec<_>>()
        };
        let anns = || TasksOf::Principal(Principal::os_user("ann"));
        assert_eq!(listed(anns(), 10).await, [ids[2], ids[1], ids[0]]);
        assert_eq!(listed(anns(), 1).await, [ids[2]]);
        assert_eq!(listed(TasksOf::Session(mine), 10).await, [ids[2], ids[0], theirs.id]);
        assert_eq!(listed(TasksOf::Session(SessionId::mint()), 10).await, []);
        assert!(listed(TasksOf::Everybody, 10).await.len() > 3);
        assert_eq!(listed(TasksOf::Everybody, 1).await.len(), 1);
    }
}

#[tokio::test]
async fn a_key_belongs_to_one_task_of_its_principal_and_session() {
    for Subject { store, .. } in subjects().await {
        let (mine, other) = (SessionId::mint(), SessionId::mint());
        store.insert_task(task(mine, Some("key"))).await.unwrap();
        assert!(matches!(store.insert_task(task(mine, Some("key"))).await, Err(StoreError::Exists)));
        store.insert_task(task(other, Some("key"))).await.unwrap();
        let theirs = TaskRow { principal: Principal::os_user("bob"), ..task(mine, Some("key")) };
        store.insert_task(theirs).await.unwrap();
        store.insert_task(task(mine, None)).await.unwrap();
        store.insert_task(task(mine, None)).await.unwrap();
        assert_eq!(store.unfinished_tasks().await.unwrap().len(), 5);
    }
}

#[tokio::test]
async fn old_and_large_outcomes_go_and_keyed_ones_go_last() {
    for Subject { store, .. } in subjects().await {
        let session = SessionId::mint();
        let mut ids = Vec::new();
        for (key, ended_ms) in [(None, 10), (Some("a"), 20), (None, 30), (None, 40)] {
            let row = task(session, key);
            store.insert_task(row.clone()).await.unwrap();
            store.put_task(ended(&row, ended_ms, vec![b'x'; 995])).await.unwrap();
            ids.push(row.id);
        }
        let running = task(session, None);
        store.insert_task(running.clone()).await.unwrap();
        assert_eq!(store.prune_tasks(15, 1 << 20).await.unwrap(), 1);
        assert_eq!(store.prune_tasks(15, 2_500).await.unwrap(), 1);
        let mut kept = Vec::new();
        for id in &ids {
            kept.push(store.task(*id).await.unwrap().is_some());
        }
        assert_eq!(kept, [false, true, false, true]);
        assert_eq!(store.prune_tasks(15, 0).await.unwrap(), 2);
        let keyed = store.task_by_key(session, Principal::os_user("ann"), "a".to_owned()).await.unwrap().unwrap();
        assert_eq!((keyed.id, keyed.outcome), (ids[1], None), "its key is still known");
        assert_eq!(store.prune_tasks(15, 0).await.unwrap(), 0);
        assert_eq!(store.prune_tasks(100, 0).await.unwrap(), 1);
        assert_eq!(store.unfinished_tasks().await.unwrap(), [running]);
        store.insert_task(task(session, Some("a"))).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_written_survives_the_process() {
    for Subject { store, dir } in subjects().await {
        let Some(dir) = dir else { continue };
        let row = session(1);
        store.insert_session(row.clone()).await.unwrap();
        // A crash: nobody closes the first one.
        let again = Sqlite::open(&dir.path().join("state.db")).await.unwrap();
        assert_eq!(again.sessions().await.unwrap(), [row]);
    }
}

fn token(created_ms: i64) -> TokenRow {
    TokenRow {
        id: TokenId::mint(),
        digest: TokenDigest([9; 32]),
        principal: "alice".parse().unwrap(),
        scopes: Scopes::USER.with(Scope::Admin),
        note: Some("the build".to_owned()),
        created_ms,
        expires_ms: Some(created_ms + 1_000),
        revoked_ms: None,
    }
}

#[tokio::test]
async fn a_token_reads_back_as_it_was_written_and_is_revoked_once() {
    for Subject { store, .. } in subjects().await {
        let (young, old) = (token(200), TokenRow { note: None, expires_ms: None, ..token(100) });
        store.insert_token(young.clone()).await.unwrap();
        store.insert_token(old.clone()).await.unwrap();
        assert!(matches!(store.insert_token(old.clone()).await, Err(StoreError::Exists)));
        assert_eq!(store.tokens().await.unwrap(), [old.clone(), young.clone()]);
        store.revoke_token(old.id.clone(), 300).await.unwrap();
        assert!(matches!(store.revoke_token(old.id.clone(), 400).await, Err(StoreError::Conflict)));
        assert!(matches!(store.revoke_token(TokenId::mint(), 400).await, Err(StoreError::Conflict)));
        store.remove_token(young.id.clone()).await.unwrap();
        assert!(matches!(store.remove_token(young.id).await, Err(StoreError::Conflict)));
        assert_eq!(store.tokens().await.unwrap(), [TokenRow { revoked_ms: Some(300), ..old }]);
    }
}

#[tokio::test]
async fn the_last_word_about_a_worker_is_the_one_that_is_kept() {
    for Subject { store, .. } in subjects().await {
        let cordon = |worker: &str, admittance| CordonRow {
            worker: worker.parse().unwrap(),
            admittance,
            set_by: Principal::os_user("ann"),
            since_ms: 7,
        };
        let (first, other) = (cordon("b", Admittance::Cordoned), cordon("a", Admittance::Cordoned));
        let last = CordonRow { since_ms: 8, ..cordon("b", Admittance::Draining) };
        for row in [first, other.clone(), last.clone()] {
            store.put_cordon(row).await.unwrap();
        }
        assert_eq!(store.cordons().await.unwrap(), [other.clone(), last.clone()]);
        for _ in 0..2 {
            store.remove_cordon(other.worker.clone()).await.unwrap();
        }
        assert_eq!(store.cordons().await.unwrap(), [last]);
    }
}
