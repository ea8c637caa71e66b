-- Accounts by address and organisation, and what a first verification revokes (docs/security.md).

-- account_key is unique: the key of the address for an account that is valid everywhere, and for an unverified account of one
-- organisation the key of the address, a space, and the ID of the organisation. organization_id names that organisation.
ALTER TABLE users RENAME COLUMN email_key TO account_key;
ALTER TABLE users ADD COLUMN email_key TEXT NOT NULL DEFAULT '';
UPDATE users SET email_key = account_key;
CREATE INDEX users_email ON users (email_key);
ALTER TABLE users ADD COLUMN organization_id TEXT REFERENCES organizations (id) ON DELETE CASCADE;
CREATE INDEX users_organization ON users (organization_id);
CREATE INDEX users_password ON users (password_hash) WHERE password_hash IS NOT NULL;

-- Failed sign-ins within the hour that began at failed_since: the audit log has an entry for only some of them.
ALTER TABLE users ADD COLUMN failed_sign_ins INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN failed_since INTEGER NOT NULL DEFAULT 0;

-- Set if the link was sent by email and shown to nobody: only then does it prove the address.
ALTER TABLE invitations ADD COLUMN emailed_at INTEGER;
CREATE INDEX invitations_invited_by ON invitations (invited_by);

-- The account that a link made by the operator is for.
ALTER TABLE user_codes ADD COLUMN user_id TEXT REFERENCES users (id) ON DELETE CASCADE;
CREATE INDEX user_codes_user ON user_codes (user_id);
UPDATE user_codes SET user_id = (SELECT users.id FROM users WHERE users.email_key = user_codes.email_key)
WHERE purpose = 'link';

-- The user or the API key that created a key; empty for keys whose creator is unknown.
ALTER TABLE api_keys ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
UPDATE api_keys SET created_by = COALESCE((SELECT audit_events.actor FROM audit_events
    WHERE audit_events.organization_id = api_keys.organization_id AND audit_events.act = 'key.create'
        AND audit_events.target = api_keys.id LIMIT 1), '');
CREATE INDEX api_keys_created_by ON api_keys (created_by);

-- The link of an invitation was shown to the organisation that invited, so it proved nothing. Accounts that only ever
-- accepted an invitation become unverified and keep their organisations.
UPDATE users SET verified_at = NULL
WHERE id IN (SELECT actor FROM audit_events WHERE act = 'user.sign_in' AND detail LIKE '%"by":"invitation"%')
    AND id NOT IN (SELECT actor FROM audit_events WHERE act = 'user.sign_in'
        AND (detail LIKE '%"by":"code"%' OR detail LIKE '%"by":"provider"%' OR detail LIKE '%"by":"set_up"%'));

-- Accounts that began with an invitation and were verified by email or a provider later: the password and the sessions may be
-- those of another person. They end, as they do when an address is verified for the first time.
DELETE FROM user_sessions WHERE user_id IN (SELECT id FROM users WHERE verified_at IS NOT NULL
    AND id IN (SELECT actor FROM audit_events WHERE act = 'user.sign_in' AND detail LIKE '%"by":"invitation"%'));
UPDATE users SET password_hash = NULL WHERE verified_at IS NOT NULL
    AND id IN (SELECT actor FROM audit_events WHERE act = 'user.sign_in' AND detail LIKE '%"by":"invitation"%');

-- Unverified accounts with one organisation are valid for that one only.
UPDATE users SET organization_id = (SELECT organization_id FROM memberships WHERE memberships.user_id = users.id)
WHERE verified_at IS NULL AND (SELECT count(*) FROM memberships WHERE memberships.user_id = users.id) = 1;
UPDATE users SET account_key = email_key || ' ' || organization_id WHERE organization_id IS NOT NULL;
