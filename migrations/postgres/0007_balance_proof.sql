-- What the chain's own state said of a balance when it last agreed with the ledger.
--
-- As every later migration, it frees the chains under new epochs, and no older version wins one (see 0002).
UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1, holder = NULL, lease_until = NULL;

-- The settled block, what was held there, and when that was compared; nothing until then.
ALTER TABLE balance ADD COLUMN proven_block BIGINT;
ALTER TABLE balance ADD COLUMN proven_figure NUMERIC(78,0);
ALTER TABLE balance ADD COLUMN proven_at BIGINT
    CONSTRAINT balance_is_proven_whole CHECK ((proven_block IS NULL) = (proven_at IS NULL)
        AND (proven_figure IS NULL) = (proven_at IS NULL));
