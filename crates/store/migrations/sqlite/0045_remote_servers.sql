-- Instances whose server runs elsewhere: they have no toolbox and no catalogue version. remote_url is sealed to the row.
-- remote_check_at is the time of the next check, 0 for at once; remote_streak is the number of consecutive checks with the
-- same outcome, negative if they failed.
ALTER TABLE instances ADD COLUMN remote_transport TEXT;
ALTER TABLE instances ADD COLUMN remote_origin TEXT;
ALTER TABLE instances ADD COLUMN remote_url TEXT;
ALTER TABLE instances ADD COLUMN remote_check_at INTEGER;
ALTER TABLE instances ADD COLUMN remote_streak INTEGER NOT NULL DEFAULT 0;
CREATE INDEX instances_remote ON instances (remote_check_at) WHERE remote_url IS NOT NULL;

-- SQLite cannot remove NOT NULL from a column, so the columns are replaced.
DROP INDEX instances_toolbox;
DROP INDEX instances_catalog_version;
ALTER TABLE instances ADD COLUMN optional_toolbox_id TEXT REFERENCES toolboxes (id);
ALTER TABLE instances ADD COLUMN optional_catalog_version_id TEXT REFERENCES catalog_versions (id);
UPDATE instances SET optional_toolbox_id = toolbox_id, optional_catalog_version_id = catalog_version_id;
ALTER TABLE instances DROP COLUMN toolbox_id;
ALTER TABLE instances DROP COLUMN catalog_version_id;
ALTER TABLE instances RENAME COLUMN optional_toolbox_id TO toolbox_id;
ALTER TABLE instances RENAME COLUMN optional_catalog_version_id TO catalog_version_id;
CREATE INDEX instances_toolbox ON instances (toolbox_id, id);
CREATE INDEX instances_catalog_version ON instances (catalog_version_id);

DROP INDEX tool_definitions_version;
ALTER TABLE tool_definitions ADD COLUMN optional_catalog_version_id TEXT;
UPDATE tool_definitions SET optional_catalog_version_id = catalog_version_id;
ALTER TABLE tool_definitions DROP COLUMN catalog_version_id;
ALTER TABLE tool_definitions RENAME COLUMN optional_catalog_version_id TO catalog_version_id;
CREATE INDEX tool_definitions_version ON tool_definitions (catalog_version_id, digest);
