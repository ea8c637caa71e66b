-- What analytics reads (docs/analytics.md). client_name is what the client calls itself; elapsed_ms is the time since the
-- attempt was worked on before, and NULL for its first event.
ALTER TABLE walkthrough_events ADD COLUMN client_name TEXT;
ALTER TABLE walkthrough_events ADD COLUMN elapsed_ms BIGINT;
-- For a completion: the time since the attempt began.
ALTER TABLE walkthrough_events ADD COLUMN took_ms BIGINT;
UPDATE walkthrough_events SET took_ms = created_at
    - (SELECT started_at FROM progress WHERE progress.id = walkthrough_events.progress_id) WHERE kind = 'completed';

-- Up to where the events and calls of a server stand in segments: from there on they are read from the log itself.
CREATE TABLE analytics_rollups (
    server_id       TEXT    NOT NULL PRIMARY KEY REFERENCES servers (id) ON DELETE CASCADE,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    events_until    BIGINT NOT NULL,
    calls_until     BIGINT NOT NULL
);
CREATE INDEX analytics_rollups_organization ON analytics_rollups (organization_id);

-- Rows of the log, some thousands to a row, packed (base 64). first_id is the id of the first of them.
-- walkthrough_id is NULL for calls, and checked at commit, so that a backup can be restored in any order.
CREATE TABLE analytics_segments (
    first_id        TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    server_id       TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    walkthrough_id  TEXT    REFERENCES walkthroughs (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    kind            TEXT    NOT NULL CHECK (kind IN ('events', 'calls')),
    from_at         BIGINT NOT NULL,
    to_at           BIGINT NOT NULL,
    count           BIGINT NOT NULL,
    data            TEXT    NOT NULL
);
CREATE INDEX analytics_segments_organization ON analytics_segments (organization_id);
CREATE INDEX analytics_segments_server ON analytics_segments (server_id, kind, from_at);
CREATE INDEX analytics_segments_walkthrough ON analytics_segments (walkthrough_id);
-- Packed already: no time is to be spent on making it smaller.
ALTER TABLE analytics_segments ALTER COLUMN data SET STORAGE EXTERNAL;

-- Sessions are listed by when they began.
DROP INDEX client_sessions_server;
CREATE INDEX client_sessions_server ON client_sessions (server_id, created_at);

-- End users are listed by when they came, which their ids tell.
CREATE INDEX end_users_organization ON end_users (organization_id, id);
