-- Times are milliseconds since the Unix epoch. JSON stands in TEXT. Every table has the organisation in front of it,
-- so that no query needs a join to know whose row it reads.

CREATE TABLE config_version (
    id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO config_version (id, version) VALUES (1, 1);

CREATE TABLE organizations (
    id         TEXT    NOT NULL PRIMARY KEY,
    slug       TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id         TEXT    NOT NULL PRIMARY KEY,
    email      TEXT    NOT NULL,
    email_key  TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE memberships (
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    user_id         TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role            TEXT    NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    created_at      INTEGER NOT NULL,
    PRIMARY KEY (organization_id, user_id)
) STRICT;
CREATE INDEX memberships_user ON memberships (user_id);

CREATE TABLE api_keys (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name            TEXT    NOT NULL,
    scope           TEXT    NOT NULL CHECK (scope IN ('owner', 'admin', 'member')),
    secret_hash     TEXT    NOT NULL UNIQUE,
    created_at      INTEGER NOT NULL,
    UNIQUE (organization_id, name)
) STRICT;

-- Without a foreign key: the log outlives what it speaks of.
CREATE TABLE audit_events (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL,
    actor           TEXT    NOT NULL,
    act             TEXT    NOT NULL,
    target          TEXT    NOT NULL,
    detail          TEXT    NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_events_organization ON audit_events (organization_id, id);

CREATE TABLE servers (
    id                        TEXT    NOT NULL PRIMARY KEY,
    organization_id           TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    slug                      TEXT    NOT NULL UNIQUE,
    name                      TEXT    NOT NULL,
    product_name              TEXT    NOT NULL,
    auth_type                 TEXT    NOT NULL,
    sign_in                   TEXT    NOT NULL,
    walkthrough_tools_enabled INTEGER NOT NULL,
    toolset                   TEXT    NOT NULL,
    support                   TEXT    NOT NULL,
    allowed_origins           TEXT    NOT NULL,
    created_at                INTEGER NOT NULL,
    updated_at                INTEGER NOT NULL
) STRICT;
CREATE INDEX servers_organization ON servers (organization_id, slug);

-- Slugs that a server had before: they go on serving until they are released.
CREATE TABLE server_aliases (
    slug            TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    server_id       TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    created_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX server_aliases_server ON server_aliases (server_id);
CREATE INDEX server_aliases_organization ON server_aliases (organization_id);

CREATE TABLE end_users (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    tracking_id     TEXT,
    created_at      INTEGER NOT NULL,
    UNIQUE (organization_id, tracking_id)
) STRICT;

CREATE TABLE client_sessions (
    id               TEXT    NOT NULL PRIMARY KEY,
    organization_id  TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    server_id        TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    end_user_id      TEXT    NOT NULL REFERENCES end_users (id) ON DELETE CASCADE,
    handle_hash      TEXT    NOT NULL UNIQUE,
    client_name      TEXT,
    client_version   TEXT,
    protocol_version TEXT,
    created_at       INTEGER NOT NULL,
    last_used_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX client_sessions_organization ON client_sessions (organization_id);
CREATE INDEX client_sessions_server ON client_sessions (server_id);
CREATE INDEX client_sessions_end_user ON client_sessions (end_user_id);
CREATE INDEX client_sessions_last_used ON client_sessions (last_used_at);

-- first_step_id and next_step_id are checked at commit: a chain is rewoven link by link.
CREATE TABLE walkthroughs (
    id                         TEXT    NOT NULL PRIMARY KEY,
    organization_id            TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    title                      TEXT    NOT NULL,
    title_key                  TEXT    NOT NULL,
    slug                       TEXT    NOT NULL,
    description                TEXT    NOT NULL,
    type                       TEXT    NOT NULL,
    state                      TEXT    NOT NULL CHECK (state IN ('draft', 'published', 'archived')),
    estimated_duration_minutes INTEGER,
    tags                       TEXT    NOT NULL,
    metadata                   TEXT    NOT NULL,
    first_step_id              TEXT    REFERENCES steps (id) DEFERRABLE INITIALLY DEFERRED,
    current_version_id         TEXT    REFERENCES versions (id) DEFERRABLE INITIALLY DEFERRED,
    revision                   INTEGER NOT NULL,
    next_ordinal               INTEGER NOT NULL,
    created_at                 INTEGER NOT NULL,
    updated_at                 INTEGER NOT NULL,
    UNIQUE (organization_id, title_key),
    UNIQUE (organization_id, slug)
) STRICT;
CREATE INDEX walkthroughs_first_step ON walkthroughs (first_step_id);
CREATE INDEX walkthroughs_current_version ON walkthroughs (current_version_id);

CREATE TABLE steps (
    id                     TEXT    NOT NULL PRIMARY KEY,
    organization_id        TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    walkthrough_id         TEXT    NOT NULL REFERENCES walkthroughs (id) ON DELETE CASCADE,
    ordinal                INTEGER NOT NULL,
    key                    TEXT,
    next_step_id           TEXT    REFERENCES steps (id) DEFERRABLE INITIALLY DEFERRED,
    title                  TEXT    NOT NULL,
    section_title          TEXT,
    content                TEXT    NOT NULL,
    introduction_for_agent TEXT,
    context_for_agent      TEXT,
    operations_for_agent   TEXT,
    metadata               TEXT    NOT NULL,
    UNIQUE (walkthrough_id, ordinal),
    UNIQUE (walkthrough_id, key)
) STRICT;
CREATE INDEX steps_organization ON steps (organization_id);
CREATE INDEX steps_next ON steps (next_step_id);

-- A version never changes but for its withdrawal.
CREATE TABLE versions (
    id                         TEXT    NOT NULL PRIMARY KEY,
    organization_id            TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    walkthrough_id             TEXT    NOT NULL REFERENCES walkthroughs (id) ON DELETE CASCADE,
    number                     INTEGER NOT NULL,
    title                      TEXT    NOT NULL,
    description                TEXT    NOT NULL,
    type                       TEXT    NOT NULL,
    estimated_duration_minutes INTEGER,
    tags                       TEXT    NOT NULL,
    metadata                   TEXT    NOT NULL,
    step_count                 INTEGER NOT NULL,
    created_at                 INTEGER NOT NULL,
    withdrawn_at               INTEGER,
    withdrawn_reason           TEXT,
    UNIQUE (walkthrough_id, number)
) STRICT;
CREATE INDEX versions_organization ON versions (organization_id);

-- step_id without a foreign key: a step may leave the draft, its versions keep it.
CREATE TABLE version_steps (
    version_id             TEXT    NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    position               INTEGER NOT NULL,
    step_id                TEXT    NOT NULL,
    ordinal                INTEGER NOT NULL,
    key                    TEXT,
    title                  TEXT    NOT NULL,
    section_title          TEXT,
    content                TEXT    NOT NULL,
    introduction_for_agent TEXT,
    context_for_agent      TEXT,
    operations_for_agent   TEXT,
    metadata               TEXT    NOT NULL,
    PRIMARY KEY (version_id, position),
    UNIQUE (version_id, step_id)
) STRICT;

CREATE TABLE assignments (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    server_id       TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    walkthrough_id  TEXT    NOT NULL REFERENCES walkthroughs (id) ON DELETE CASCADE,
    display_order   INTEGER NOT NULL,
    enabled         INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    UNIQUE (server_id, walkthrough_id)
) STRICT;
CREATE INDEX assignments_organization ON assignments (organization_id);
CREATE INDEX assignments_walkthrough ON assignments (walkthrough_id);

-- The three tables that every advance writes have no foreign key and no index on the organisation: their server has, and
-- each index is one more page to write. completed_steps is the set of ordinals as hexadecimal bits: the same facts as
-- step_completions, in one cell.
CREATE TABLE progress (
    id               TEXT    NOT NULL PRIMARY KEY,
    organization_id  TEXT    NOT NULL,
    end_user_id      TEXT    NOT NULL REFERENCES end_users (id) ON DELETE CASCADE,
    server_id        TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    walkthrough_id   TEXT    NOT NULL REFERENCES walkthroughs (id) ON DELETE CASCADE,
    version_id       TEXT    NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    status           TEXT    NOT NULL CHECK (status IN ('in_progress', 'completed')),
    completed_steps  TEXT    NOT NULL,
    started_at       INTEGER NOT NULL,
    completed_at     INTEGER,
    last_activity_at INTEGER NOT NULL,
    closed_at        INTEGER,
    metadata         TEXT    NOT NULL,
    CHECK ((status = 'completed') = (completed_at IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX progress_open ON progress (end_user_id, server_id, walkthrough_id) WHERE closed_at IS NULL;
CREATE INDEX progress_end_user ON progress (end_user_id);
CREATE INDEX progress_walkthrough ON progress (walkthrough_id);
CREATE INDEX progress_server ON progress (server_id);
CREATE INDEX progress_version ON progress (version_id);

CREATE TABLE step_completions (
    progress_id  TEXT    NOT NULL REFERENCES progress (id) ON DELETE CASCADE,
    step_id      TEXT    NOT NULL,
    version_id   TEXT    NOT NULL,
    completed_at INTEGER NOT NULL,
    PRIMARY KEY (progress_id, step_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE walkthrough_events (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL,
    server_id       TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    walkthrough_id  TEXT    NOT NULL REFERENCES walkthroughs (id) ON DELETE CASCADE,
    end_user_id     TEXT    NOT NULL REFERENCES end_users (id) ON DELETE CASCADE,
    progress_id     TEXT    NOT NULL,
    version_id      TEXT    NOT NULL,
    step_id         TEXT,
    kind            TEXT    NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX walkthrough_events_walkthrough ON walkthrough_events (walkthrough_id, created_at);
CREATE INDEX walkthrough_events_server ON walkthrough_events (server_id, created_at);
CREATE INDEX walkthrough_events_end_user ON walkthrough_events (end_user_id);

CREATE TABLE tool_calls (
    id               TEXT    NOT NULL PRIMARY KEY,
    organization_id  TEXT    NOT NULL,
    server_id        TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    end_user_id      TEXT    REFERENCES end_users (id) ON DELETE CASCADE,
    tool             TEXT    NOT NULL,
    arguments        TEXT    NOT NULL,
    outcome          TEXT    NOT NULL,
    duration_us      INTEGER NOT NULL,
    client_name      TEXT,
    protocol_version TEXT,
    request_id       TEXT    NOT NULL,
    created_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tool_calls_server ON tool_calls (server_id, created_at);
CREATE INDEX tool_calls_end_user ON tool_calls (end_user_id);

-- Calls that were turned away, counted per minute and reason.
CREATE TABLE refused_calls (
    server_id       TEXT    NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    minute          INTEGER NOT NULL,
    reason          TEXT    NOT NULL,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    count           INTEGER NOT NULL,
    PRIMARY KEY (server_id, minute, reason)
) STRICT;
CREATE INDEX refused_calls_organization ON refused_calls (organization_id);
