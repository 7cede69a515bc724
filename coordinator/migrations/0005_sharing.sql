-- With whom each session is shared; keys of calls are each principal's own.
ALTER TABLE sessions ADD COLUMN shares TEXT NOT NULL DEFAULT '{}';
DROP INDEX tasks_by_key;
CREATE UNIQUE INDEX tasks_by_key ON tasks (session, principal, key) WHERE key IS NOT NULL;
CREATE INDEX tasks_by_session ON tasks (session, begun_ms);
