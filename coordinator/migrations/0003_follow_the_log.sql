-- Which record the store has followed is noted with each write of a row, so that a write is one statement.
CREATE TRIGGER session_inserted AFTER INSERT ON sessions BEGIN
    INSERT INTO meta (key, value) VALUES ('applied', CAST(NEW.audit_seq AS TEXT))
        ON CONFLICT (key) DO UPDATE SET value = excluded.value
        WHERE CAST(excluded.value AS INTEGER) > CAST(meta.value AS INTEGER);
END;

CREATE TRIGGER session_updated AFTER UPDATE ON sessions BEGIN
    INSERT INTO meta (key, value) VALUES ('applied', CAST(NEW.audit_seq AS TEXT))
        ON CONFLICT (key) DO UPDATE SET value = excluded.value
        WHERE CAST(excluded.value AS INTEGER) > CAST(meta.value AS INTEGER);
END;

CREATE TRIGGER task_inserted AFTER INSERT ON tasks BEGIN
    INSERT INTO meta (key, value) VALUES ('applied', CAST(NEW.attempt_seq AS TEXT))
        ON CONFLICT (key) DO UPDATE SET value = excluded.value
        WHERE CAST(excluded.value AS INTEGER) > CAST(meta.value AS INTEGER);
END;

CREATE TRIGGER task_updated AFTER UPDATE ON tasks BEGIN
    INSERT INTO meta (key, value) VALUES ('applied', CAST(COALESCE(NEW.outcome_seq, NEW.attempt_seq) AS TEXT))
        ON CONFLICT (key) DO UPDATE SET value = excluded.value
        WHERE CAST(excluded.value AS INTEGER) > CAST(meta.value AS INTEGER);
END;
