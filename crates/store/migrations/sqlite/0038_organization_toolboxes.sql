-- The switch for toolboxes and instances of an organisation.
ALTER TABLE organizations ADD COLUMN toolboxes_enabled INTEGER NOT NULL DEFAULT 1;
