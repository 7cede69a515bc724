CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE sessions (
    id              TEXT PRIMARY KEY,
    principal       TEXT NOT NULL,
    name            TEXT,
    metadata        TEXT NOT NULL,
    state           TEXT NOT NULL,
    isolation       TEXT,
    ttl_ms          INTEGER NOT NULL,
    created_ms      INTEGER NOT NULL,
    last_used_ms    INTEGER NOT NULL,
    tasks           INTEGER NOT NULL,
    workspace_bytes INTEGER,
    revision        INTEGER NOT NULL,
    audit_seq       INTEGER NOT NULL
) STRICT;

CREATE TABLE tasks (
    id           TEXT PRIMARY KEY,
    session      TEXT NOT NULL,
    principal    TEXT NOT NULL,
    tool         TEXT NOT NULL,
    key          TEXT,
    digest       BLOB NOT NULL,
    state        TEXT NOT NULL,
    attempt_seq  INTEGER NOT NULL,
    outcome_seq  INTEGER,
    begun_ms     INTEGER NOT NULL,
    ended_ms     INTEGER,
    outcome      TEXT,
    stdout_head  BLOB,
    stdout_tail  BLOB,
    stderr_head  BLOB,
    stderr_tail  BLOB,
    bytes        INTEGER NOT NULL,
    revision     INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX tasks_by_key ON tasks (session, key) WHERE key IS NOT NULL;
CREATE INDEX tasks_unfinished ON tasks (id) WHERE ended_ms IS NULL;
CREATE INDEX tasks_by_end ON tasks (ended_ms, bytes) WHERE ended_ms IS NOT NULL;
