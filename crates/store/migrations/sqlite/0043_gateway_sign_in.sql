-- People sign in to the gateway with OAuth. Its clients and requests belong to no server and no organisation (server_id is NULL),
-- and its grants belong to the agent of a person. SQLite cannot drop NOT NULL from a column, so the tables are created again,
-- with the tables that reference them. IDs of clients are random, so they are unique without their server.
CREATE TABLE new_oauth_clients (
    server_id        TEXT    REFERENCES servers (id) ON DELETE CASCADE,
    client_id        TEXT    NOT NULL PRIMARY KEY,
    organization_id  TEXT    REFERENCES organizations (id) ON DELETE CASCADE,
    name             TEXT    NOT NULL,
    redirect_uris    TEXT    NOT NULL,
    application_type TEXT    NOT NULL,
    auth_method      TEXT    NOT NULL,
    secret_hash      TEXT,
    created_at       INTEGER NOT NULL,
    last_used_at     INTEGER NOT NULL,
    used_at          INTEGER,
    network          TEXT    NOT NULL DEFAULT '',
    CHECK ((server_id IS NULL) = (organization_id IS NULL))
) STRICT;
INSERT INTO new_oauth_clients (server_id, client_id, organization_id, name, redirect_uris, application_type, auth_method,
        secret_hash, created_at, last_used_at, used_at, network)
    SELECT server_id, client_id, organization_id, name, redirect_uris, application_type, auth_method, secret_hash,
        created_at, last_used_at, used_at, network FROM oauth_clients;
DROP TABLE oauth_clients;
ALTER TABLE new_oauth_clients RENAME TO oauth_clients;
CREATE INDEX oauth_clients_server ON oauth_clients (server_id);
CREATE INDEX oauth_clients_organization ON oauth_clients (organization_id);
CREATE INDEX oauth_clients_last_used ON oauth_clients (last_used_at);
CREATE INDEX oauth_clients_used ON oauth_clients (used_at, created_at);
CREATE INDEX oauth_clients_unused_of_server ON oauth_clients (server_id, created_at) WHERE used_at IS NULL;
CREATE INDEX oauth_clients_unused_of_network ON oauth_clients (server_id, network, created_at) WHERE used_at IS NULL;

CREATE TABLE new_authorization_requests (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    REFERENCES organizations (id) ON DELETE CASCADE,
    server_id       TEXT    REFERENCES servers (id) ON DELETE CASCADE,
    browser_hash    TEXT    NOT NULL,
    issuer          TEXT    NOT NULL,
    client_id       TEXT    NOT NULL,
    client_name     TEXT    NOT NULL,
    redirect_uri    TEXT    NOT NULL,
    state           TEXT,
    scope           TEXT    NOT NULL,
    resource        TEXT    NOT NULL,
    tracking_id     TEXT,
    code_challenge  TEXT    NOT NULL,
    prompt          TEXT,
    login_hint      TEXT,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    consented_at    INTEGER,
    completed_at    INTEGER,
    network         TEXT,
    claim_issued_at INTEGER,
    CHECK ((server_id IS NULL) = (organization_id IS NULL))
) STRICT;
INSERT INTO new_authorization_requests (id, organization_id, server_id, browser_hash, issuer, client_id, client_name,
        redirect_uri, state, scope, resource, tracking_id, code_challenge, prompt, login_hint, created_at, expires_at,
        consented_at, completed_at, network, claim_issued_at)
    SELECT id, organization_id, server_id, browser_hash, issuer, client_id, client_name, redirect_uri, state, scope,
        resource, tracking_id, code_challenge, prompt, login_hint, created_at, expires_at, consented_at, completed_at,
        network, claim_issued_at FROM authorization_requests;
CREATE TABLE new_email_codes (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    request_id      TEXT    NOT NULL REFERENCES new_authorization_requests (id) ON DELETE CASCADE,
    email           TEXT    NOT NULL,
    email_key       TEXT    NOT NULL,
    purpose         TEXT    NOT NULL CHECK (purpose IN ('sign_in', 'sign_up', 'reset')),
    code_hash       TEXT    NOT NULL,
    password_hash   TEXT,
    attempts        INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    consumed_at     INTEGER
) STRICT;
INSERT INTO new_email_codes (id, organization_id, request_id, email, email_key, purpose, code_hash, password_hash,
        attempts, created_at, expires_at, consumed_at)
    SELECT id, organization_id, request_id, email, email_key, purpose, code_hash, password_hash, attempts, created_at,
        expires_at, consumed_at FROM email_codes;
CREATE TABLE new_identity_provider_states (
    state_hash      TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    oauth_config_id TEXT    NOT NULL REFERENCES oauth_configs (id) ON DELETE CASCADE,
    request_id      TEXT    NOT NULL REFERENCES new_authorization_requests (id) ON DELETE CASCADE,
    nonce           TEXT    NOT NULL,
    verifier        TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL
) STRICT;
INSERT INTO new_identity_provider_states (state_hash, organization_id, oauth_config_id, request_id, nonce, verifier,
        created_at, expires_at)
    SELECT state_hash, organization_id, oauth_config_id, request_id, nonce, verifier, created_at, expires_at
    FROM identity_provider_states;
DROP TABLE email_codes;
DROP TABLE identity_provider_states;
DROP TABLE authorization_requests;
-- Renaming a table also renames it in the foreign keys that reference it.
ALTER TABLE new_authorization_requests RENAME TO authorization_requests;
ALTER TABLE new_email_codes RENAME TO email_codes;
ALTER TABLE new_identity_provider_states RENAME TO identity_provider_states;
CREATE INDEX authorization_requests_organization ON authorization_requests (organization_id);
CREATE INDEX authorization_requests_server ON authorization_requests (server_id);
CREATE INDEX authorization_requests_expires ON authorization_requests (expires_at);
CREATE INDEX authorization_requests_open ON authorization_requests (server_id, created_at) WHERE network IS NOT NULL;
CREATE INDEX authorization_requests_network ON authorization_requests (server_id, network, created_at)
    WHERE network IS NOT NULL;
CREATE INDEX email_codes_address ON email_codes (organization_id, email_key, created_at);
CREATE INDEX email_codes_request ON email_codes (request_id);
CREATE INDEX email_codes_expires ON email_codes (expires_at);
CREATE INDEX identity_provider_states_organization ON identity_provider_states (organization_id);
CREATE INDEX identity_provider_states_config ON identity_provider_states (oauth_config_id);
CREATE INDEX identity_provider_states_request ON identity_provider_states (request_id);
CREATE INDEX identity_provider_states_expires ON identity_provider_states (expires_at);

-- A grant belongs to an end user of a server, or to an agent at the gateway.
CREATE TABLE new_oauth_grants (
    id                     TEXT    NOT NULL PRIMARY KEY,
    organization_id        TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    server_id              TEXT    REFERENCES servers (id) ON DELETE CASCADE,
    end_user_id            TEXT    REFERENCES end_users (id) ON DELETE CASCADE,
    client_id              TEXT    NOT NULL,
    client_name            TEXT    NOT NULL,
    scope                  TEXT    NOT NULL,
    resource               TEXT    NOT NULL,
    generation             INTEGER NOT NULL,
    rotated_at             INTEGER,
    created_at             INTEGER NOT NULL,
    expires_at             INTEGER NOT NULL,
    revoked_at             INTEGER,
    revoked_reason         TEXT,
    revocation_recorded_at INTEGER,
    agent_id               TEXT    REFERENCES agents (id) ON DELETE CASCADE,
    CHECK ((server_id IS NULL) = (end_user_id IS NULL)),
    CHECK ((server_id IS NULL) <> (agent_id IS NULL))
) STRICT;
INSERT INTO new_oauth_grants (id, organization_id, server_id, end_user_id, client_id, client_name, scope, resource,
        generation, rotated_at, created_at, expires_at, revoked_at, revoked_reason, revocation_recorded_at)
    SELECT id, organization_id, server_id, end_user_id, client_id, client_name, scope, resource, generation, rotated_at,
        created_at, expires_at, revoked_at, revoked_reason, revocation_recorded_at FROM oauth_grants;
CREATE TABLE new_authorization_codes (
    code_hash      TEXT    NOT NULL PRIMARY KEY,
    grant_id       TEXT    NOT NULL REFERENCES new_oauth_grants (id) ON DELETE CASCADE,
    client_id      TEXT    NOT NULL,
    redirect_uri   TEXT    NOT NULL,
    code_challenge TEXT    NOT NULL,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    consumed_at    INTEGER
) STRICT;
INSERT INTO new_authorization_codes (code_hash, grant_id, client_id, redirect_uri, code_challenge, created_at, expires_at,
        consumed_at)
    SELECT code_hash, grant_id, client_id, redirect_uri, code_challenge, created_at, expires_at, consumed_at
    FROM authorization_codes;
CREATE TABLE new_access_tokens (
    token_hash TEXT    NOT NULL PRIMARY KEY,
    grant_id   TEXT    NOT NULL REFERENCES new_oauth_grants (id) ON DELETE CASCADE,
    scope      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
INSERT INTO new_access_tokens (token_hash, grant_id, scope, created_at, expires_at, revoked_at)
    SELECT token_hash, grant_id, scope, created_at, expires_at, revoked_at FROM access_tokens;
CREATE TABLE new_refresh_tokens (
    token_hash TEXT    NOT NULL PRIMARY KEY,
    grant_id   TEXT    NOT NULL REFERENCES new_oauth_grants (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO new_refresh_tokens (token_hash, grant_id, generation, created_at)
    SELECT token_hash, grant_id, generation, created_at FROM refresh_tokens;
DROP TABLE authorization_codes;
DROP TABLE access_tokens;
DROP TABLE refresh_tokens;
DROP TABLE oauth_grants;
ALTER TABLE new_oauth_grants RENAME TO oauth_grants;
ALTER TABLE new_authorization_codes RENAME TO authorization_codes;
ALTER TABLE new_access_tokens RENAME TO access_tokens;
ALTER TABLE new_refresh_tokens RENAME TO refresh_tokens;
CREATE INDEX oauth_grants_organization ON oauth_grants (organization_id);
CREATE INDEX oauth_grants_server ON oauth_grants (server_id);
CREATE INDEX oauth_grants_end_user ON oauth_grants (end_user_id);
CREATE INDEX oauth_grants_agent ON oauth_grants (agent_id);
CREATE INDEX oauth_grants_expires ON oauth_grants (expires_at);
CREATE INDEX authorization_codes_grant ON authorization_codes (grant_id);
CREATE INDEX access_tokens_grant ON access_tokens (grant_id);
CREATE INDEX access_tokens_expires ON access_tokens (expires_at);
CREATE INDEX refresh_tokens_grant ON refresh_tokens (grant_id);
