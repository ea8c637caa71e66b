-- The ordinals of a version's steps, one bit each, as hexadecimal digits: lists of walkthroughs compute progress from
-- this cell and read no step. The same form as progress.completed_steps.
ALTER TABLE versions ADD COLUMN step_set TEXT NOT NULL DEFAULT '';
UPDATE versions SET step_set = COALESCE((
    WITH RECURSIVE bytes (octet, last, digits) AS (
        SELECT 0, max(ordinal) / 8, '' FROM version_steps WHERE version_id = versions.id
        UNION ALL
        SELECT octet + 1, last, digits || printf('%02x', (
            SELECT COALESCE(sum(1 << (ordinal % 8)), 0) FROM version_steps
            WHERE version_id = versions.id AND ordinal / 8 = octet
        )) FROM bytes WHERE octet <= last
    )
    SELECT digits FROM bytes WHERE octet > last
), '');

-- session_id has no foreign key: sessions expire, the log stays.
ALTER TABLE tool_calls ADD COLUMN session_id TEXT;
-- Calls that the console's "Try it" made.
ALTER TABLE tool_calls ADD COLUMN is_test INTEGER NOT NULL DEFAULT 0;
-- Console users who try a server.
ALTER TABLE end_users ADD COLUMN is_test INTEGER NOT NULL DEFAULT 0;

-- A session of a user with a personal URL or a token has no handle. SQLite cannot drop NOT NULL from a column.
CREATE TABLE new_client_sessions (
    id               TEXT    NOT NULL PRIMARY KEY,
    organization_id  TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    server_id        TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    end_user_id      TEXT    NOT NULL REFERENCES end_users (id) ON DELETE CASCADE,
    handle_hash      TEXT    UNIQUE,
    client_name      TEXT,
    client_version   TEXT,
    protocol_version TEXT,
    created_at       INTEGER NOT NULL,
    last_used_at     INTEGER NOT NULL,
    joined_at        INTEGER
) STRICT;
INSERT INTO new_client_sessions (id, organization_id, server_id, end_user_id, handle_hash, client_name, client_version,
        protocol_version, created_at, last_used_at, joined_at)
    SELECT id, organization_id, server_id, end_user_id, handle_hash, client_name, client_version, protocol_version,
        created_at, last_used_at, joined_at FROM client_sessions;
DROP TABLE client_sessions;
ALTER TABLE new_client_sessions RENAME TO client_sessions;
CREATE INDEX client_sessions_organization ON client_sessions (organization_id);
CREATE INDEX client_sessions_server ON client_sessions (server_id, created_at);
CREATE INDEX client_sessions_end_user ON client_sessions (end_user_id);
CREATE INDEX client_sessions_last_used ON client_sessions (last_used_at);
