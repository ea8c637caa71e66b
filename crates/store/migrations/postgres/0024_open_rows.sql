-- Limits for rows that anybody can create (docs/security.md).

-- used_at is set when the client gets its first authorization; until then the registration expires, and counts toward the limits
-- of its server and of the network that it came from. network is a keyed hash of the client's network.
ALTER TABLE oauth_clients ADD COLUMN used_at BIGINT;
ALTER TABLE oauth_clients ADD COLUMN network TEXT NOT NULL DEFAULT '';
UPDATE oauth_clients SET used_at = last_used_at WHERE last_used_at > created_at;
CREATE INDEX oauth_clients_used ON oauth_clients (used_at, created_at);
CREATE INDEX oauth_clients_unused_of_server ON oauth_clients (server_id, created_at) WHERE used_at IS NULL;
CREATE INDEX oauth_clients_unused_of_network ON oauth_clients (server_id, network, created_at) WHERE used_at IS NULL;

-- network is set while the request counts toward these limits: until an email was sent for it, or it was completed.
ALTER TABLE authorization_requests ADD COLUMN network TEXT;
CREATE INDEX authorization_requests_open ON authorization_requests (server_id, created_at) WHERE network IS NOT NULL;
CREATE INDEX authorization_requests_network ON authorization_requests (server_id, network, created_at)
    WHERE network IS NOT NULL;
