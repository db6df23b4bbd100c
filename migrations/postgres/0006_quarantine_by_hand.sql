-- A token can be quarantined by hand.
--
-- As every later migration, it frees the chains under new epochs, and no older version wins one (see 0002): they do
-- not know this reason.
UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1, holder = NULL, lease_until = NULL;

ALTER TABLE asset DROP CONSTRAINT asset_quarantine;
ALTER TABLE asset ADD CONSTRAINT asset_quarantine CHECK (quarantined_reason IN ('overflow', 'shortfall', 'operator'));
