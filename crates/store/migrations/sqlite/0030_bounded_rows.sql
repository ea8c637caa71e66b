-- Sign-ins with a provider that are under way are limited per provider and network (a keyed hash).
ALTER TABLE user_sign_ins ADD COLUMN network TEXT NOT NULL DEFAULT '';
CREATE INDEX user_sign_ins_provider ON user_sign_ins (provider, created_at);
CREATE INDEX user_sign_ins_network ON user_sign_ins (provider, network, created_at);

-- When the audit log last got an entry about an access token that the client revoked.
ALTER TABLE oauth_grants ADD COLUMN revocation_recorded_at INTEGER;
