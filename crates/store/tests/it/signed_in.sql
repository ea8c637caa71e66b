INSERT INTO organization_logos VALUES ('org_N', 'aGFsbG8=', 1);
INSERT INTO oauth_configs VALUES
    ('oac_N', 'org_N', 'acme', 'openid', 'https://id.example', 'https://id.example/a', 'https://id.example/t', NULL,
     'https://id.example/k', 'waypost', 'sealed', 'client_secret_basic', 'openid email', 'sub', TRUE, 2, 3);
UPDATE servers SET oauth_config_id = 'oac_N' WHERE id = 'srv_N';
INSERT INTO identities VALUES ('idn_N', 'org_N', 'eu_N', 'waypost', 'acc_N', 'Z@b.example', 'z@b.example', TRUE, 4, 5);
INSERT INTO accounts VALUES ('acc_N', 'org_N', 'Z@b.example', 'z@b.example', 'argon', 6, 7);
INSERT INTO authorization_requests VALUES
    ('arq_N', 'org_N', 'srv_N', 'browser', 'https://docs.example', 'client', 'Client', 'http://127.0.0.1/cb', 'state',
     'walk', 'https://docs.example/mcp', NULL, 'challenge', NULL, NULL, 8, 9, NULL, NULL, NULL, NULL);
INSERT INTO email_codes VALUES
    ('ecd_N', 'org_N', 'arq_N', 'Z@b.example', 'z@b.example', 'sign_in', 'hash', NULL, 0, 10, 11, NULL);
INSERT INTO browser_sessions VALUES ('browser-N', 'org_N', 'eu_N', 'idn_N', 12, 13);
INSERT INTO oauth_clients VALUES
    ('srv_N', 'client-N', 'org_N', 'Client', '["http://127.0.0.1/cb"]', 'native', 'none', NULL, 14, 15, 15, '');
INSERT INTO oauth_consents VALUES ('srv_N', 'eu_N', 'client', 'http://127.0.0.1', 'org_N', 'walk', 16);
INSERT INTO oauth_grants VALUES
    ('ogr_N', 'org_N', 'srv_N', 'eu_N', 'client', 'Client', 'walk', 'https://docs.example/mcp', 1, NULL, 17, 18, NULL, NULL, NULL, NULL);
INSERT INTO authorization_codes VALUES ('code-N', 'ogr_N', 'client', 'http://127.0.0.1/cb', 'challenge', 19, 20, 21);
INSERT INTO access_tokens VALUES ('access-N', 'ogr_N', 'walk', 22, 23, NULL);
INSERT INTO refresh_tokens VALUES ('refresh-N', 'ogr_N', 1, 24);
INSERT INTO identity_provider_states VALUES ('state-N', 'org_N', 'oac_N', 'arq_N', 'nonce', 'sealed', 25, 26);
INSERT INTO identity_provider_tokens VALUES ('idn_N', 'org_N', 'oac_N', 'sealed', NULL, 'openid', 27, NULL, 28);
INSERT INTO joins VALUES ('joi_N', 'org_N', 'srv_N', 'eu_N', 'eu_N', 'handle', '{}', 29, NULL);
INSERT INTO user_identities VALUES ('https://accounts.example', 'subject-N', 'usr_N', 5);
INSERT INTO user_sessions VALUES ('uss_N', 'session-N', 'usr_N', 'org_N', 'Mozilla/5.0', '127.0.0.1', 5, 6, 7);
INSERT INTO user_codes VALUES
    ('uco_N', 'A@b.example', 'a@b.example', 'reset', 'browser', 'code', '$argon2id$', 2, 5, 6, NULL, 'usr_N');
INSERT INTO user_sign_ins VALUES ('state_N', 'browser', 'google', 'nonce', 'verifier', '/', 5, 6, 'network');
INSERT INTO invitations VALUES
    ('inv_N', 'org_N', 'C@b.example', 'c@b.example', 'member', 'token-N', 'usr_N', 5, 6, NULL, 7, NULL);
INSERT INTO idempotency_keys VALUES ('usr_N', 'once', 'org_N', 'request', NULL, 5, 6);
INSERT INTO analytics_rollups VALUES ('srv_N', 'org_N', 0, 0, 0, 0);
INSERT INTO analytics_segments VALUES ('seg_N', 'org_N', 'srv_N', 'wt_N', 'events', 0, 0, 0, '');
INSERT INTO ticket_numbers VALUES ('org_N', 1);
INSERT INTO tickets VALUES
    ('tkt_N', 'org_N', 1, 'srv_N', 'eu_N', NULL, 'Walkthrough', 1, 'ws_was', 'Step', 2, 'It breaks', 'When I click', NULL,
     'Z@b.example', TRUE, 'needs_email', 'normal', 'usr_N', 'it breaks', 1, 5, 6, NULL, 'client-N');
INSERT INTO ticket_comments VALUES ('tkc_N', 'org_N', 'tkt_N', 'key_gone', 'Try **this**', FALSE, 'Z@b.example', 5, 6);
INSERT INTO ticket_notices VALUES ('tkt_N', 'org_N', 'srv_N');
INSERT INTO ticket_digests VALUES ('srv_N', 'org_N', 5, 6);
INSERT INTO emails VALUES ('eml_N', 'org_N', 'tkt_N', 'tkc_N', 'Z@b.example', 'Answer', 'Try this', 1, 7, 5, '<p>Try this</p>', 'ann@acme.example');
INSERT INTO ticket_comment_edits VALUES ('tkc_N', 1, 'Try this', 'key_gone', 6);
INSERT INTO webhooks VALUES
    ('whk_N', 'org_N', 'https://hook.example', 'Chat', 'sealed', NULL, NULL,
     '["ticket.created","walkthrough.completed"]', TRUE, NULL, NULL, 5, 6);
INSERT INTO webhook_deliveries VALUES
    ('whd_N', 'org_N', 'whk_N', 'eu_N', 'ticket.created', '{}', 'pending', 1, 7, 6, 500, 'oh', 'no', 12, 5, NULL);
INSERT INTO removed_steps VALUES ('ws_removed-N', 'org_N', 'wt_N', 39);
INSERT INTO step_revisions VALUES
    ('ws_removed-N', 1, 'org_N', 'wt_N', 'baseline', '', NULL, NULL, 39, 9, 1, 1, 2, NULL, 'Title', NULL, 'text', NULL, NULL, NULL, '{}'),
    ('ws_removed-N', 2, 'org_N', 'wt_N', 'delete', 'usr_N', NULL, NULL, 39, 9, 2, 2, 2, 'k', 'Title', 'Part', 'text', 'a', 'b', 'c', '{}');
INSERT INTO editing_sessions VALUES ('ws_removed-N usr_N', 'org_N', 'wt_N', 'aud_N', 2, 40);
INSERT INTO toolboxes VALUES
    ('tbx_N', 'org_N', 'rack', NULL, NULL, 'public-key', 6, 5, NULL, '0.1.0',
     '{"version":"20.10","runtime":"1.1","os":"linux","architecture":"amd64"}',
     '{"cpus":2.5,"memory_bytes":4,"disk_free_bytes":5}', 6, NULL, 7, 8, 5, 6);
INSERT INTO toolbox_links VALUES ('tbx_N', 'replica', 'https://10.0.0.1:8443', 9);
INSERT INTO catalog_entries VALUES
    ('cat_N', 'org_N', 'search', 'Search', 'Finds things', '["web"]', 'MIT', NULL, 'published', 5, 6);
INSERT INTO catalog_versions (id, organization_id, catalog_entry_id, version, definition, created_at) VALUES
    ('ctv_N', 'org_N', 'cat_N', '1.0.0',
     '{"source":{"image":"registry.example/search@sha256:0"},"transport":"stdio","registry_secret":"REGISTRY"}', 5);
INSERT INTO tool_secrets VALUES ('sec_N', 'org_N', 'TOKEN', 'sealed', 2, 5, 6);
INSERT INTO replaced_secrets VALUES ('sec_N.1', 'org_N', 'sec_N', 1, 'sealed-1', 6);
INSERT INTO instances (id, organization_id, slug, slug_skeleton, name, catalog_version_id, toolbox_id, desired, state,
        generation, observed_generation, restarts, is_removing, health, config, learn_egress, rejected_egress, created_at,
        updated_at) VALUES
    ('ins_N', 'org_N', 'search', 'search', 'Search', 'ctv_N', 'tbx_N', 'running', 'running', 1, 1, 0, FALSE, NULL, '{}',
     FALSE, '[]', 5, 6);
INSERT INTO initial_approvals VALUES ('ins_N', 'org_N', 'write', 'usr_N', 0, 0, 5, 6);
INSERT INTO instance_secrets VALUES ('ins_N', 'API_KEY', 'org_N', 'sec_N', 1, 0);
INSERT INTO tool_definitions (id, organization_id, instance_id, catalog_version_id, kind, name, digest, definition, problem,
        is_current, state, class, reason, decided_by, decided_at, first_seen_at) VALUES
    ('apr_N', 'org_N', 'ins_N', 'ctv_N', 'tool', 'find', 'd0', '{"name":"find"}', NULL, TRUE, 'pending', NULL, NULL, NULL,
     NULL, 5);
INSERT INTO deployments VALUES
    ('dep_N', 'org_N', 'ins_N', 1, 'ctv_N', '{}', '[]', FALSE, 'complete', 'complete', NULL, 5, 6, '[]');
INSERT INTO instance_events VALUES ('iev_N', 'org_N', 'ins_N', 'state', 'running', 6);
INSERT INTO agents VALUES ('agt_N', 'org_N', 'Crawler', 'service', NULL, 'active', 5, 'usr_N', 6);
INSERT INTO agents VALUES ('agt_personN', 'org_N', 'a@x.de', 'person', 'usr_N', 'active', 5, 'usr_N', NULL);
INSERT INTO remote_connections VALUES
    ('ins_N', 'org_N', 'ins_N', NULL, 'https://id.example', 'sealed', 1, 27, 20, NULL, NULL, TRUE, 'usr_N', 5, 6, 'write'),
    ('ins_N:agt_N', 'org_N', 'ins_N', 'agt_N', 'https://id.example', 'sealed', 1, 27, 20, NULL, NULL, TRUE, 'usr_N', 5, 6,
     NULL);
INSERT INTO remote_connection_requests VALUES
    ('connect-N', 'org_N', 'ins_N', 'usr_N', 1, 'sealed', 5, 6, NULL),
    ('connect-agent-N', 'org_N', 'ins_N', 'usr_N', 1, 'sealed', 5, 6, 'agt_N');
INSERT INTO agent_secrets VALUES ('ags_N', 'org_N', 'ins_N', 'agt_N', 'TOKEN', 'sealed', 1, 6);
INSERT INTO agent_tokens VALUES ('agk_N', 'org_N', 'agt_N', 'laptop', 'agent-N', 5, 9, 7, 7, 6);
INSERT INTO authorization_requests VALUES
    ('arq_gatewayN', NULL, NULL, 'browser', 'https://way.example/gateway', 'client', 'Client', 'http://127.0.0.1/cb', NULL,
     'gateway', 'https://way.example/gateway/acme/mcp', NULL, 'challenge', NULL, NULL, 8, 9, NULL, NULL, NULL, NULL);
INSERT INTO oauth_clients VALUES
    (NULL, 'client-gatewayN', NULL, 'Client', '["http://127.0.0.1/cb"]', 'native', 'none', NULL, 14, 15, 15, '');
INSERT INTO oauth_grants VALUES
    ('ogr_personN', 'org_N', NULL, NULL, 'client', 'Client', 'gateway', 'https://way.example/gateway/acme/mcp', 1, NULL, 17,
     1790000000000, NULL, NULL, NULL, 'agt_personN');
INSERT INTO authorization_codes VALUES
    ('code-person-N', 'ogr_personN', 'client', 'http://127.0.0.1/cb', 'challenge', 19, 20, 21);
INSERT INTO access_tokens VALUES ('access-person-N', 'ogr_personN', 'gateway', 22, 1790000000000, NULL);
INSERT INTO refresh_tokens VALUES ('refresh-person-N', 'ogr_personN', 1, 24);
INSERT INTO grants VALUES
    ('grt_N', 'org_N', 'agt_N', 'ins_N', 'custom', '["search"]', '[]', '["notes://{id}"]',
     '[{"tool":"search","field":"limit","comparison":"at_most","value":5}]', 9, 5, 'usr_N');
INSERT INTO calls VALUES
    ('cal_N', 'org_N', 'agt_N', 'ins_N', 'tools/call', 'search', 'ok', 12, 9, 120, 2000, '{"query":"string"}', 9);
INSERT INTO call_contents VALUES ('cal_N', 'org_N', 'agt_N', 'ins_N', 'sealed');
INSERT INTO tool_sets VALUES ('set_N', 'org_N', 'research', 'research', 'Research', TRUE);
INSERT INTO tool_overrides VALUES ('ins_N', 'search', 'org_N', 'find', 'Finds pages.');
INSERT INTO tool_set_members VALUES ('set_N', 'ins_N', 'org_N', 0, '["search"]');
