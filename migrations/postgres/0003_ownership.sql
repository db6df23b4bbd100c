-- Proofs that somebody controls an address. No version before this one wrote to the table, so it is made anew:
-- with the chain that the message names, and with what must hold.
DROP TABLE ownership_challenge;
CREATE TABLE ownership_challenge (
    id          UUID NOT NULL PRIMARY KEY,
    tenant_id   UUID NOT NULL REFERENCES tenant (id),
    chain       TEXT NOT NULL,
    family      TEXT NOT NULL,
    address     BYTEA NOT NULL,
    -- What is to be signed, byte for byte.
    message     TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    -- The first millisecond in which it is too late.
    expires_at  BIGINT NOT NULL,
    -- When its one use was; null until then.
    verified_at BIGINT,
    CONSTRAINT ownership_challenge_lives CHECK (expires_at > created_at),
    CONSTRAINT ownership_challenge_verified_in_time CHECK (verified_at IS NULL OR verified_at < expires_at)
);
-- Challenges that were never met, to forget them.
CREATE INDEX ownership_challenge_open ON ownership_challenge (tenant_id, expires_at) WHERE verified_at IS NULL;
