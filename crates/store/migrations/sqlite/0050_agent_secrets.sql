-- Personal secrets: declared secrets of which each agent supplies its own value. personal_secrets is a JSON list of
-- {"name", "required"}. agent_secret_version increases with every change of a value of an agent.
ALTER TABLE instances ADD COLUMN personal_secrets TEXT NOT NULL DEFAULT '[]';
ALTER TABLE instances ADD COLUMN agent_secret_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deployments ADD COLUMN personal_secrets TEXT NOT NULL DEFAULT '[]';

-- The values of agents. value is sealed to the row, and NULL after it was removed: the row then keeps the version, which is
-- the number of the instance at the last change.
CREATE TABLE agent_secrets (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    instance_id     TEXT    NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    agent_id        TEXT    NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    name            TEXT    NOT NULL,
    value           TEXT,
    version         INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    UNIQUE (agent_id, instance_id, name)
) STRICT;
CREATE INDEX agent_secrets_instance ON agent_secrets (instance_id);
CREATE INDEX agent_secrets_organization ON agent_secrets (organization_id);
