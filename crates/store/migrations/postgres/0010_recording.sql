-- The ordinals of a version's steps, one bit each, as hexadecimal digits: lists of walkthroughs compute progress from
-- this cell and read no step. The same form as progress.completed_steps.
ALTER TABLE versions ADD COLUMN step_set TEXT NOT NULL DEFAULT '';
UPDATE versions SET step_set = COALESCE((
    SELECT string_agg(lpad(to_hex((
        SELECT COALESCE(sum(1 << (ordinal % 8)::int), 0) FROM version_steps
        WHERE version_id = versions.id AND ordinal / 8 = octet
    )::bigint), 2, '0'), '' ORDER BY octet)
    FROM generate_series(0, (SELECT max(ordinal) / 8 FROM version_steps WHERE version_id = versions.id)) AS octet
), '');

-- session_id has no foreign key: sessions expire, the log stays.
ALTER TABLE tool_calls ADD COLUMN session_id TEXT;
-- Calls that the console's "Try it" made.
ALTER TABLE tool_calls ADD COLUMN is_test BOOLEAN NOT NULL DEFAULT FALSE;
-- Console users who try a server.
ALTER TABLE end_users ADD COLUMN is_test BOOLEAN NOT NULL DEFAULT FALSE;

-- A session of a user with a personal URL or a token has no handle.
ALTER TABLE client_sessions ALTER COLUMN handle_hash DROP NOT NULL;
