-- From this version on, a request for sign-in claims the progress of a label only if it shows a link that the organisation
-- signed. Open requests made before were not checked: they sign in, and claim nothing.
UPDATE authorization_requests SET tracking_id = NULL
WHERE tracking_id IS NOT NULL AND tracking_id NOT LIKE 'personal:%';
