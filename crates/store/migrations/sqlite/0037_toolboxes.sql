-- Toolboxes, the catalogue, instances with their deployments, and secrets of tool servers.
CREATE TABLE toolboxes (
    id                        TEXT    NOT NULL PRIMARY KEY,
    organization_id           TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name                      TEXT    NOT NULL,
    join_token_hash           TEXT    UNIQUE,
    join_expires_at           INTEGER,
    public_key                TEXT,
    key_rotation_requested_at INTEGER,
    joined_at                 INTEGER,
    revoked_at                INTEGER,
    version                   TEXT,
    engine                    TEXT,
    capacity                  TEXT,
    last_seen_at              INTEGER,
    unresponsive_at           INTEGER,
    desired_revision          INTEGER NOT NULL,
    last_event                INTEGER NOT NULL,
    created_at                INTEGER NOT NULL,
    updated_at                INTEGER NOT NULL,
    UNIQUE (organization_id, name)
) STRICT;
-- For the search for missing heartbeats.
CREATE INDEX toolboxes_last_seen ON toolboxes (last_seen_at) WHERE revoked_at IS NULL AND unresponsive_at IS NULL;

-- The replica that holds the link of a toolbox. Not backed up: leases belong to processes.
CREATE TABLE toolbox_links (
    toolbox_id   TEXT    NOT NULL PRIMARY KEY REFERENCES toolboxes (id) ON DELETE CASCADE,
    replica      TEXT    NOT NULL,
    internal_url TEXT    NOT NULL,
    link         INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE catalog_entries (
    id                TEXT    NOT NULL PRIMARY KEY,
    organization_id   TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    slug              TEXT    NOT NULL,
    name              TEXT    NOT NULL,
    description       TEXT    NOT NULL,
    categories        TEXT    NOT NULL,
    license           TEXT,
    documentation_url TEXT,
    state             TEXT    NOT NULL,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    UNIQUE (organization_id, slug)
) STRICT;

CREATE TABLE catalog_versions (
    id               TEXT    NOT NULL PRIMARY KEY,
    organization_id  TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    catalog_entry_id TEXT    NOT NULL REFERENCES catalog_entries (id) ON DELETE CASCADE,
    version          TEXT    NOT NULL,
    definition       TEXT    NOT NULL,
    created_at       INTEGER NOT NULL,
    UNIQUE (catalog_entry_id, version)
) STRICT;
CREATE INDEX catalog_versions_organization ON catalog_versions (organization_id, catalog_entry_id, created_at);

-- The value is sealed.
CREATE TABLE tool_secrets (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name            TEXT    NOT NULL,
    value           TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    rotated_at      INTEGER,
    UNIQUE (organization_id, name)
) STRICT;

-- slug_skeleton is the skeleton of UTS 39: slugs that look alike have the same one.
CREATE TABLE instances (
    id                  TEXT    NOT NULL PRIMARY KEY,
    organization_id     TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    slug                TEXT    NOT NULL,
    slug_skeleton       TEXT    NOT NULL,
    name                TEXT    NOT NULL,
    catalog_version_id  TEXT    NOT NULL REFERENCES catalog_versions (id),
    toolbox_id          TEXT    NOT NULL REFERENCES toolboxes (id),
    desired             TEXT    NOT NULL,
    state               TEXT    NOT NULL,
    generation          INTEGER NOT NULL,
    observed_generation INTEGER NOT NULL,
    restarts            INTEGER NOT NULL,
    is_removing         INTEGER NOT NULL,
    health              TEXT,
    config              TEXT    NOT NULL,
    learn_egress        INTEGER NOT NULL,
    rejected_egress     TEXT    NOT NULL,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    UNIQUE (organization_id, slug),
    UNIQUE (organization_id, slug_skeleton)
) STRICT;
CREATE INDEX instances_toolbox ON instances (toolbox_id, id);
CREATE INDEX instances_catalog_version ON instances (catalog_version_id);

-- version is that of the secret's value that the instance uses or is to use; attempted_version is the highest one to which
-- a rotation has tried to move the instance.
CREATE TABLE instance_secrets (
    instance_id       TEXT    NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    name              TEXT    NOT NULL,
    organization_id   TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    secret_id         TEXT    NOT NULL REFERENCES tool_secrets (id),
    version           INTEGER NOT NULL,
    attempted_version INTEGER NOT NULL,
    PRIMARY KEY (instance_id, name)
) STRICT;
CREATE INDEX instance_secrets_secret ON instance_secrets (secret_id, instance_id);
CREATE INDEX instance_secrets_organization ON instance_secrets (organization_id);

CREATE TABLE deployments (
    id                 TEXT    NOT NULL PRIMARY KEY,
    organization_id    TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    instance_id        TEXT    NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    generation         INTEGER NOT NULL,
    catalog_version_id TEXT    NOT NULL REFERENCES catalog_versions (id),
    config             TEXT    NOT NULL,
    secrets            TEXT    NOT NULL,
    learn_egress       INTEGER NOT NULL,
    state              TEXT    NOT NULL,
    step               TEXT    NOT NULL,
    error              TEXT,
    started_at         INTEGER NOT NULL,
    ended_at           INTEGER,
    UNIQUE (instance_id, generation)
) STRICT;
CREATE INDEX deployments_running ON deployments (started_at) WHERE state = 'running';
CREATE INDEX deployments_catalog_version ON deployments (catalog_version_id);
CREATE INDEX deployments_organization ON deployments (organization_id);

-- What happened to an instance on its toolbox: changes of its state, crashes.
CREATE TABLE instance_events (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    instance_id     TEXT    NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    kind            TEXT    NOT NULL,
    message         TEXT    NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX instance_events_instance ON instance_events (instance_id, id);
CREATE INDEX instance_events_organization ON instance_events (organization_id);
