-- Small deposits become available before their block settles; and who has read settled blocks again.
--
-- As every later migration, it frees the chains under new epochs, and no older version wins one (see 0002).
UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1, holder = NULL, lease_until = NULL;

-- The rule by which it became available: 0 finalized, 1 safe, 2 confirmations, 3 a tier, in the lowest two bits, the
-- number of confirmations above them. Null while none did, and for what settled before this was added. A pending transfer
-- that has one is available already.
ALTER TABLE transfer ADD COLUMN settled_by BIGINT;
-- What of incoming is available already.
ALTER TABLE balance ADD COLUMN early NUMERIC(78,0) NOT NULL DEFAULT 0
    CONSTRAINT balance_early_is_incoming CHECK (early <= incoming);
-- The same after what an event tells; null is zero.
ALTER TABLE event ADD COLUMN early NUMERIC(78,0);

-- Two more things can happen to a transfer: 6 available before its block settled, 7 no longer that: it settles or is
-- disconnected in the same commit.
ALTER TABLE entry DROP CONSTRAINT entry_kind;
ALTER TABLE entry ADD CONSTRAINT entry_kind CHECK (kind BETWEEN 1 AND 7);
DROP INDEX entry_later;
CREATE INDEX entry_later ON entry ((transfer_no >> 44), commit_no) WHERE kind IN (2, 4, 5, 6, 7) AND commit_no > 0;

-- The version of the daemon that has last read settled blocks again and found what was booked; null before the first.
ALTER TABLE chain_cursor ADD COLUMN read_by TEXT;
