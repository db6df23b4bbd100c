-- Several daemons on one database.
--
-- Whoever still runs an older version beside this one must not go on: it knows neither these tables nor who follows
-- a chain. It names the fencing epoch by its old name, so each of its commits is refused.
-- Every later migration begins as this one: it frees the chains under new epochs, and no older version wins one.
ALTER TABLE chain_cursor RENAME COLUMN epoch TO fencing_epoch;
UPDATE chain_cursor SET fencing_epoch = fencing_epoch + 1, holder = NULL, lease_until = NULL;

-- The daemons, by their signs of life.
CREATE TABLE daemon (
    id         TEXT NOT NULL PRIMARY KEY,
    version    TEXT NOT NULL,
    -- The names of the chains that it can follow now, with spaces between them.
    chains     TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX daemon_by_sight ON daemon (seen_at, id);

-- Work that one daemon does for all, such as the retention.
CREATE TABLE named_lease (
    name        TEXT NOT NULL PRIMARY KEY,
    holder      TEXT NOT NULL,
    lease_until INTEGER NOT NULL
) STRICT;

-- The calls of a day (since the Unix epoch) that the daemons have made to an endpoint with a budget for a day.
CREATE TABLE endpoint_use (
    chain    TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    day      INTEGER NOT NULL,
    calls    INTEGER NOT NULL,
    CONSTRAINT endpoint_use_key PRIMARY KEY (chain, endpoint)
) STRICT;
