-- What is known of watched Safes on each chain, kept current.
--
-- As every later migration, it frees the chains under new epochs, and no older version wins one (see 0002).
UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1, holder = NULL, lease_until = NULL;

CREATE TABLE safe_state (
    chain_no         BIGINT NOT NULL REFERENCES chain (no),
    address          BYTEA NOT NULL,
    -- All null until it was read for the first time.
    version          TEXT,
    -- What is in its slot 0.
    singleton        BYTEA,
    -- Whether it is a Safe still. If not, the rest but the singleton is as it was last proven.
    trusted          BOOLEAN,
    -- Lists are JSON arrays of addresses in hexadecimal.
    owners           TEXT,
    threshold        BIGINT,
    -- Null as well where the Safe does not tell them.
    modules          TEXT,
    -- Null where there is none.
    guard            BYTEA,
    module_guard     BYTEA,
    fallback_handler BYTEA,
    -- The block after which it was that.
    block_number     BIGINT,
    block_hash       BYTEA,
    -- The block after which it was first known; null again once that block is gone.
    since            BIGINT,
    -- Counts writes of the state; its events are named by it.
    revision         BIGINT NOT NULL DEFAULT 0,
    -- When a node is asked next, and how often in a row it was asked in vain.
    look_at          BIGINT NOT NULL,
    looks            BIGINT NOT NULL DEFAULT 0,
    CONSTRAINT safe_state_key PRIMARY KEY (address, chain_no),
    CONSTRAINT safe_state_known CHECK ((version IS NULL) = (singleton IS NULL OR trusted IS NULL OR owners IS NULL
        OR threshold IS NULL OR block_number IS NULL OR block_hash IS NULL))
);
-- What is read next. Both are of no use to whoever looks for one Safe: a planner that knows nothing could take them.
CREATE INDEX safe_state_due ON safe_state (chain_no, look_at) WHERE look_at > 0;
-- What a reorg makes doubtful.
CREATE INDEX safe_state_of_block ON safe_state (chain_no, block_number) WHERE block_number IS NOT NULL;

-- Which code stands where Safe's own contracts belong.
CREATE TABLE safe_contract (
    chain_no BIGINT NOT NULL REFERENCES chain (no),
    address  BYTEA NOT NULL,
    -- keccak256 of it; null where there is none.
    code     BYTEA,
    read_at  BIGINT NOT NULL,
    CONSTRAINT safe_contract_key PRIMARY KEY (chain_no, address)
);
