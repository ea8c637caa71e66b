-- Remote servers that require OAuth can have a connection for each agent (remote_per_agent) instead of one for the
-- organisation.
ALTER TABLE instances ADD COLUMN remote_per_agent INTEGER NOT NULL DEFAULT FALSE;

-- The connections of an instance: id is the ID of the instance for that of the organisation, and contains that of the agent
-- for the others. credentials is sealed to id. is_by_admin says whether the user who connected it was an admin. failed_at is
-- set if the authorization server has rejected a refresh of an agent's connection.
CREATE TABLE new_remote_connections (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    instance_id     TEXT    NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    agent_id        TEXT             REFERENCES agents (id) ON DELETE CASCADE,
    issuer          TEXT    NOT NULL,
    credentials     TEXT    NOT NULL,
    revision        INTEGER  NOT NULL,
    expires_at      INTEGER,
    refresh_at      INTEGER,
    leased_until    INTEGER,
    failed_at       INTEGER,
    is_by_admin     INTEGER NOT NULL,
    connected_by    TEXT    NOT NULL,
    connected_at    INTEGER  NOT NULL,
    updated_at      INTEGER  NOT NULL
) STRICT;
INSERT INTO new_remote_connections
    SELECT instance_id, organization_id, instance_id, NULL, issuer, credentials, revision, expires_at, refresh_at,
        leased_until, NULL, TRUE, connected_by, connected_at, updated_at FROM remote_connections;
DROP TABLE remote_connections;
ALTER TABLE new_remote_connections RENAME TO remote_connections;
CREATE INDEX remote_connections_organization ON remote_connections (organization_id);
CREATE INDEX remote_connections_instance ON remote_connections (instance_id, id);
CREATE INDEX remote_connections_agent ON remote_connections (agent_id);
CREATE INDEX remote_connections_refresh ON remote_connections (refresh_at) WHERE refresh_at IS NOT NULL;

-- The agent whose connection was started. NULL for that of the organisation.
ALTER TABLE remote_connection_requests ADD COLUMN agent_id TEXT REFERENCES agents (id) ON DELETE CASCADE;
CREATE INDEX remote_connection_requests_agent ON remote_connection_requests (agent_id);
