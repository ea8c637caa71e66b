-- Arguments and results of calls through the gateway, of instances for which an admin has switched this on. contents is sealed
-- to the row. The log keeps calls of agents and instances that were deleted, but not their contents.
ALTER TABLE instances ADD COLUMN record_contents BOOLEAN NOT NULL DEFAULT FALSE;

CREATE TABLE call_contents (
    call_id         TEXT NOT NULL PRIMARY KEY REFERENCES calls (id) ON DELETE CASCADE,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    agent_id        TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    instance_id     TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    contents        TEXT NOT NULL
);
CREATE INDEX call_contents_organization ON call_contents (organization_id);
CREATE INDEX call_contents_agent ON call_contents (agent_id);
CREATE INDEX call_contents_instance ON call_contents (instance_id);
