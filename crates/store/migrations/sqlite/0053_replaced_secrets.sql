-- Replaced values of secrets that a deployment still uses, or that were replaced recently: containers of a generation are started
-- with the values that it was deployed with. id is SECRET_ID.VERSION, to which value is sealed.
CREATE TABLE replaced_secrets (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    secret_id       TEXT    NOT NULL REFERENCES tool_secrets (id) ON DELETE CASCADE,
    version         INTEGER NOT NULL,
    value           TEXT    NOT NULL,
    replaced_at     INTEGER NOT NULL,
    UNIQUE (secret_id, version)
) STRICT;
CREATE INDEX replaced_secrets_organization ON replaced_secrets (organization_id);
