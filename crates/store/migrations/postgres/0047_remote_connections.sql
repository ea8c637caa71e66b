-- Remote servers that require OAuth. remote_oauth says that the server of an instance does.
ALTER TABLE instances ADD COLUMN remote_oauth BOOLEAN NOT NULL DEFAULT FALSE;

-- The connection of an instance to its server. credentials is sealed to the row: the tokens, and everything that is needed
-- to refresh them. revision increases with every refresh. refresh_at is NULL if there is nothing to refresh.
CREATE TABLE remote_connections (
    instance_id     TEXT    NOT NULL PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    issuer          TEXT    NOT NULL,
    credentials     TEXT    NOT NULL,
    revision        BIGINT  NOT NULL,
    expires_at      BIGINT,
    refresh_at      BIGINT,
    leased_until    BIGINT,
    connected_by    TEXT    NOT NULL,
    connected_at    BIGINT  NOT NULL,
    updated_at      BIGINT  NOT NULL
);
CREATE INDEX remote_connections_organization ON remote_connections (organization_id);
CREATE INDEX remote_connections_refresh ON remote_connections (refresh_at) WHERE refresh_at IS NOT NULL;

-- Connections that a user has started. request is sealed to the row: the PKCE verifier, and what was discovered.
CREATE TABLE remote_connection_requests (
    state_hash      TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    instance_id     TEXT    NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    user_id         TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    generation      BIGINT  NOT NULL,
    request         TEXT    NOT NULL,
    created_at      BIGINT  NOT NULL,
    expires_at      BIGINT  NOT NULL
);
CREATE INDEX remote_connection_requests_organization ON remote_connection_requests (organization_id);
CREATE INDEX remote_connection_requests_instance ON remote_connection_requests (instance_id);
CREATE INDEX remote_connection_requests_user ON remote_connection_requests (user_id);
CREATE INDEX remote_connection_requests_expires ON remote_connection_requests (expires_at);
