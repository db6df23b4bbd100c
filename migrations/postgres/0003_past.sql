-- Balances of the past, by time.
--
-- Whoever still runs an older version beside this one writes no times: the chains are freed under new epochs.
UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1, holder = NULL, lease_until = NULL;

-- The time of the block at which the watch opened; null where an earlier version opened it.
ALTER TABLE watch ADD COLUMN opened_time BIGINT;
-- The time of block_number; for what an earlier version wrote a later one, that of the head when this was added.
ALTER TABLE asset_opening ADD COLUMN block_time BIGINT;
UPDATE asset_opening
SET block_time = (SELECT c.head_time FROM chain_cursor c WHERE c.chain_no = asset_opening.chain_no);
