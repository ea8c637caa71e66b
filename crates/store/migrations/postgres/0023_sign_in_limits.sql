-- Failed sign-ins and requested codes within a day, by account, across replicas (docs/security.md). A slot stands for
-- all accounts with the same keyed hash of 18 bits, so the table has at most 2^19 rows; it holds no addresses.
CREATE TABLE sign_in_attempts (
    slot       TEXT    NOT NULL PRIMARY KEY,
    attempts   BIGINT  NOT NULL,
    expires_at BIGINT  NOT NULL
);
CREATE INDEX sign_in_attempts_expires ON sign_in_attempts (expires_at);

-- Nobody is locked out by the attempts of others any more.
ALTER TABLE users DROP COLUMN failures;
ALTER TABLE users DROP COLUMN locked_until;
ALTER TABLE accounts DROP COLUMN failures;
ALTER TABLE accounts DROP COLUMN locked_until;
