-- What each session may reach outside.
ALTER TABLE sessions ADD COLUMN network TEXT NOT NULL DEFAULT '{}';
