//! Every statement, in one place, so that a test can prepare them all. That a row follows a record is noted by triggers.

pub(super) const SET_META: &str = "INSERT INTO meta (key, value) VALUES (?1, ?2) \
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
pub(super) const GET_META: &str = "SELECT key, value FROM meta";

pub(super) const INSERT_SESSION: &str = "INSERT INTO sessions \
    (id, principal, name, metadata, state, isolation, ttl_ms, created_ms, last_used_ms, tasks, revision, audit_seq, \
    workspace_bytes, receipt, shares, network, key, key_digest) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
pub(super) const PUT_SESSION: &str = "UPDATE sessions SET principal = ?2, name = ?3, metadata = ?4, state = ?5, \
    isolation = ?6, ttl_ms = ?7, created_ms = ?8, last_used_ms = ?9, tasks = ?10, revision = ?11, audit_seq = ?12, \
    workspace_bytes = ?13, receipt = ?14, shares = ?15, network = ?16, key = ?17, key_digest = ?18 \
    WHERE id = ?1 AND revision = ?11 - 1";
pub(super) const REMOVE_SESSION: &str = "DELETE FROM sessions WHERE id = ?1 AND revision = ?2";
pub(super) const SESSIONS: &str = "SELECT * FROM sessions ORDER BY created_ms, id";

pub(super) const INSERT_TASK: &str = "INSERT INTO tasks \
    (id, session, principal, tool, key, digest, state, attempt_seq, outcome_seq, begun_ms, ended_ms, outcome, \
    stdout_head, stdout_tail, stderr_head, stderr_tail, both_head, both_tail, bytes, revision) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
pub(super) const PUT_TASK: &str = "UPDATE tasks SET session = ?2, principal = ?3, tool = ?4, key = ?5, digest = ?6, \
    state = ?7, attempt_seq = ?8, outcome_seq = ?9, begun_ms = ?10, ended_ms = ?11, outcome = ?12, stdout_head = ?13, \
    stdout_tail = ?14, stderr_head = ?15, stderr_tail = ?16, both_head = ?17, both_tail = ?18, bytes = ?19, \
    revision = ?20 WHERE id = ?1 AND revision = ?20 - 1";
pub(super) const TASK: &str = "SELECT * FROM tasks WHERE id = ?1";
pub(super) const TASK_BY_KEY: &str = "SELECT * FROM tasks WHERE session = ?1 AND principal = ?2 AND key = ?3";
pub(super) const UNFINISHED_TASKS: &str = "SELECT * FROM tasks WHERE ended_ms IS NULL ORDER BY id";
macro_rules! recent_tasks {
    ($of:literal) => {
        concat!(
            "SELECT id, session, principal, tool, key, digest, state, attempt_seq, outcome_seq, begun_ms, ended_ms, \
            NULL AS outcome, revision FROM tasks WHERE ",
            $of,
            " = ?1 ORDER BY begun_ms DESC, id DESC LIMIT ?2"
        )
    };
}
pub(super) const RECENT_TASKS_OF_PRINCIPAL: &str = recent_tasks!("principal");
pub(super) const RECENT_TASKS_OF_SESSION: &str = recent_tasks!("session");
/// The parameter is 1, so that all statements are alike.
pub(super) const RECENT_TASKS_OF_ALL: &str = recent_tasks!("1");
pub(super) const PRUNE_OLD_TASKS: &str = "DELETE FROM tasks WHERE ended_ms < ?1";
/// Keeps the newest rows whose sizes, summed from the last to go, fit. A row without output makes no room.
macro_rules! too_large {
    () => {
        "bytes > 0 AND id IN (SELECT id FROM (\
            SELECT id, SUM(bytes) OVER (ORDER BY key IS NOT NULL DESC, ended_ms DESC, id DESC) AS total \
            FROM tasks WHERE ended_ms IS NOT NULL) WHERE total > ?1)"
    };
}
/// After [`PRUNE_LARGE_TASKS`], whose rows go first.
pub(super) const EMPTY_LARGE_TASKS: &str = concat!(
    "UPDATE tasks SET outcome = NULL, stdout_head = NULL, stdout_tail = NULL, stderr_head = NULL, stderr_tail = NULL, \
    both_head = NULL, both_tail = NULL, bytes = 0 WHERE key IS NOT NULL AND ",
    too_large!()
);
pub(super) const PRUNE_LARGE_TASKS: &str = concat!("DELETE FROM tasks WHERE key IS NULL AND ", too_large!());

pub(super) const INSERT_TOKEN: &str = "INSERT INTO tokens \
    (id, digest, principal, scopes, note, created_ms, expires_ms, revoked_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
pub(super) const REVOKE_TOKEN: &str = "UPDATE tokens SET revoked_ms = ?2 WHERE id = ?1 AND revoked_ms IS NULL";
pub(super) const REMOVE_TOKEN: &str = "DELETE FROM tokens WHERE id = ?1";
pub(super) const TOKENS: &str = "SELECT * FROM tokens ORDER BY created_ms, id";

pub(super) const PUT_CORDON: &str = "INSERT INTO cordons (worker, admittance, set_by, since_ms) \
    VALUES (?1, ?2, ?3, ?4) ON CONFLICT (worker) DO UPDATE SET admittance = excluded.admittance, \
    set_by = excluded.set_by, since_ms = excluded.since_ms";
pub(super) const REMOVE_CORDON: &str = "DELETE FROM cordons WHERE worker = ?1";
pub(super) const CORDONS: &str = "SELECT * FROM cordons ORDER BY worker";
pub(super) const WAIT_FOR_DISK: &str = "PRAGMA synchronous = FULL";
pub(super) const WAIT_NO_MORE: &str = "PRAGMA synchronous = NORMAL";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[
    SET_META,
    GET_META,
    INSERT_SESSION,
    PUT_SESSION,
    REMOVE_SESSION,
    SESSIONS,
    INSERT_TASK,
    PUT_TASK,
    TASK,
    TASK_BY_KEY,
    UNFINISHED_TASKS,
    RECENT_TASKS_OF_PRINCIPAL,
    RECENT_TASKS_OF_SESSION,
    RECENT_TASKS_OF_ALL,
    PRUNE_OLD_TASKS,
    EMPTY_LARGE_TASKS,
    PRUNE_LARGE_TASKS,
    INSERT_TOKEN,
    REVOKE_TOKEN,
    REMOVE_TOKEN,
    TOKENS,
    PUT_CORDON,
    REMOVE_CORDON,
    CORDONS,
    WAIT_FOR_DISK,
    WAIT_NO_MORE,
];
