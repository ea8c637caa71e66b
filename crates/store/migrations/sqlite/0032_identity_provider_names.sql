-- An upstream is a tool server of a third party. These tables belong to sign-in with an organisation's identity provider.
-- Sealed values keep the former names of the tables in their associated data.
ALTER TABLE upstream_states RENAME TO identity_provider_states;
ALTER TABLE upstream_tokens RENAME TO identity_provider_tokens;

DROP INDEX upstream_states_organization;
DROP INDEX upstream_states_config;
DROP INDEX upstream_states_request;
DROP INDEX upstream_states_expires;
CREATE INDEX identity_provider_states_organization ON identity_provider_states (organization_id);
CREATE INDEX identity_provider_states_config ON identity_provider_states (oauth_config_id);
CREATE INDEX identity_provider_states_request ON identity_provider_states (request_id);
CREATE INDEX identity_provider_states_expires ON identity_provider_states (expires_at);

DROP INDEX upstream_tokens_organization;
DROP INDEX upstream_tokens_config;
DROP INDEX upstream_tokens_expires;
CREATE INDEX identity_provider_tokens_organization ON identity_provider_tokens (organization_id);
CREATE INDEX identity_provider_tokens_config ON identity_provider_tokens (oauth_config_id);
CREATE INDEX identity_provider_tokens_expires ON identity_provider_tokens (expires_at);
