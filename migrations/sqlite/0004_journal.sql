-- A journal that cannot be edited unseen: each commit with entries has a hash over the one before it and its own
-- changes. What is hashed, and how, is said in src/ledger/journal.rs; `tidemark verify-journal` checks it.
--
-- As every later migration, it frees the chains under new epochs, and no older version wins one (see 0002).
UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1, holder = NULL, lease_until = NULL;

-- The newest commit of the chain's journal, and its hash: none yet, and zeros. A journal begins with the first commit
-- after this migration; the entries from before have the commit 0.
ALTER TABLE chain_cursor ADD COLUMN commits INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chain_cursor ADD COLUMN journal_hash BLOB NOT NULL
    DEFAULT x'0000000000000000000000000000000000000000000000000000000000000000';

-- The commit that booked it.
ALTER TABLE entry ADD COLUMN commit_no INTEGER NOT NULL DEFAULT 0;
-- The entries of a commit that are not of its own transfers, whose numbers are known: what it settles and takes back.
-- By the chain, which is in the bits above 44.
CREATE INDEX entry_later ON entry ((transfer_no >> 44), commit_no) WHERE kind IN (2, 4, 5) AND commit_no > 0;

-- The commits that have entries, and rewinds by hand.
CREATE TABLE journal (
    chain_no       INTEGER NOT NULL REFERENCES chain (no),
    -- Counts from 1 without gaps.
    commit_no      INTEGER NOT NULL CONSTRAINT journal_commit_no CHECK (commit_no > 0),
    -- 1 blocks, 2 settlement, 3 comparison, 4 reorg, 5 rewind, 6 openings, 7 assets, 8 history, 9 Safes.
    kind           INTEGER NOT NULL CONSTRAINT journal_kind CHECK (kind BETWEEN 1 AND 9),
    -- The cursor that it left.
    head_number    INTEGER NOT NULL,
    head_hash      BLOB NOT NULL,
    settled_number INTEGER NOT NULL,
    settled_hash   BLOB NOT NULL,
    -- How many transfers the chain had had before: those of this commit are numbered from there on, up to where
    -- those of the next one begin.
    transfers      INTEGER NOT NULL,
    entries        INTEGER NOT NULL,
    -- Over the one before it, its entries, the balances that these left, and the rest of this row.
    hash           BLOB NOT NULL CONSTRAINT journal_hash_length CHECK (length(hash) = 32),
    -- Of a rewind by hand: the block that was the head, who ordered it, as far as that is known, and why.
    rewound_from   INTEGER,
    rewound_by     TEXT,
    reason         TEXT,
    created_at     INTEGER NOT NULL,
    CONSTRAINT journal_key PRIMARY KEY (chain_no, commit_no),
    CONSTRAINT journal_rewind_has_reason CHECK ((kind = 5) = (reason IS NOT NULL AND rewound_from IS NOT NULL))
) STRICT, WITHOUT ROWID;
