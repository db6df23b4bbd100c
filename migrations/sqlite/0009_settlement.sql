-- Small deposits become available before their block settles; and who has read settled blocks again.
--
-- As every later migration, it frees the chains under new epochs, and no older version wins one (see 0002).
UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1, holder = NULL, lease_until = NULL;

-- The rule by which it became available: 0 finalized, 1 safe, 2 confirmations, 3 a tier, in the lowest two bits, the
-- number of confirmations above them. Null while none did, and for what settled before this was added. A pending transfer
-- that has one is available already.
ALTER TABLE transfer ADD COLUMN settled_by INTEGER;
-- What of incoming is available already.
ALTER TABLE balance ADD COLUMN early BLOB NOT NULL DEFAULT x''
    CONSTRAINT balance_early_is_incoming CHECK (length(early) < length(incoming) OR length(early) = length(incoming) AND early <= incoming);
-- The same after what an event tells; null is zero.
ALTER TABLE event ADD COLUMN early BLOB;

-- Two more things can happen to a transfer: SQLite changes no constraint but in a new table.
CREATE TABLE new_entry (
    transfer_no INTEGER NOT NULL,
    -- 1 connect, 2 settle, 3 connect and settle in one commit, 4 disconnect, 5 disconnect what was settled, 6 available
    -- before its block settled, 7 no longer that: it settles or is disconnected in the same commit.
    kind        INTEGER NOT NULL CONSTRAINT entry_kind CHECK (kind BETWEEN 1 AND 7),
    amount      BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    -- The commit that booked it.
    commit_no   INTEGER NOT NULL DEFAULT 0,
    -- A transfer is one connection, and each thing happens to it once.
    CONSTRAINT entry_key PRIMARY KEY (transfer_no, kind)
) STRICT, WITHOUT ROWID;
INSERT INTO new_entry SELECT transfer_no, kind, amount, created_at, commit_no FROM entry ORDER BY transfer_no, kind;
DROP TABLE entry;
ALTER TABLE new_entry RENAME TO entry;
CREATE INDEX entry_later ON entry ((transfer_no >> 44), commit_no) WHERE kind IN (2, 4, 5, 6, 7) AND commit_no > 0;

-- The version of the daemon that has last read settled blocks again and found what was booked; null before the first.
ALTER TABLE chain_cursor ADD COLUMN read_by TEXT;
