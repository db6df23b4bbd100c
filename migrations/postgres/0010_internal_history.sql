-- Histories say from which block on internal transfers are in them.
--
-- As every later migration, it frees the chains under new epochs, and no older version wins one (see 0002).
UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1, holder = NULL, lease_until = NULL;

-- The highest block of its history of which nobody told what moved inside its transactions; null while there is none.
ALTER TABLE watch ADD COLUMN untraced BIGINT;
-- Who takes part in a scan and has none yet: whoever has one is not read again.
CREATE INDEX watch_traced ON watch (scan_no, untraced) WHERE scan_no IS NOT NULL AND untraced IS NULL;
