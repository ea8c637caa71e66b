-- Waypost as a client that an admin has registered at the authorization server of a remote server. NULL if Waypost uses its own
-- document, or registers itself.
ALTER TABLE instances ADD COLUMN remote_client_id TEXT;
ALTER TABLE instances ADD COLUMN remote_client_secret_id TEXT REFERENCES tool_secrets (id);
CREATE INDEX instances_remote_client_secret ON instances (remote_client_secret_id);

-- The scope that the server of a connection requires and that its tokens lack. The next connection asks for it.
ALTER TABLE remote_connections ADD COLUMN required_scope TEXT;
