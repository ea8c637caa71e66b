-- Catalogue versions whose server is already running elsewhere. remote_url is sealed to the row, and NULL for every other source.
ALTER TABLE catalog_versions ADD COLUMN remote_url TEXT;
