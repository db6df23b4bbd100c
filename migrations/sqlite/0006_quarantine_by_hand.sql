-- A token can be quarantined by hand.
--
-- As every later migration, it frees the chains under new epochs, and no older version wins one (see 0002): they do
-- not know this reason.
UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1, holder = NULL, lease_until = NULL;

-- A constraint cannot be changed, and a table that others refer to is not made anew: the column is.
ALTER TABLE asset RENAME COLUMN quarantined_reason TO quarantined_reason_before;
ALTER TABLE asset ADD COLUMN quarantined_reason TEXT
    CONSTRAINT asset_quarantine CHECK (quarantined_reason IN ('overflow', 'shortfall', 'operator'));
UPDATE asset SET quarantined_reason = quarantined_reason_before WHERE quarantined_reason_before IS NOT NULL;
ALTER TABLE asset DROP COLUMN quarantined_reason_before;
