-- Calls by nobody known that have no row in tool_calls (docs/analytics.md), counted per minute, tool and outcome.
CREATE TABLE counted_calls (
    server_id TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    minute    INTEGER NOT NULL,
    tool      TEXT    NOT NULL,
    outcome   TEXT    NOT NULL,
    count     INTEGER NOT NULL,
    PRIMARY KEY (server_id, minute, tool, outcome)
) STRICT, WITHOUT ROWID;
-- The rows of nobody known are counted before another one is inserted.
CREATE INDEX tool_calls_unknown ON tool_calls (server_id, created_at) WHERE end_user_id IS NULL AND NOT is_test;
