CREATE TABLE cordons (
    worker     TEXT PRIMARY KEY,
    admittance TEXT NOT NULL,
    set_by     TEXT NOT NULL,
    since_ms   INTEGER NOT NULL
) STRICT;
