-- Agents, what they may use, and the URLs at which they see it.
CREATE TABLE agents (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name            TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    user_id         TEXT    REFERENCES users (id) ON DELETE CASCADE,
    state           TEXT    NOT NULL,
    created_at      BIGINT  NOT NULL,
    created_by      TEXT    NOT NULL,
    last_seen_at    BIGINT,
    UNIQUE (organization_id, name)
);
CREATE UNIQUE INDEX agents_user ON agents (user_id, organization_id);

-- ends_at is the earlier of expires_at and revoked_at.
CREATE TABLE agent_tokens (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    agent_id        TEXT    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    name            TEXT    NOT NULL,
    secret_hash     TEXT    NOT NULL UNIQUE,
    created_at      BIGINT  NOT NULL,
    expires_at      BIGINT,
    revoked_at      BIGINT,
    ends_at         BIGINT,
    last_used_at    BIGINT
);
CREATE INDEX agent_tokens_agent ON agent_tokens (agent_id, id);
CREATE INDEX agent_tokens_organization ON agent_tokens (organization_id);
CREATE INDEX agent_tokens_ends ON agent_tokens (ends_at);

-- tools, prompts, resources and rules are JSON arrays: a grant is always read and replaced as a whole.
CREATE TABLE grants (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    agent_id        TEXT    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    instance_id     TEXT    NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    access          TEXT    NOT NULL,
    tools           TEXT    NOT NULL,
    prompts         TEXT    NOT NULL,
    resources       TEXT    NOT NULL,
    rules           TEXT    NOT NULL,
    expires_at      BIGINT,
    created_at      BIGINT  NOT NULL,
    created_by      TEXT    NOT NULL
);
CREATE INDEX grants_organization ON grants (organization_id, id);
CREATE INDEX grants_agent ON grants (agent_id, id);
CREATE INDEX grants_instance ON grants (instance_id, id);

CREATE TABLE tool_sets (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    slug            TEXT    NOT NULL,
    slug_skeleton   TEXT    NOT NULL,
    name            TEXT    NOT NULL,
    prefix          BOOLEAN NOT NULL,
    UNIQUE (organization_id, slug),
    UNIQUE (organization_id, slug_skeleton)
);

-- Members are rows, so that they are deleted with their instance. tools is a JSON array; NULL means all tools.
CREATE TABLE tool_set_members (
    tool_set_id     TEXT    NOT NULL REFERENCES tool_sets (id) ON DELETE CASCADE,
    instance_id     TEXT    NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    position        BIGINT  NOT NULL,
    tools           TEXT,
    PRIMARY KEY (tool_set_id, instance_id)
);
CREATE INDEX tool_set_members_instance ON tool_set_members (instance_id);
CREATE INDEX tool_set_members_organization ON tool_set_members (organization_id);
