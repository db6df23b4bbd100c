-- What is known of watched Safes on each chain, kept current.
--
-- As every later migration, it frees the chains under new epochs, and no older version wins one (see 0002).
UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1, holder = NULL, lease_until = NULL;

CREATE TABLE safe_state (
    chain_no         INTEGER NOT NULL REFERENCES chain (no),
    address          BLOB NOT NULL,
    -- All null until it was read for the first time.
    version          TEXT,
    -- What is in its slot 0.
    singleton        BLOB,
    -- Whether it is a Safe still. If not, the rest but the singleton is as it was last proven.
    trusted          INTEGER,
    -- Lists are JSON arrays of addresses in hexadecimal.
    owners           TEXT,
    threshold        INTEGER,
    -- Null as well where the Safe does not tell them.
    modules          TEXT,
    -- Null where there is none.
    guard            BLOB,
    module_guard     BLOB,
    fallback_handler BLOB,
    -- The block after which it was that.
    block_number     INTEGER,
    block_hash       BLOB,
    -- The block after which it was first known; null again once that block is gone.
    since            INTEGER,
    -- Counts writes of the state; its events are named by it.
    revision         INTEGER NOT NULL DEFAULT 0,
    -- When a node is asked next, and how often in a row it was asked in vain.
    look_at          INTEGER NOT NULL,
    looks            INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT safe_state_key PRIMARY KEY (address, chain_no),
    CONSTRAINT safe_state_known CHECK ((version IS NULL) = (singleton IS NULL OR trusted IS NULL OR owners IS NULL
        OR threshold IS NULL OR block_number IS NULL OR block_hash IS NULL))
) STRICT, WITHOUT ROWID;
-- What is read next. Both are of no use to whoever looks for one Safe: a planner that knows nothing could take them.
CREATE INDEX safe_state_due ON safe_state (chain_no, look_at) WHERE look_at > 0;
-- What a reorg makes doubtful.
CREATE INDEX safe_state_of_block ON safe_state (chain_no, block_number) WHERE block_number IS NOT NULL;

-- Which code stands where Safe's own contracts belong.
CREATE TABLE safe_contract (
    chain_no INTEGER NOT NULL REFERENCES chain (no),
    address  BLOB NOT NULL,
    -- keccak256 of it; null where there is none.
    code     BLOB,
    read_at  INTEGER NOT NULL,
    CONSTRAINT safe_contract_key PRIMARY KEY (chain_no, address)
) STRICT, WITHOUT ROWID;
