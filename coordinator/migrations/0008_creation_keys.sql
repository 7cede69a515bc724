-- Under which key each session was made, and the digest of the arguments that came with it.
ALTER TABLE sessions ADD COLUMN key TEXT;
ALTER TABLE sessions ADD COLUMN key_digest BLOB;
