-- Users of the console. Secrets that Waypost issued are stored as hashes (docs/console.md). Rows that expire are deleted
-- some time after that.

-- verified_at is set when the user has shown that the address is theirs; without it nobody can sign in.
ALTER TABLE users ADD COLUMN name TEXT;
ALTER TABLE users ADD COLUMN password_hash TEXT;
ALTER TABLE users ADD COLUMN verified_at BIGINT;
ALTER TABLE users ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN locked_until BIGINT;
CREATE INDEX users_verified ON users (verified_at);

-- Who a user is at a provider of the installation.
CREATE TABLE user_identities (
    issuer     TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX user_identities_user ON user_identities (user_id);

-- Signed-in browsers of users. organization_id is where they worked last.
CREATE TABLE user_sessions (
    id              TEXT    NOT NULL PRIMARY KEY,
    token_hash      TEXT    NOT NULL UNIQUE,
    user_id         TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    organization_id TEXT    REFERENCES organizations (id) ON DELETE SET NULL,
    user_agent      TEXT    NOT NULL,
    address         TEXT    NOT NULL,
    created_at      BIGINT NOT NULL,
    last_used_at    BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL
);
CREATE INDEX user_sessions_user ON user_sessions (user_id);
CREATE INDEX user_sessions_organization ON user_sessions (organization_id);
CREATE INDEX user_sessions_expires ON user_sessions (expires_at);

-- One-time codes and links by mail. password_hash is the password that is set when the code proves the address.
CREATE TABLE user_codes (
    id            TEXT    NOT NULL PRIMARY KEY,
    email         TEXT    NOT NULL,
    email_key     TEXT    NOT NULL,
    purpose       TEXT    NOT NULL CHECK (purpose IN ('sign_in', 'sign_up', 'reset', 'link')),
    browser_hash  TEXT    NOT NULL,
    code_hash     TEXT    NOT NULL,
    password_hash TEXT,
    attempts      BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    consumed_at   BIGINT
);
CREATE INDEX user_codes_address ON user_codes (email_key, created_at);
CREATE INDEX user_codes_code ON user_codes (code_hash);
CREATE INDEX user_codes_expires ON user_codes (expires_at);

-- Users who are away at a provider of the installation.
CREATE TABLE user_sign_ins (
    state_hash    TEXT    NOT NULL PRIMARY KEY,
    browser_hash  TEXT    NOT NULL,
    provider      TEXT    NOT NULL,
    nonce         TEXT    NOT NULL,
    code_verifier TEXT    NOT NULL,
    next          TEXT    NOT NULL,
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL
);
CREATE INDEX user_sign_ins_expires ON user_sign_ins (expires_at);

CREATE TABLE invitations (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    email           TEXT    NOT NULL,
    email_key       TEXT    NOT NULL,
    role            TEXT    NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    token_hash      TEXT    NOT NULL UNIQUE,
    invited_by      TEXT    NOT NULL,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    accepted_at     BIGINT,
    revoked_at      BIGINT
);
CREATE INDEX invitations_organization ON invitations (organization_id, id);
CREATE INDEX invitations_address ON invitations (email_key);

ALTER TABLE api_keys ADD COLUMN expires_at BIGINT;
ALTER TABLE api_keys ADD COLUMN last_used_at BIGINT;

-- Answers to requests that made something, for those who ask again with the same key. response is sealed: an answer may
-- hold a secret. Without one the request is still at work.
CREATE TABLE idempotency_keys (
    actor           TEXT    NOT NULL,
    key             TEXT    NOT NULL,
    organization_id TEXT    REFERENCES organizations (id) ON DELETE CASCADE,
    request_hash    TEXT    NOT NULL,
    response        TEXT,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_keys_organization ON idempotency_keys (organization_id);
CREATE INDEX idempotency_keys_expires ON idempotency_keys (expires_at);
