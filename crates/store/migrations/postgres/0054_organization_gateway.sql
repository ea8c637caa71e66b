-- The switch for the gateway of an organisation.
ALTER TABLE organizations ADD COLUMN gateway_enabled BOOLEAN NOT NULL DEFAULT TRUE;
