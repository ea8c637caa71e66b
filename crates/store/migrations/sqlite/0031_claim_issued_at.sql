-- When the claim link of a request was signed: a claim that is undone ends the links from before, also those that open requests
-- have shown. Requests from before this version sign in, and claim nothing; generated IDs (personal:…) need no link.
ALTER TABLE authorization_requests ADD COLUMN claim_issued_at INTEGER;
