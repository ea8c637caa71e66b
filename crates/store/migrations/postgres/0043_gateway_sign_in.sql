-- People sign in to the gateway with OAuth. Its clients and requests belong to no server and no organisation (server_id is NULL),
-- and its grants belong to the agent of a person. IDs of clients are random, so they are unique without their server.
ALTER TABLE oauth_clients DROP CONSTRAINT oauth_clients_pkey;
ALTER TABLE oauth_clients ADD PRIMARY KEY (client_id);
ALTER TABLE oauth_clients ALTER COLUMN server_id DROP NOT NULL;
ALTER TABLE oauth_clients ALTER COLUMN organization_id DROP NOT NULL;
ALTER TABLE oauth_clients ADD CHECK ((server_id IS NULL) = (organization_id IS NULL));
CREATE INDEX oauth_clients_server ON oauth_clients (server_id);

ALTER TABLE authorization_requests ALTER COLUMN server_id DROP NOT NULL;
ALTER TABLE authorization_requests ALTER COLUMN organization_id DROP NOT NULL;
ALTER TABLE authorization_requests ADD CHECK ((server_id IS NULL) = (organization_id IS NULL));

-- A grant belongs to an end user of a server, or to an agent at the gateway.
ALTER TABLE oauth_grants ALTER COLUMN server_id DROP NOT NULL;
ALTER TABLE oauth_grants ALTER COLUMN end_user_id DROP NOT NULL;
ALTER TABLE oauth_grants ADD COLUMN agent_id TEXT REFERENCES agents (id) ON DELETE CASCADE;
ALTER TABLE oauth_grants ADD CHECK ((server_id IS NULL) = (end_user_id IS NULL));
ALTER TABLE oauth_grants ADD CHECK ((server_id IS NULL) <> (agent_id IS NULL));
CREATE INDEX oauth_grants_agent ON oauth_grants (agent_id);
