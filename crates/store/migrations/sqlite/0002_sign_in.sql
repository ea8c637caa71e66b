-- Sign-in of end users. Secrets that Waypost issued are stored as hashes; secrets of others are sealed
-- (docs/sign-in.md). Rows that expire are deleted some time after that.

-- name, picture_url and email are what a provider says of the user (email only when it is verified); claimed_email is
-- what somebody typed, and proves nothing.
ALTER TABLE end_users ADD COLUMN name TEXT;
ALTER TABLE end_users ADD COLUMN picture_url TEXT;
ALTER TABLE end_users ADD COLUMN email TEXT;
ALTER TABLE end_users ADD COLUMN claimed_email TEXT;

-- Set when the anonymous user of this session was joined to a signed-in one: then the handle opens nothing.
ALTER TABLE client_sessions ADD COLUMN joined_at INTEGER;

-- png is base 64.
CREATE TABLE organization_logos (
    organization_id TEXT    NOT NULL PRIMARY KEY REFERENCES organizations (id) ON DELETE CASCADE,
    png             TEXT    NOT NULL,
    updated_at      INTEGER NOT NULL
) STRICT;

-- Identity providers of organisations.
CREATE TABLE oauth_configs (
    id                     TEXT    NOT NULL PRIMARY KEY,
    organization_id        TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name                   TEXT    NOT NULL,
    kind                   TEXT    NOT NULL CHECK (kind IN ('openid', 'oauth')),
    issuer                 TEXT    NOT NULL,
    authorization_endpoint TEXT    NOT NULL,
    token_endpoint         TEXT    NOT NULL,
    userinfo_endpoint      TEXT,
    jwks_uri               TEXT,
    client_id              TEXT    NOT NULL,
    client_secret          TEXT,
    token_auth_method      TEXT    NOT NULL,
    scopes                 TEXT    NOT NULL,
    subject_claim          TEXT    NOT NULL,
    link_verified_email    INTEGER NOT NULL,
    created_at             INTEGER NOT NULL,
    updated_at             INTEGER NOT NULL,
    UNIQUE (organization_id, name)
) STRICT;
ALTER TABLE servers ADD COLUMN oauth_config_id TEXT REFERENCES oauth_configs (id);
CREATE INDEX servers_oauth_config ON servers (oauth_config_id);

-- Who an end user is: (issuer, subject), once in an organisation. Waypost's own accounts have the issuer `waypost`.
CREATE TABLE identities (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    end_user_id     TEXT    NOT NULL REFERENCES end_users (id) ON DELETE CASCADE,
    issuer          TEXT    NOT NULL,
    subject         TEXT    NOT NULL,
    email           TEXT,
    email_key       TEXT,
    email_verified  INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    last_sign_in_at INTEGER NOT NULL,
    UNIQUE (organization_id, issuer, subject)
) STRICT;
CREATE INDEX identities_end_user ON identities (end_user_id);
CREATE INDEX identities_email ON identities (organization_id, email_key);

-- Waypost's own accounts of end users. There is none without a verified address.
CREATE TABLE accounts (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    email           TEXT    NOT NULL,
    email_key       TEXT    NOT NULL,
    password_hash   TEXT,
    failures        INTEGER NOT NULL,
    locked_until    INTEGER,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    UNIQUE (organization_id, email_key)
) STRICT;

-- What a client asked for at the authorization endpoint, while its user signs in and consents.
CREATE TABLE authorization_requests (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    server_id       TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
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
    completed_at    INTEGER
) STRICT;
CREATE INDEX authorization_requests_organization ON authorization_requests (organization_id);
CREATE INDEX authorization_requests_server ON authorization_requests (server_id);
CREATE INDEX authorization_requests_expires ON authorization_requests (expires_at);

-- One-time codes by mail. password_hash is the password that is set when the code proves the address.
CREATE TABLE email_codes (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    request_id      TEXT    NOT NULL REFERENCES authorization_requests (id) ON DELETE CASCADE,
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
CREATE INDEX email_codes_address ON email_codes (organization_id, email_key, created_at);
CREATE INDEX email_codes_request ON email_codes (request_id);
CREATE INDEX email_codes_expires ON email_codes (expires_at);

-- Signed-in browsers of end users.
CREATE TABLE browser_sessions (
    token_hash      TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    end_user_id     TEXT    NOT NULL REFERENCES end_users (id) ON DELETE CASCADE,
    identity_id     TEXT    NOT NULL REFERENCES identities (id) ON DELETE CASCADE,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX browser_sessions_organization ON browser_sessions (organization_id);
CREATE INDEX browser_sessions_end_user ON browser_sessions (end_user_id);
CREATE INDEX browser_sessions_identity ON browser_sessions (identity_id);
CREATE INDEX browser_sessions_expires ON browser_sessions (expires_at);

-- Clients that registered themselves (RFC 7591). Those with a metadata document have no row.
CREATE TABLE oauth_clients (
    server_id        TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    client_id        TEXT    NOT NULL,
    organization_id  TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name             TEXT    NOT NULL,
    redirect_uris    TEXT    NOT NULL,
    application_type TEXT    NOT NULL,
    auth_method      TEXT    NOT NULL,
    secret_hash      TEXT,
    created_at       INTEGER NOT NULL,
    last_used_at     INTEGER NOT NULL,
    PRIMARY KEY (server_id, client_id)
) STRICT;
CREATE INDEX oauth_clients_organization ON oauth_clients (organization_id);
CREATE INDEX oauth_clients_last_used ON oauth_clients (last_used_at);

-- What an end user allowed a client; redirect is where its codes go, without a port on loopback.
CREATE TABLE oauth_consents (
    server_id       TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    end_user_id     TEXT    NOT NULL REFERENCES end_users (id) ON DELETE CASCADE,
    client_id       TEXT    NOT NULL,
    redirect        TEXT    NOT NULL,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    scope           TEXT    NOT NULL,
    updated_at      INTEGER NOT NULL,
    PRIMARY KEY (server_id, end_user_id, client_id, redirect)
) STRICT;
CREATE INDEX oauth_consents_organization ON oauth_consents (organization_id);
CREATE INDEX oauth_consents_end_user ON oauth_consents (end_user_id);

-- A grant and the tokens that came of it: the family that dies as one. generation is that of the newest refresh tokens.
CREATE TABLE oauth_grants (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    server_id       TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    end_user_id     TEXT    NOT NULL REFERENCES end_users (id) ON DELETE CASCADE,
    client_id       TEXT    NOT NULL,
    client_name     TEXT    NOT NULL,
    scope           TEXT    NOT NULL,
    resource        TEXT    NOT NULL,
    generation      INTEGER NOT NULL,
    rotated_at      INTEGER,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    revoked_at      INTEGER,
    revoked_reason  TEXT
) STRICT;
CREATE INDEX oauth_grants_organization ON oauth_grants (organization_id);
CREATE INDEX oauth_grants_server ON oauth_grants (server_id);
CREATE INDEX oauth_grants_end_user ON oauth_grants (end_user_id);
CREATE INDEX oauth_grants_expires ON oauth_grants (expires_at);

CREATE TABLE authorization_codes (
    code_hash      TEXT    NOT NULL PRIMARY KEY,
    grant_id       TEXT    NOT NULL REFERENCES oauth_grants (id) ON DELETE CASCADE,
    client_id      TEXT    NOT NULL,
    redirect_uri   TEXT    NOT NULL,
    code_challenge TEXT    NOT NULL,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    consumed_at    INTEGER
) STRICT;
CREATE INDEX authorization_codes_grant ON authorization_codes (grant_id);

CREATE TABLE access_tokens (
    token_hash TEXT    NOT NULL PRIMARY KEY,
    grant_id   TEXT    NOT NULL REFERENCES oauth_grants (id) ON DELETE CASCADE,
    scope      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE INDEX access_tokens_grant ON access_tokens (grant_id);
CREATE INDEX access_tokens_expires ON access_tokens (expires_at);

CREATE TABLE refresh_tokens (
    token_hash TEXT    NOT NULL PRIMARY KEY,
    grant_id   TEXT    NOT NULL REFERENCES oauth_grants (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX refresh_tokens_grant ON refresh_tokens (grant_id);

-- Users who are away at an organisation's provider.
CREATE TABLE upstream_states (
    state_hash      TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    oauth_config_id TEXT    NOT NULL REFERENCES oauth_configs (id) ON DELETE CASCADE,
    request_id      TEXT    NOT NULL REFERENCES authorization_requests (id) ON DELETE CASCADE,
    nonce           TEXT    NOT NULL,
    verifier        TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX upstream_states_organization ON upstream_states (organization_id);
CREATE INDEX upstream_states_config ON upstream_states (oauth_config_id);
CREATE INDEX upstream_states_request ON upstream_states (request_id);
CREATE INDEX upstream_states_expires ON upstream_states (expires_at);

-- Tokens of an organisation's provider, sealed. leased_until: a process is refreshing them.
CREATE TABLE upstream_tokens (
    identity_id     TEXT    NOT NULL PRIMARY KEY REFERENCES identities (id) ON DELETE CASCADE,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    oauth_config_id TEXT    NOT NULL REFERENCES oauth_configs (id) ON DELETE CASCADE,
    access_token    TEXT    NOT NULL,
    refresh_token   TEXT,
    scope           TEXT    NOT NULL,
    expires_at      INTEGER,
    leased_until    INTEGER,
    updated_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX upstream_tokens_organization ON upstream_tokens (organization_id);
CREATE INDEX upstream_tokens_config ON upstream_tokens (oauth_config_id);
CREATE INDEX upstream_tokens_expires ON upstream_tokens (expires_at);

-- Anonymous progress that became that of a signed-in user; undo says what to put back.
CREATE TABLE joins (
    id               TEXT    NOT NULL PRIMARY KEY,
    organization_id  TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    server_id        TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    from_end_user_id TEXT    NOT NULL REFERENCES end_users (id) ON DELETE CASCADE,
    to_end_user_id   TEXT    NOT NULL REFERENCES end_users (id) ON DELETE CASCADE,
    kind             TEXT    NOT NULL CHECK (kind IN ('handle', 'session', 'tracking')),
    undo             TEXT    NOT NULL,
    created_at       INTEGER NOT NULL,
    undone_at        INTEGER
) STRICT;
CREATE INDEX joins_organization ON joins (organization_id);
CREATE UNIQUE INDEX joins_once ON joins (server_id, from_end_user_id) WHERE undone_at IS NULL;
CREATE INDEX joins_from ON joins (from_end_user_id);
CREATE INDEX joins_to ON joins (to_end_user_id);
CREATE INDEX joins_server ON joins (server_id);
