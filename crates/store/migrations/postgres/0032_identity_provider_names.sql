-- An upstream is a tool server of a third party. These tables belong to sign-in with an organisation's identity provider.
-- Sealed values keep the former names of the tables in their associated data.
ALTER TABLE upstream_states RENAME TO identity_provider_states;
ALTER TABLE upstream_tokens RENAME TO identity_provider_tokens;

ALTER INDEX upstream_states_organization RENAME TO identity_provider_states_organization;
ALTER INDEX upstream_states_config RENAME TO identity_provider_states_config;
ALTER INDEX upstream_states_request RENAME TO identity_provider_states_request;
ALTER INDEX upstream_states_expires RENAME TO identity_provider_states_expires;
ALTER INDEX upstream_tokens_organization RENAME TO identity_provider_tokens_organization;
ALTER INDEX upstream_tokens_config RENAME TO identity_provider_tokens_config;
ALTER INDEX upstream_tokens_expires RENAME TO identity_provider_tokens_expires;

-- Primary and foreign keys, and from PostgreSQL 18 on the NOT NULL constraints as well.
DO $$
DECLARE
    item record;
BEGIN
    FOR item IN
        SELECT conrelid::regclass AS relation, conname AS name FROM pg_constraint
        WHERE conrelid IN ('identity_provider_states'::regclass, 'identity_provider_tokens'::regclass)
            AND conname LIKE 'upstream\_%'
    LOOP
        EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I',
            item.relation, item.name, 'identity_provider_' || substr(item.name, 10));
    END LOOP;
END
$$;
