-- The number of each organisation's last change, so that a change in one organisation evicts nothing that is cached of another.
-- config_version.recorded_changes counts the changes that are recorded here. All others concern every organisation: restores, and
-- changes by processes of an older version during an upgrade. No content: not in backups. Without a foreign key: other processes
-- must notice the deletion of an organisation.
ALTER TABLE config_version ADD COLUMN recorded_changes INTEGER NOT NULL DEFAULT 0;
CREATE TABLE organization_changes (
    organization_id TEXT    NOT NULL PRIMARY KEY,
    version         INTEGER NOT NULL
) STRICT;
CREATE INDEX organization_changes_version ON organization_changes (version);
