-- What the servers of instances define. A row per definition that was seen, which keeps its text and digest; only its
-- approval, and whether the server lists it at present, change. `problem` is the reason why it cannot be approved.
CREATE TABLE tool_definitions (
    id                 TEXT    NOT NULL PRIMARY KEY,
    organization_id    TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    instance_id        TEXT    NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    catalog_version_id TEXT    NOT NULL,
    kind               TEXT    NOT NULL,
    name               TEXT    NOT NULL,
    digest             TEXT    NOT NULL,
    definition         TEXT    NOT NULL,
    problem            TEXT,
    is_current         INTEGER NOT NULL,
    state              TEXT    NOT NULL,
    class              TEXT,
    reason             TEXT,
    decided_by         TEXT,
    decided_at         INTEGER,
    first_seen_at      INTEGER NOT NULL,
    UNIQUE (instance_id, kind, name, digest)
) STRICT;
CREATE INDEX tool_definitions_state ON tool_definitions (organization_id, state, id);
CREATE INDEX tool_definitions_version ON tool_definitions (catalog_version_id, digest);
