-- Tidemark's schema on PostgreSQL. migrations/sqlite holds the same tables with that engine's types.
--
-- Until version 1.0.0 this one text is edited in place, and a database that was made with another text is refused.
--
-- Conventions: what leaves the store has a UUID (`id`); inside, rows are numbered (`no`), because a number is
-- a quarter as long and big tables hold millions of them. Times are milliseconds since the Unix epoch;
-- amounts are NUMERIC(78,0), which holds all of 256 bits; addresses,
-- hashes and assets are raw bytes (an asset is empty for the native coin, else the contract).
--
-- The big tables (transfer, entry, event) are written in commit order, and no index on them has a random key but
-- `transfer_of_wallet`. What a unique index could guard there is guarded elsewhere, and said beside the table;
-- `tidemark audit` checks it.

CREATE TABLE tenant (
    no            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id            UUID NOT NULL CONSTRAINT tenant_id_unique UNIQUE,
    name          TEXT NOT NULL CONSTRAINT tenant_name_unique UNIQUE,
    -- The position of the tenant's newest event. Whoever appends events holds this row's lock until commit,
    -- so positions appear in commit order and without gaps.
    feed_position BIGINT NOT NULL DEFAULT 0,
    -- The newest position whose event was deleted by its age: a feed cannot be read from before it. And the
    -- greatest time in front of a deleted event's id.
    feed_floor    BIGINT NOT NULL DEFAULT 0,
    feed_floor_time BIGINT NOT NULL DEFAULT 0,
    -- Which Safes join the account of the registered owner that led to them.
    adopt_safes   TEXT NOT NULL DEFAULT 'sole_owner' CONSTRAINT tenant_adopt_safes
        CHECK (adopt_safes IN ('never', 'sole_owner', 'any')),
    created_at    BIGINT NOT NULL
);

CREATE TABLE api_key (
    id         UUID NOT NULL PRIMARY KEY,
    tenant_id  UUID NOT NULL REFERENCES tenant (id),
    -- SHA-256 of the key. The key itself is shown once and never stored.
    hash       BYTEA NOT NULL CONSTRAINT api_key_hash_unique UNIQUE,
    -- Space-separated: wallets:read wallets:write webhooks:write admin.
    scopes     TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);

CREATE TABLE account (
    id          UUID NOT NULL PRIMARY KEY,
    tenant_id   UUID NOT NULL REFERENCES tenant (id),
    external_id TEXT,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    CONSTRAINT account_external_id_unique UNIQUE (tenant_id, external_id)
);

-- email:, userId:, phoneNumber:, x: — one account each.
CREATE TABLE account_locator (
    tenant_id  UUID NOT NULL,
    kind       TEXT NOT NULL,
    value      TEXT NOT NULL,
    account_id UUID NOT NULL REFERENCES account (id),
    CONSTRAINT account_locator_key PRIMARY KEY (tenant_id, kind, value)
);

CREATE TABLE wallet (
    no                  BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id                  UUID NOT NULL CONSTRAINT wallet_id_unique UNIQUE,
    tenant_id           UUID NOT NULL REFERENCES tenant (id),
    account_id          UUID REFERENCES account (id),
    family              TEXT NOT NULL,
    address             BYTEA NOT NULL,
    kind                TEXT NOT NULL CONSTRAINT wallet_kind CHECK (kind IN ('eoa', 'safe', 'contract')),
    client_reference_id TEXT,
    nickname            TEXT,
    is_primary          BOOLEAN NOT NULL DEFAULT FALSE,
    -- Set while the wallet is disabled: it is still watched, late deposits count and say so.
    disabled_at         BIGINT,
    rotated_at          BIGINT,
    replaced_by         UUID,
    -- Set when the tenant deleted it: no longer shown, no longer watched.
    deleted_at          BIGINT,
    -- The Safe's facts as last proven; all null for other kinds. Owners: a JSON array of addresses in hexadecimal.
    safe_version        TEXT,
    safe_singleton      BYTEA,
    safe_owners         TEXT,
    safe_threshold      BIGINT,
    -- A Safe that became a wallet because one of its owners is registered.
    found_by_owner      BOOLEAN NOT NULL DEFAULT FALSE,
    created_at          BIGINT NOT NULL,
    updated_at          BIGINT NOT NULL
);
-- GET /v1/wallets, the newest first.
CREATE INDEX wallet_of_tenant ON wallet (tenant_id, id);
-- An address as a locator. Not by the tenant: to a planner that knows nothing this would lead to all its wallets as
-- well as wallet_of_tenant does.
CREATE INDEX wallet_by_address ON wallet (address);
-- An account's wallets: external:, email: and so on as locators.
CREATE INDEX wallet_of_account ON wallet (account_id, id) WHERE account_id IS NOT NULL;
-- clientReferenceId as a filter of the list.
CREATE INDEX wallet_by_reference ON wallet (tenant_id, client_reference_id)
    WHERE client_reference_id IS NOT NULL;

-- What events up to `until_position` of the tenant's feed say of a wallet, where it changed since: an event is the
-- same bytes whenever it is read.
CREATE TABLE wallet_past (
    wallet_no           BIGINT NOT NULL,
    until_position      BIGINT NOT NULL,
    account_id          UUID,
    client_reference_id TEXT,
    -- As in wallet, for a Safe that was found by its owner.
    safe_owners         TEXT,
    safe_threshold      BIGINT,
    CONSTRAINT wallet_past_key PRIMARY KEY (wallet_no, until_position)
);

-- The newest sequence of a wallet's events: they count from 1 without gaps. A table of its own, because every
-- event changes it, and a wallet's row is long.
CREATE TABLE wallet_sequence (
    wallet_no BIGINT NOT NULL PRIMARY KEY,
    sequence  BIGINT NOT NULL
);

-- The chains that were ever configured.
CREATE TABLE chain (
    no   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT NOT NULL CONSTRAINT chain_name_unique UNIQUE
);

-- A wish to watch a wallet's address on one chain, and how far it has come. The API writes wishes; only the
-- chain's own follower opens and closes watches, at a block boundary.
CREATE TABLE watch (
    chain_no       BIGINT NOT NULL REFERENCES chain (no),
    address        BYTEA NOT NULL,
    wallet_no      BIGINT NOT NULL REFERENCES wallet (no),
    tenant_no      BIGINT NOT NULL,
    -- 0 requested, 1 open, 2 closing, 3 closed.
    status         SMALLINT NOT NULL CONSTRAINT watch_status CHECK (status BETWEEN 0 AND 3),
    -- The first block's worth of history that counts, if more than the future was asked for.
    from_block     BIGINT,
    -- The block whose state was the opening balance; movements count from the next one.
    opened_number  BIGINT,
    opened_hash    BYTEA,
    -- Whether wallet.activated was told for it (a reorg can open a watch again).
    activated      BOOLEAN NOT NULL DEFAULT FALSE,
    -- Whether the history since from_block is in the transfers: null where none was asked for.
    history        TEXT CONSTRAINT watch_history CHECK (history IN ('wanted', 'complete', 'incomplete')),
    -- How it was or is looked for; null until somebody has begun.
    history_method TEXT CONSTRAINT watch_history_method CHECK (history_method IN ('blocks', 'logs', 'signatures')),
    -- The scan that it takes part in while it is looked for.
    scan_no        BIGINT,
    -- The height that it needs next, where it is ahead of its scan.
    scan_ahead     BIGINT,
    -- The first block from which on the transfers are all there, once its scan is over.
    covered_from   BIGINT,
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    -- Its first two columns are what a block's movements are looked up by. A follower that starts reads all
    -- addresses in this order: with the status, all that it reads stands in the index.
    CONSTRAINT watch_key PRIMARY KEY (chain_no, address, wallet_no) INCLUDE (status),
    CONSTRAINT watch_opened_at_a_block CHECK (status <> 1 OR opened_hash IS NOT NULL)
);
-- A wallet with its chains.
CREATE INDEX watch_of_wallet ON watch (wallet_no, chain_no);
-- What the follower has to open and close.
CREATE INDEX watch_to_do ON watch (chain_no, status, wallet_no) WHERE status IN (0, 2);
-- What a reorg takes back.
CREATE INDEX watch_opened ON watch (chain_no, opened_number) WHERE status = 1;
-- Histories that no scan looks for yet, or that are to be proven after theirs.
CREATE INDEX watch_history_wanted ON watch (chain_no, wallet_no)
    WHERE history = 'wanted' AND scan_no IS NULL AND status = 1;
-- Who takes part in a scan, and what ends with the next block.
CREATE INDEX watch_scan ON watch (scan_no, from_block) WHERE scan_no IS NOT NULL;
-- A tenant watches an address on a chain once: status 0 or 1. Also: which wallet that is. Written so that only a
-- statement with the same words uses it; to others it would seem to hold what they look for (registration::watched).
CREATE UNIQUE INDEX watch_once_per_tenant ON watch (tenant_no, chain_no, address) WHERE status & 2 = 0;

-- How many addresses of a tenant are watched or asked to be on a chain (watch.status 0 and 1), raised and
-- lowered in the transaction that changes that: counting takes seconds where they are millions.
CREATE TABLE watch_count (
    tenant_no BIGINT NOT NULL,
    chain_no  BIGINT NOT NULL REFERENCES chain (no),
    addresses BIGINT NOT NULL CONSTRAINT watch_count_not_negative CHECK (addresses >= 0),
    CONSTRAINT watch_count_key PRIMARY KEY (tenant_no, chain_no)
);

-- Histories of one tenant that need the same block next, going down. However many they are, one row moves them
-- all on.
CREATE TABLE history_scan (
    no          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain_no    BIGINT NOT NULL,
    tenant_no   BIGINT NOT NULL,
    method      TEXT NOT NULL CONSTRAINT history_scan_method CHECK (method IN ('blocks', 'logs', 'signatures')),
    -- The block that is looked at next; what lies above it is done.
    next_number BIGINT NOT NULL,
    next_hash   BYTEA NOT NULL,
    -- Whose history it is, where each is looked up by itself; else 0.
    wallet_no   BIGINT NOT NULL,
    CONSTRAINT history_scan_once UNIQUE (chain_no, tenant_no, method, next_number, next_hash, wallet_no)
);

-- One row per followed chain. A commit moves it only where it still is what the commit built upon.
CREATE TABLE chain_cursor (
    chain_no       BIGINT NOT NULL PRIMARY KEY REFERENCES chain (no),
    family         TEXT NOT NULL,
    -- CAIP-2: a database is never continued on another chain under the same name.
    caip2          TEXT NOT NULL,
    head_number    BIGINT NOT NULL,
    head_hash      BYTEA NOT NULL,
    head_time      BIGINT NOT NULL,
    settled_number BIGINT NOT NULL,
    settled_hash   BYTEA NOT NULL,
    settled_time   BIGINT NOT NULL,
    -- Why the chain stands still until a person acts.
    halted         TEXT,
    -- The settled block at which a person has accepted more differences from the chain's own figures than are
    -- believed: it counts until the next block settles.
    differences_accepted_at BIGINT,
    -- How many transfers and assets the chain has had: the numbers of the next ones are made of them.
    transfers      BIGINT NOT NULL DEFAULT 0,
    assets         BIGINT NOT NULL DEFAULT 0,
    -- The lease of the daemon that follows the chain, and its fencing number: a commit with an older one changes
    -- nothing.
    holder         TEXT,
    lease_until    BIGINT,
    epoch          BIGINT NOT NULL DEFAULT 0,
    updated_at     BIGINT NOT NULL,
    CONSTRAINT chain_settled_not_above_head CHECK (settled_number <= head_number)
);

-- The blocks that could still vanish, and a few below: what a reorg is found and undone with.
CREATE TABLE block (
    chain_no      BIGINT NOT NULL,
    number        BIGINT NOT NULL,
    hash          BYTEA NOT NULL,
    parent_number BIGINT NOT NULL,
    parent_hash   BYTEA NOT NULL,
    time          BIGINT NOT NULL,
    CONSTRAINT block_key PRIMARY KEY (chain_no, number)
);

CREATE TABLE asset (
    -- The chain's number in the bits above 32.
    no         BIGINT NOT NULL PRIMARY KEY,
    chain_no   BIGINT NOT NULL REFERENCES chain (no),
    asset      BYTEA NOT NULL,
    -- CAIP-19.
    caip19     TEXT NOT NULL,
    symbol     TEXT,
    name       TEXT,
    decimals   BIGINT,
    -- On the configured lists. Only verified assets are money; the others are only recorded.
    verified   BOOLEAN NOT NULL,
    -- While it begins to count on a chain with watches: it counts for the wallets up to opened_to, and for those
    -- behind listed_below, which began with it. Null: for all.
    listed_below BIGINT,
    opened_to    BIGINT,
    -- Set while the token is quarantined, because its figures cannot be booked: since when, the block that could
    -- not be booked, and why in a word.
    quarantined_at     BIGINT,
    quarantined_block  BIGINT,
    quarantined_reason TEXT CONSTRAINT asset_quarantine CHECK (quarantined_reason IN ('overflow', 'shortfall')),
    -- Counts what the configuration or a quarantine changed about it.
    version    BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT asset_unique UNIQUE (chain_no, asset),
    CONSTRAINT asset_verified_has_decimals CHECK (NOT verified OR decimals IS NOT NULL),
    CONSTRAINT asset_quarantined_is_not_verified CHECK (NOT verified OR quarantined_at IS NULL)
);
-- What is money, or was until it was quarantined: strangers make the other rows, without end.
CREATE INDEX asset_listed ON asset (chain_no, asset) WHERE verified OR quarantined_at IS NOT NULL;

-- Where an asset began to count for wallets that were there before it.
CREATE TABLE asset_opening (
    chain_no     BIGINT NOT NULL,
    asset_no     BIGINT NOT NULL,
    -- Behind wallet_from, up to wallet_to.
    wallet_from  BIGINT NOT NULL,
    wallet_to    BIGINT NOT NULL,
    block_number BIGINT NOT NULL,
    CONSTRAINT asset_opening_key PRIMARY KEY (chain_no, block_number, asset_no, wallet_to)
);

-- What events of earlier versions say of an asset.
CREATE TABLE asset_past (
    asset_no BIGINT NOT NULL,
    version  BIGINT NOT NULL,
    caip19   TEXT NOT NULL,
    symbol   TEXT,
    name     TEXT,
    decimals BIGINT,
    verified BOOLEAN NOT NULL,
    quarantined_at     BIGINT,
    quarantined_block  BIGINT,
    quarantined_reason TEXT,
    CONSTRAINT asset_past_key PRIMARY KEY (asset_no, version)
);

-- One connection of a movement to one wallet: what it moves never changes, how it stands does. A movement that
-- comes back in another block is another row with the same id.
--
-- That no movement counts twice is guarded by the cursor (each block is connected once, by its parent's hash) and
-- by `mark`: what a block may hold again is found by it before a row is written.
CREATE TABLE transfer (
    -- The chain's number in the bits above 44; below, in the order of booking.
    no           BIGINT NOT NULL PRIMARY KEY,
    id           UUID NOT NULL,
    -- The id without its time, while a block may hold the transfer again.
    mark         BIGINT,
    wallet_no    BIGINT NOT NULL,
    tenant_no    BIGINT NOT NULL,
    chain_no     BIGINT NOT NULL,
    asset_no     BIGINT NOT NULL,
    -- 0 settled, 1 pending, 2 orphaned, 3 orphaned and replaced by a later connection.
    status       SMALLINT NOT NULL CONSTRAINT transfer_status CHECK (status BETWEEN 0 AND 3),
    -- 0 in, 1 out.
    direction    SMALLINT NOT NULL CONSTRAINT transfer_direction CHECK (direction IN (0, 1)),
    -- 0 transfer, 1 internal, 2 fee, 3 withdrawal, 4 mint, 5 burn, 6 wrap, 7 unwrap, 8 reward, 9 opening,
    -- 10 adjustment.
    kind         SMALLINT NOT NULL CONSTRAINT transfer_kind CHECK (kind BETWEEN 0 AND 10),
    -- Verified asset, amount above zero: this transfer is in the balances.
    counted      BOOLEAN NOT NULL,
    -- How many times a block with the movement was connected, with this one.
    connection   BIGINT NOT NULL CONSTRAINT transfer_connected CHECK (connection > 0),
    amount       NUMERIC(78,0) NOT NULL,
    -- The other side; the wallet's own address is in its row.
    counterparty BYTEA,
    -- The transaction; the block's hash for what belongs to no transaction.
    tx           BYTEA NOT NULL,
    -- The place inside the transaction: a kind and numbers.
    ordinal      BYTEA NOT NULL,
    block_number BIGINT NOT NULL,
    block_hash   BYTEA NOT NULL,
    block_time   BIGINT NOT NULL,
    -- In a word, why a movement that no log explains was booked.
    reason       TEXT,
    -- What the sender wrote beside a payment; null without one.
    memo         TEXT,
    -- How many transfers of the transaction to and from the wallet, not counted either, have no row beside this one.
    omitted      BIGINT,
    seen_at      BIGINT NOT NULL,
    settled_at   BIGINT,
    orphaned_at  BIGINT
);
-- A wallet's history, by block time, in pages; whether a proof was booked before.
CREATE INDEX transfer_of_wallet ON transfer (wallet_no, id);
-- status=pending and status=orphaned as filters of the history.
CREATE INDEX transfer_unsettled ON transfer (wallet_no, id) WHERE status <> 0;
-- What settles next, and what a reorg takes back.
CREATE INDEX transfer_pending ON transfer (chain_no, block_number) WHERE status = 1;
-- Whether a movement was there before.
CREATE INDEX transfer_marked ON transfer (mark) WHERE mark IS NOT NULL AND status IN (1, 2);
-- The openings of a watch, and balances that are not finished.
CREATE INDEX transfer_opening ON transfer (wallet_no) WHERE kind = 9 AND status IN (0, 1);
-- Corrections that are not settled, status 1, in words that only their statement has (transfer::unfinished).
CREATE INDEX transfer_adjusting ON transfer (wallet_no) WHERE kind = 10 AND status & 3 = 1;
-- What is not in the balances, by its age: kept for a time.
CREATE INDEX transfer_worthless ON transfer (seen_at) WHERE NOT counted;

-- The ledger: only ever added to. The balance of a wallet is the sum of its entries.
CREATE TABLE entry (
    transfer_no BIGINT NOT NULL,
    -- 1 connect, 2 settle, 3 connect and settle in one commit, 4 disconnect, 5 disconnect what was settled.
    kind        SMALLINT NOT NULL CONSTRAINT entry_kind CHECK (kind BETWEEN 1 AND 5),
    amount      NUMERIC(78,0) NOT NULL,
    created_at  BIGINT NOT NULL,
    -- A transfer is one connection, and each thing happens to it once.
    CONSTRAINT entry_key PRIMARY KEY (transfer_no, kind)
);

CREATE TABLE balance (
    wallet_no    BIGINT NOT NULL,
    asset_no     BIGINT NOT NULL,
    settled      NUMERIC(78,0) NOT NULL,
    incoming     NUMERIC(78,0) NOT NULL,
    outgoing     NUMERIC(78,0) NOT NULL,
    -- The sum of the open holds.
    held         NUMERIC(78,0) NOT NULL,
    -- What of the balance the asset's issuer has frozen, as last read from the chain.
    frozen       NUMERIC(78,0) NOT NULL,
    -- Counts writes; a writer that read an older one writes nothing.
    version      BIGINT NOT NULL,
    block_number BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    CONSTRAINT balance_key PRIMARY KEY (wallet_no, asset_no)
);

CREATE TABLE hold (
    id          UUID NOT NULL PRIMARY KEY,
    wallet_no   BIGINT NOT NULL REFERENCES wallet (no),
    asset_no    BIGINT NOT NULL,
    amount      NUMERIC(78,0) NOT NULL,
    reason      TEXT,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    released_at BIGINT
);

CREATE TABLE safe_deployment (
    id            UUID NOT NULL PRIMARY KEY,
    tenant_id     UUID NOT NULL REFERENCES tenant (id),
    chain_no      BIGINT NOT NULL REFERENCES chain (no),
    tx            BYTEA NOT NULL,
    -- How it came to be tracked: its hash was given, or an owner is registered.
    found_by      TEXT NOT NULL CONSTRAINT safe_deployment_found_by CHECK (found_by IN ('hash', 'owner')),
    status        TEXT NOT NULL CONSTRAINT safe_deployment_status
        CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    reason        TEXT,
    address       BYTEA,
    wallet_id     UUID REFERENCES wallet (id),
    -- The owner's wallet whose account the Safe goes to, where an owner led to it.
    owner_wallet  UUID,
    version       TEXT,
    singleton     BYTEA,
    owners        TEXT NOT NULL DEFAULT '[]',
    threshold     BIGINT,
    block_number  BIGINT,
    block_hash    BYTEA,
    -- Whose nonce the transaction uses: when another transaction takes it, this one is replaced.
    sender        BYTEA,
    nonce         BIGINT,
    -- When the node was first found not to know the transaction any more.
    missing_since BIGINT,
    -- When a node is asked for it next, while it is not decided; never by itself (2^63 - 1) while its block is not
    -- settled. And how often it was asked for in vain.
    look_at       BIGINT NOT NULL,
    looks         BIGINT NOT NULL DEFAULT 0,
    -- Counts writes; a writer that read an older one writes nothing.
    revision      BIGINT NOT NULL DEFAULT 0,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL
);
-- GET /v1/safe-deployments, the newest first.
CREATE INDEX safe_deployment_of_tenant ON safe_deployment (tenant_id, id);
-- Whether a transaction is tracked already.
CREATE INDEX safe_deployment_by_tx ON safe_deployment (tx, chain_no);
-- What the follower has to look for, tenant by tenant; how many of them are not decided.
CREATE INDEX safe_deployment_due ON safe_deployment (chain_no, tenant_id, look_at)
    WHERE status IN ('pending', 'processing');
-- How many one owner has led to.
CREATE INDEX safe_deployment_by_owner ON safe_deployment (chain_no, owner_wallet) WHERE found_by = 'owner';
-- Which transactions are to be noticed in a block.
CREATE INDEX safe_deployment_pending ON safe_deployment (chain_no, created_at, id) WHERE status = 'pending';
-- What settles with a block, and what a reorg takes back.
CREATE INDEX safe_deployment_in_block ON safe_deployment (chain_no, block_number) WHERE status = 'processing';
-- How far a Safe's deployment is, beside its wallet.
CREATE INDEX safe_deployment_of_wallet ON safe_deployment (wallet_id) WHERE wallet_id IS NOT NULL;

-- Safes that a known factory made in a block and that somebody waits for, until the chain's state is read.
CREATE TABLE safe_candidate (
    chain_no     BIGINT NOT NULL,
    block_number BIGINT NOT NULL,
    -- Its place among those of its block.
    place        BIGINT NOT NULL,
    block_hash   BYTEA NOT NULL,
    block_time   BIGINT NOT NULL,
    tx           BYTEA NOT NULL,
    address      BYTEA NOT NULL,
    factory      BYTEA NOT NULL,
    -- What it was set up with, as its logs claim: a JSON array of addresses in hexadecimal; and whether they show
    -- that nothing but Safe's own code ran.
    owners       TEXT NOT NULL,
    plain        BOOLEAN NOT NULL,
    -- When a node is asked next, and how often it was asked in vain.
    look_at      BIGINT NOT NULL,
    looks        BIGINT NOT NULL DEFAULT 0,
    CONSTRAINT safe_candidate_key PRIMARY KEY (chain_no, block_number, place)
);
-- What is judged next.
CREATE INDEX safe_candidate_due ON safe_candidate (chain_no, look_at);

-- Transactions that a tenant watches or had broadcast.
CREATE TABLE watched_transaction (
    id           UUID NOT NULL PRIMARY KEY,
    tenant_id    UUID NOT NULL REFERENCES tenant (id),
    chain_no     BIGINT NOT NULL REFERENCES chain (no),
    tx           BYTEA NOT NULL,
    status       TEXT NOT NULL CONSTRAINT watched_transaction_status
        CHECK (status IN ('pending', 'success', 'failed', 'dropped', 'replaced')),
    raw          BYTEA,
    sender       BYTEA,
    nonce        BIGINT,
    block_number BIGINT,
    block_hash   BYTEA,
    settled_at   BIGINT,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL
);
-- What the follower has to look for.
CREATE INDEX watched_transaction_open ON watched_transaction (chain_no, status);
-- A tenant watches a transaction once.
CREATE UNIQUE INDEX watched_transaction_once ON watched_transaction (tenant_id, chain_no, tx);

-- Proofs that somebody controls an address.
CREATE TABLE ownership_challenge (
    id          UUID NOT NULL PRIMARY KEY,
    tenant_id   UUID NOT NULL REFERENCES tenant (id),
    -- The name that the message shows.
    chain       TEXT NOT NULL,
    family      TEXT NOT NULL,
    address     BYTEA NOT NULL,
    -- What is to be signed, byte for byte.
    message     TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    -- The first millisecond in which it is too late.
    expires_at  BIGINT NOT NULL,
    -- When its one use was; null until then.
    verified_at BIGINT,
    CONSTRAINT ownership_challenge_lives CHECK (expires_at > created_at),
    CONSTRAINT ownership_challenge_verified_in_time CHECK (verified_at IS NULL OR verified_at < expires_at)
);
-- Challenges that were never met, to delete them (retention::delete_expired).
CREATE INDEX ownership_challenge_open ON ownership_challenge (expires_at) WHERE verified_at IS NULL;

-- Prices in USD as decimal text, newest per asset.
CREATE TABLE price (
    asset_no   BIGINT NOT NULL PRIMARY KEY,
    usd        TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- What happened, immutable, written in the transaction of what it tells, and as facts: its JSON is made of them
-- when it is read.
--
-- Positions are the feed's counter in the tenant's row, and sequences the one in wallet_sequence; both are
-- raised under that row's lock, which is what keeps them without gaps and unique.
CREATE TABLE event (
    tenant_no     BIGINT NOT NULL,
    -- Of its last event: two events that one commit tells of one transfer share a row.
    position      BIGINT NOT NULL,
    -- 1, or 2: the event of `kind`, and the one that tells that the same transfer settled.
    events        SMALLINT NOT NULL CONSTRAINT event_events CHECK (events IN (1, 2)),
    -- The type of the first, see EventType::code.
    kind          SMALLINT NOT NULL,
    wallet_no     BIGINT,
    -- Of its last event; counts a wallet's events from 1 without gaps.
    sequence      BIGINT,
    -- The time in front of its id: the block's for what a block tells.
    time          BIGINT NOT NULL,
    -- The transfer that it tells of, and how that stood, as in transfer.status.
    transfer_no   BIGINT,
    status        SMALLINT,
    -- The balance after all of the transfer's block; null is zero.
    settled       NUMERIC(78,0),
    incoming      NUMERIC(78,0),
    outgoing      NUMERIC(78,0),
    -- What of the balance could not be spent; null is zero.
    locked        NUMERIC(78,0),
    -- The newest applied block, from which confirmations are counted.
    head_number   BIGINT,
    asset_version BIGINT,
    -- What tells of no transfer: its id, and its data as JSON.
    id            UUID,
    data          TEXT,
    created_at    BIGINT NOT NULL,
    CONSTRAINT event_key PRIMARY KEY (tenant_no, position)
);
-- The position of an event that a consumer names: its id begins with this time.
CREATE INDEX event_by_time ON event (tenant_no, time);
-- The events of a span of time, to be sent again (feed::between).
CREATE INDEX event_by_creation ON event (tenant_no, created_at);

CREATE TABLE webhook_endpoint (
    id              UUID NOT NULL PRIMARY KEY,
    tenant_id       UUID NOT NULL REFERENCES tenant (id),
    url             TEXT NOT NULL,
    -- JSON array of patterns: deposit.*, safe_deployment.completed, *.
    events          TEXT NOT NULL,
    description     TEXT,
    -- One delivery at a time per wallet, in the order of its events.
    ordered         BOOLEAN NOT NULL DEFAULT FALSE,
    -- Since when every attempt has failed.
    failing_since   BIGINT,
    disabled_at     BIGINT,
    disabled_reason TEXT,
    deleted_at      BIGINT,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL
);
-- GET /v1/webhook-endpoints; who takes an event.
CREATE INDEX webhook_endpoint_of_tenant ON webhook_endpoint (tenant_id, id);

-- Several are valid while one is rotated. Stored as they are: they sign, they cannot be hashed.
CREATE TABLE webhook_secret (
    endpoint_id UUID NOT NULL REFERENCES webhook_endpoint (id),
    secret      TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    CONSTRAINT webhook_secret_key PRIMARY KEY (endpoint_id, secret)
);
-- Secrets that were rotated out, to delete them (retention::delete_expired).
CREATE INDEX webhook_secret_expiring ON webhook_secret (expires_at) WHERE expires_at IS NOT NULL;

-- One event on its way to one endpoint: the outbox, written with the event.
CREATE TABLE delivery (
    id              UUID NOT NULL PRIMARY KEY,
    endpoint_id     UUID NOT NULL REFERENCES webhook_endpoint (id),
    tenant_id       UUID NOT NULL,
    -- The event's position in the tenant's feed.
    event_position  BIGINT NOT NULL,
    wallet_no       BIGINT,
    status          TEXT NOT NULL
        CONSTRAINT delivery_status CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts        BIGINT NOT NULL DEFAULT 0,
    next_attempt_at BIGINT NOT NULL,
    -- Who is sending it now, and until when nobody else may.
    lease_token     UUID,
    lease_until     BIGINT,
    created_at      BIGINT NOT NULL,
    finished_at     BIGINT
);
-- When the next delivery will be due (delivery::next_due); how many wait, and since when.
CREATE INDEX delivery_due ON delivery (next_attempt_at, id, created_at) WHERE status = 'pending';
-- What one endpoint is due, however much waits at the others (delivery::claim).
CREATE INDEX delivery_due_of_endpoint ON delivery (endpoint_id, next_attempt_at, id) WHERE status = 'pending';
-- An endpoint's deliveries, newest first (delivery::list).
CREATE INDEX delivery_of_endpoint ON delivery (endpoint_id, id);
-- Whether an earlier event of a wallet waits at an ordered endpoint (delivery::claim).
CREATE INDEX delivery_in_order ON delivery (endpoint_id, wallet_no, event_position) WHERE status = 'pending';
-- The oldest event that a delivery waits for: it and what follows is not deleted (retention::feed_page).
CREATE INDEX delivery_waiting_event ON delivery (tenant_id, event_position) WHERE status = 'pending';

CREATE TABLE delivery_attempt (
    delivery_id UUID NOT NULL REFERENCES delivery (id),
    attempt     BIGINT NOT NULL,
    started_at  BIGINT NOT NULL,
    latency_ms  BIGINT NOT NULL,
    status_code BIGINT,
    error       TEXT,
    CONSTRAINT delivery_attempt_key PRIMARY KEY (delivery_id, attempt)
);

-- The first answer to a POST, given again to whoever repeats it with the same key and body.
CREATE TABLE idempotency_key (
    tenant_id    UUID NOT NULL,
    key          TEXT NOT NULL,
    request_hash BYTEA NOT NULL,
    status       INTEGER NOT NULL,
    body         TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    CONSTRAINT idempotency_key_key PRIMARY KEY (tenant_id, key)
);
-- Answers past their time, to delete them (retention::delete_expired).
CREATE INDEX idempotency_key_age ON idempotency_key (created_at);
