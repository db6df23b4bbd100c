-- Blocks that were taken in before anybody had told what moved inside their transactions.
--
-- As every later migration, it frees the chains under new epochs, and no older version wins one (see 0002).
UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1, holder = NULL, lease_until = NULL;

-- Whether that is still to be learnt.
ALTER TABLE block ADD COLUMN untraced BOOLEAN NOT NULL DEFAULT FALSE;

-- What each endpoint traces with, in the order of the configuration, as the chain's follower has learnt it: words with a
-- comma between them; null until it has asked one.
ALTER TABLE chain_cursor ADD COLUMN tracing TEXT;
