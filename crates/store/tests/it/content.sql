INSERT INTO organizations VALUES ('org_1', 'acme', 'Äcme "quoted" \ back', 1, 2, TRUE, FALSE), ('org_2', 'other', E_OTHER, 1, 2, FALSE, TRUE);
INSERT INTO users VALUES ('usr_1', 'A@b.example', 'a@b.example', 3, 'Anna', '$argon2id$', 4, 'a@b.example', NULL, 2, 3);
INSERT INTO memberships VALUES ('org_1', 'usr_1', 'owner', 4), ('org_2', 'usr_1', 'member', 5);
INSERT INTO api_keys VALUES ('key_1', 'org_1', 'ci', 'admin', 'abc', 6, 7, NULL, 'usr_1');
INSERT INTO servers VALUES
    ('srv_1', 'org_1', 'docs', 'Docs', 'Acme', 'none', 'when_needed', TRUE, 'guided', 'off', '["https://a.example"]', 7, 8, NULL, TRUE, FALSE),
    ('srv_2', 'org_1', 'more', 'More', 'Acme', 'none', 'when_needed', FALSE, 'all', 'off', '[]', 7, 8, NULL, FALSE, TRUE);
INSERT INTO server_aliases VALUES ('old-docs', 'org_1', 'srv_1', 9);
INSERT INTO end_users VALUES
    ('eu_1', 'org_1', NULL, 9223372036854775807, 'Zoë', NULL, NULL, 'claimed@b.example', FALSE),
    ('eu_2', 'org_1', '007', 10, NULL, NULL, NULL, NULL, TRUE);
INSERT INTO client_sessions VALUES
    ('ses_1', 'org_1', 'srv_1', 'eu_1', 'hash', 'client', NULL, '2026', 11, 12, NULL),
    ('ses_2', 'org_1', 'srv_1', 'eu_2', NULL, NULL, NULL, NULL, 11, 12, NULL);
INSERT INTO walkthroughs VALUES
    ('wt_1', 'org_1', 'Hello', 'hello', 'hello', '', 'course', 'published', NULL, '[]', '{"a":1}', NULL, NULL, 3, 2, 13, 14, 3, NULL, NULL, NULL, NULL);
INSERT INTO steps VALUES
    ('ws_2', 'org_1', 'wt_1', 1, NULL, NULL, 'Two', NULL, 'text', NULL, NULL, NULL, '{}'),
    ('ws_1', 'org_1', 'wt_1', 0, 'one', 'ws_2', 'One', 'Begin', 'first line
second line', 'say hello', NULL, '', '{}');
INSERT INTO versions VALUES ('wv_1', 'org_1', 'wt_1', 1, 'Hello', '', 'course', 5, '[]', '{}', 2, 15, NULL, NULL, '03');
INSERT INTO version_steps VALUES
    ('wv_1', 1, 'ws_1', 0, 'one', 'One', 'Begin', 'text', NULL, NULL, NULL, '{}'),
    ('wv_1', 2, 'ws_2', 1, NULL, 'Two', NULL, '123', NULL, NULL, NULL, '{}');
UPDATE walkthroughs SET first_step_id = 'ws_1', current_version_id = 'wv_1';
INSERT INTO assignments VALUES ('msw_1', 'org_1', 'srv_1', 'wt_1', -1, FALSE, 16);
INSERT INTO progress VALUES
    ('wp_1', 'org_1', 'eu_1', 'srv_1', 'wt_1', 'wv_1', 'in_progress', '1', 17, NULL, 18, NULL, '{}');
INSERT INTO step_completions VALUES ('wp_1', 'ws_1', 'wv_1', 18);
INSERT INTO walkthrough_events VALUES
    ('ev_1', 'org_1', 'srv_1', 'wt_1', 'eu_1', 'wp_1', 'wv_1', NULL, 'started', 19, 'client', NULL, NULL);
INSERT INTO tool_calls VALUES
    ('tc_1', 'org_1', 'srv_1', 'eu_1', 'x', '{}', 'ok', 20, NULL, NULL, 'r', 21, 'ses_1', FALSE),
    ('tc_2', 'org_1', 'srv_1', NULL, 'x', '{}', 'ok', 20, NULL, NULL, 'r', 21, NULL, TRUE);
INSERT INTO refused_calls VALUES ('srv_1', 22, 'rate', 'org_1', 23);
INSERT INTO counted_calls VALUES ('srv_1', 22, 'x', 'ok', 24);
INSERT INTO audit_events
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1203)
    SELECT 'aud_' || i, 'org_gone', 'operator', 'x', 'y', '{}', i FROM n;
INSERT INTO sign_in_attempts VALUES ('p00001', 3, 40);
