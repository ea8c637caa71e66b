-- The calls of agents through the gateway. IDs sort by the time of the call. Agents and instances are no foreign keys: the
-- log outlives them, and their deletion does not wait for it.
CREATE TABLE calls (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    agent_id        TEXT    NOT NULL,
    instance_id     TEXT,
    method          TEXT    NOT NULL,
    tool            TEXT    NOT NULL,
    outcome         TEXT    NOT NULL,
    duration_ms     INTEGER NOT NULL,
    upstream_ms     INTEGER,
    request_bytes   INTEGER NOT NULL,
    response_bytes  INTEGER NOT NULL,
    argument_shape  TEXT    NOT NULL,
    at              INTEGER NOT NULL
) STRICT;
CREATE INDEX calls_organization ON calls (organization_id, id);
CREATE INDEX calls_agent ON calls (agent_id, id);
CREATE INDEX calls_instance ON calls (instance_id, id);
-- Calls that did not succeed are rare.
CREATE INDEX calls_outcome ON calls (organization_id, outcome, id) WHERE outcome <> 'ok';
