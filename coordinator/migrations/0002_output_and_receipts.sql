ALTER TABLE tasks ADD COLUMN both_head BLOB;
ALTER TABLE tasks ADD COLUMN both_tail BLOB;
CREATE INDEX tasks_by_principal ON tasks (principal, begun_ms);

ALTER TABLE sessions ADD COLUMN receipt TEXT NOT NULL DEFAULT '{}';
