-- Names and descriptions of tools for agents, in place of those that the servers list. NULL for the original one.
CREATE TABLE tool_overrides (
    instance_id     TEXT    NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    tool            TEXT    NOT NULL,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name            TEXT,
    description     TEXT,
    PRIMARY KEY (instance_id, tool),
    UNIQUE (instance_id, name)
);
CREATE INDEX tool_overrides_organization ON tool_overrides (organization_id);
