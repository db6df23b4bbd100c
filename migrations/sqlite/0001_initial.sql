-- Tidemark's schema on SQLite. migrations/postgres holds the same tables with that engine's types.
--
-- Conventions: ids are UUIDv7 (16 bytes, time-ordered, made by the daemon); times are milliseconds since the
-- Unix epoch; amounts are 32 bytes, big endian, so that they sort as numbers; addresses, hashes and assets are
-- raw bytes (an asset is empty for the native coin, else the contract); keys begin with the tenant, the wallet
-- or the chain, which is what a distributed engine would shard by.

CREATE TABLE tenant (
    id            BLOB    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL CONSTRAINT tenant_name_unique UNIQUE,
    -- The position of the tenant's newest event. Whoever appends events holds this row's lock until commit,
    -- so positions appear in commit order and without gaps.
    feed_position INTEGER  NOT NULL DEFAULT 0,
    created_at    INTEGER  NOT NULL
) STRICT;

CREATE TABLE api_key (
    id         BLOB   NOT NULL PRIMARY KEY,
    tenant_id  BLOB   NOT NULL REFERENCES tenant (id),
    -- SHA-256 of the key. The key itself is shown once and never stored.
    hash       BLOB   NOT NULL CONSTRAINT api_key_hash_unique UNIQUE,
    -- Space-separated: wallets:read wallets:write webhooks:write admin.
    scopes     TEXT   NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE TABLE account (
    id          BLOB   NOT NULL PRIMARY KEY,
    tenant_id   BLOB   NOT NULL REFERENCES tenant (id),
    external_id TEXT,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    CONSTRAINT account_external_id_unique UNIQUE (tenant_id, external_id)
) STRICT;

-- email:, userId:, phoneNumber:, x: — one account each.
CREATE TABLE account_locator (
    tenant_id  BLOB NOT NULL,
    kind       TEXT NOT NULL,
    value      TEXT NOT NULL,
    account_id BLOB NOT NULL REFERENCES account (id),
    CONSTRAINT account_locator_key PRIMARY KEY (tenant_id, kind, value)
) STRICT;

CREATE TABLE wallet (
    id                  BLOB    NOT NULL PRIMARY KEY,
    tenant_id           BLOB    NOT NULL REFERENCES tenant (id),
    account_id          BLOB    REFERENCES account (id),
    family              TEXT    NOT NULL,
    address             BLOB    NOT NULL,
    kind                TEXT    NOT NULL CONSTRAINT wallet_kind CHECK (kind IN ('eoa', 'safe', 'contract')),
    client_reference_id TEXT,
    nickname            TEXT,
    is_primary          INTEGER NOT NULL DEFAULT FALSE,
    -- The newest event's sequence; counts a wallet's events from 1 without gaps.
    event_sequence      INTEGER  NOT NULL DEFAULT 0,
    -- Set while the wallet is disabled: it is still watched, late deposits count and say so.
    disabled_at         INTEGER,
    rotated_at          INTEGER,
    replaced_by         BLOB,
    -- Set when the tenant deleted it: no longer shown, no longer watched.
    deleted_at          INTEGER,
    -- The Safe's facts as last proven; all null for other kinds. Owners: a JSON array of addresses in hexadecimal.
    safe_version        TEXT,
    safe_singleton      BLOB,
    safe_owners         TEXT,
    safe_threshold      INTEGER,
    created_at          INTEGER  NOT NULL,
    updated_at          INTEGER  NOT NULL
) STRICT;
CREATE INDEX wallet_of_tenant ON wallet (tenant_id, id);
CREATE INDEX wallet_by_address ON wallet (tenant_id, address);
CREATE INDEX wallet_of_account ON wallet (account_id, id);

-- A wish to watch a wallet's address on one chain, and how far it has come. The API writes wishes; only the
-- chain's own follower opens and closes watches, at a block boundary.
CREATE TABLE watch (
    chain         TEXT   NOT NULL,
    address       BLOB   NOT NULL,
    wallet_id     BLOB   NOT NULL REFERENCES wallet (id),
    tenant_id     BLOB   NOT NULL,
    status        TEXT   NOT NULL
        CONSTRAINT watch_status CHECK (status IN ('requested', 'open', 'closing', 'closed')),
    -- The first block's worth of history that counts, if more than the future was asked for.
    from_block    INTEGER,
    -- The block whose state was the opening balance; movements count from the next one.
    opened_number INTEGER,
    opened_hash   BLOB,
    -- Whether wallet.activated was told for it (a reorg can open a watch again).
    activated     INTEGER NOT NULL DEFAULT FALSE,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    CONSTRAINT watch_key PRIMARY KEY (chain, address, wallet_id),
    CONSTRAINT watch_opened_at_a_block CHECK (status <> 'open' OR opened_hash IS NOT NULL)
) STRICT;
CREATE INDEX watch_of_wallet ON watch (wallet_id, chain);
CREATE INDEX watch_to_do ON watch (chain, status) WHERE status IN ('requested', 'closing');
CREATE INDEX watch_opened ON watch (chain, opened_number) WHERE status = 'open';
CREATE UNIQUE INDEX watch_once_per_tenant ON watch (tenant_id, chain, address)
    WHERE status IN ('requested', 'open');

-- One row per followed chain. A commit moves it only where it still is what the commit built upon.
CREATE TABLE chain_cursor (
    chain          TEXT   NOT NULL PRIMARY KEY,
    family         TEXT   NOT NULL,
    -- CAIP-2: a database is never continued on another chain under the same name.
    caip2          TEXT   NOT NULL,
    head_number    INTEGER NOT NULL,
    head_hash      BLOB   NOT NULL,
    head_time      INTEGER NOT NULL,
    settled_number INTEGER NOT NULL,
    settled_hash   BLOB   NOT NULL,
    settled_time   INTEGER NOT NULL,
    -- Why the chain stands still until a person acts.
    halted         TEXT,
    -- The lease of the daemon that follows the chain, and its fencing number.
    holder         TEXT,
    lease_until    INTEGER,
    epoch          INTEGER NOT NULL DEFAULT 0,
    updated_at     INTEGER NOT NULL,
    CONSTRAINT chain_settled_not_above_head CHECK (settled_number <= head_number)
) STRICT;

-- The blocks that could still vanish, and a few below: what a reorg is found and undone with.
CREATE TABLE block (
    chain         TEXT   NOT NULL,
    number        INTEGER NOT NULL,
    hash          BLOB   NOT NULL,
    parent_number INTEGER NOT NULL,
    parent_hash   BLOB   NOT NULL,
    time          INTEGER NOT NULL,
    CONSTRAINT block_key PRIMARY KEY (chain, number)
) STRICT;

CREATE TABLE asset (
    chain      TEXT    NOT NULL,
    asset      BLOB    NOT NULL,
    -- CAIP-19.
    caip19     TEXT    NOT NULL,
    symbol     TEXT,
    name       TEXT,
    decimals   INTEGER,
    -- On the configured lists. Only verified assets are money; the others are only recorded.
    verified   INTEGER NOT NULL,
    created_at INTEGER  NOT NULL,
    updated_at INTEGER  NOT NULL,
    CONSTRAINT asset_key PRIMARY KEY (chain, asset),
    CONSTRAINT asset_verified_has_decimals CHECK (NOT verified OR decimals IS NOT NULL)
) STRICT;

-- One movement as one wallet sees it, as it stands now. Its history is in `entry`.
CREATE TABLE transfer (
    id           BLOB    NOT NULL,
    wallet_id    BLOB    NOT NULL REFERENCES wallet (id),
    tenant_id    BLOB    NOT NULL,
    chain        TEXT    NOT NULL,
    -- The transaction; the block's hash for what belongs to no transaction.
    tx           BLOB    NOT NULL,
    ordinal      TEXT    NOT NULL,
    direction    TEXT    NOT NULL CONSTRAINT transfer_direction CHECK (direction IN ('in', 'out')),
    asset        BLOB    NOT NULL,
    kind         TEXT    NOT NULL,
    status       TEXT    NOT NULL
        CONSTRAINT transfer_status CHECK (status IN ('pending', 'settled', 'orphaned')),
    amount       BLOB    NOT NULL CHECK (length(amount) = 32),
    from_address BLOB,
    to_address   BLOB,
    -- Verified asset, amount above zero: this transfer is in the balances.
    counted      INTEGER NOT NULL,
    block_number INTEGER  NOT NULL,
    block_hash   BLOB    NOT NULL,
    block_time   INTEGER  NOT NULL,
    -- How many times a block with it was connected.
    connections  INTEGER  NOT NULL CONSTRAINT transfer_connected CHECK (connections > 0),
    -- In a word, why a movement that no log explains was booked.
    reason       TEXT,
    seen_at      INTEGER  NOT NULL,
    settled_at   INTEGER,
    orphaned_at  INTEGER,
    CONSTRAINT transfer_key PRIMARY KEY (wallet_id, id)
) STRICT, WITHOUT ROWID;
-- What makes a movement one and the same for ever, whichever block holds it.
CREATE UNIQUE INDEX transfer_once ON transfer (wallet_id, chain, tx, ordinal, direction, asset);
CREATE INDEX transfer_of_asset ON transfer (wallet_id, chain, asset, id);
-- What settles next, and what a reorg takes back.
CREATE INDEX transfer_open ON transfer (chain, block_number) WHERE status = 'pending';

-- The ledger: one row per effect, only ever added. The balance of a wallet is the sum of its entries.
CREATE TABLE entry (
    wallet_id    BLOB    NOT NULL,
    chain        TEXT    NOT NULL,
    asset        BLOB    NOT NULL,
    transfer_id  BLOB    NOT NULL,
    -- Which connection of the transfer this belongs to, from 1: the same block can come, go and come again.
    connection   INTEGER  NOT NULL,
    effect       TEXT    NOT NULL
        CONSTRAINT entry_effect CHECK (effect IN ('connect', 'disconnect', 'settle', 'unsettle')),
    direction    TEXT    NOT NULL CONSTRAINT entry_direction CHECK (direction IN ('in', 'out')),
    amount       BLOB    NOT NULL CHECK (length(amount) = 32),
    block_number INTEGER  NOT NULL,
    block_hash   BLOB    NOT NULL,
    created_at   INTEGER  NOT NULL,
    CONSTRAINT entry_key PRIMARY KEY (wallet_id, chain, asset, transfer_id, connection, effect)
) STRICT, WITHOUT ROWID;

CREATE TABLE balance (
    wallet_id    BLOB    NOT NULL,
    chain        TEXT    NOT NULL,
    asset        BLOB    NOT NULL,
    settled      BLOB    NOT NULL CHECK (length(settled) = 32),
    incoming     BLOB    NOT NULL CHECK (length(incoming) = 32),
    outgoing     BLOB    NOT NULL CHECK (length(outgoing) = 32),
    -- The sum of the open holds.
    held         BLOB    NOT NULL CHECK (length(held) = 32),
    -- Counts writes; a writer that read an older one writes nothing.
    version      INTEGER  NOT NULL,
    block_number INTEGER  NOT NULL,
    updated_at   INTEGER  NOT NULL,
    CONSTRAINT balance_key PRIMARY KEY (wallet_id, chain, asset)
) STRICT, WITHOUT ROWID;

CREATE TABLE hold (
    id          BLOB    NOT NULL,
    wallet_id   BLOB    NOT NULL REFERENCES wallet (id),
    tenant_id   BLOB    NOT NULL,
    chain       TEXT    NOT NULL,
    asset       BLOB    NOT NULL,
    amount      BLOB    NOT NULL CHECK (length(amount) = 32),
    reason      TEXT,
    created_at  INTEGER  NOT NULL,
    expires_at  INTEGER,
    released_at INTEGER,
    CONSTRAINT hold_key PRIMARY KEY (wallet_id, id)
) STRICT;

CREATE TABLE safe_deployment (
    id           BLOB   NOT NULL PRIMARY KEY,
    tenant_id    BLOB   NOT NULL REFERENCES tenant (id),
    chain        TEXT   NOT NULL,
    tx           BLOB   NOT NULL,
    -- How it came to be tracked: its hash was given, or an owner is registered.
    found_by     TEXT   NOT NULL CONSTRAINT safe_deployment_found_by CHECK (found_by IN ('hash', 'owner')),
    status       TEXT   NOT NULL CONSTRAINT safe_deployment_status
        CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    reason       TEXT,
    address      BLOB,
    wallet_id    BLOB   REFERENCES wallet (id),
    -- The owner's wallet whose account the Safe goes to, where an owner led to it.
    owner_wallet BLOB,
    version      TEXT,
    singleton    BLOB,
    owners       TEXT   NOT NULL DEFAULT '[]',
    threshold    INTEGER,
    block_number INTEGER,
    block_hash   BLOB,
    -- Whose nonce the transaction uses: when another transaction takes it, this one is replaced.
    sender       BLOB,
    nonce        INTEGER,
    -- When the node was first found not to know the transaction any more.
    missing_since INTEGER,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX safe_deployment_of_tenant ON safe_deployment (tenant_id, id);
CREATE INDEX safe_deployment_by_tx ON safe_deployment (tenant_id, chain, tx);
CREATE INDEX safe_deployment_open ON safe_deployment (chain, status) WHERE status IN ('pending', 'processing');

-- Transactions that a tenant watches or had broadcast.
CREATE TABLE watched_transaction (
    id           BLOB   NOT NULL PRIMARY KEY,
    tenant_id    BLOB   NOT NULL REFERENCES tenant (id),
    chain        TEXT   NOT NULL,
    tx           BLOB   NOT NULL,
    status       TEXT   NOT NULL CONSTRAINT watched_transaction_status
        CHECK (status IN ('pending', 'success', 'failed', 'dropped', 'replaced')),
    raw          BLOB,
    sender       BLOB,
    nonce        INTEGER,
    block_number INTEGER,
    block_hash   BLOB,
    settled_at   INTEGER,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX watched_transaction_open ON watched_transaction (chain, status);
CREATE UNIQUE INDEX watched_transaction_once ON watched_transaction (tenant_id, chain, tx);

CREATE TABLE ownership_challenge (
    id          BLOB   NOT NULL PRIMARY KEY,
    tenant_id   BLOB   NOT NULL REFERENCES tenant (id),
    family      TEXT   NOT NULL,
    address     BLOB   NOT NULL,
    message     TEXT   NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    verified_at INTEGER
) STRICT;

-- Prices in USD as decimal text, newest per asset.
CREATE TABLE price (
    chain      TEXT   NOT NULL,
    asset      BLOB   NOT NULL,
    usd        TEXT   NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT price_key PRIMARY KEY (chain, asset)
) STRICT;

-- What happened, immutable. Written in the transaction of what it tells.
CREATE TABLE event (
    tenant_id  BLOB   NOT NULL,
    position   INTEGER NOT NULL,
    id         BLOB   NOT NULL CONSTRAINT event_id_unique UNIQUE,
    type       TEXT   NOT NULL,
    wallet_id  BLOB,
    sequence   INTEGER,
    -- The whole JSON body that consumers get.
    body       TEXT   NOT NULL,
    created_at INTEGER NOT NULL,
    CONSTRAINT event_key PRIMARY KEY (tenant_id, position),
    CONSTRAINT event_sequence_unique UNIQUE (wallet_id, sequence)
) STRICT;

CREATE TABLE webhook_endpoint (
    id              BLOB    NOT NULL PRIMARY KEY,
    tenant_id       BLOB    NOT NULL REFERENCES tenant (id),
    url             TEXT    NOT NULL,
    -- JSON array of patterns: deposit.*, safe_deployment.completed, *.
    events          TEXT    NOT NULL,
    description     TEXT,
    -- One delivery at a time per wallet, in the order of its events.
    ordered         INTEGER NOT NULL DEFAULT FALSE,
    -- Since when every attempt has failed.
    failing_since   INTEGER,
    disabled_at     INTEGER,
    disabled_reason TEXT,
    deleted_at      INTEGER,
    created_at      INTEGER  NOT NULL,
    updated_at      INTEGER  NOT NULL
) STRICT;
CREATE INDEX webhook_endpoint_of_tenant ON webhook_endpoint (tenant_id, id);

-- Several are valid while one is rotated. Stored as they are: they sign, they cannot be hashed.
CREATE TABLE webhook_secret (
    endpoint_id BLOB   NOT NULL REFERENCES webhook_endpoint (id),
    secret      TEXT   NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    CONSTRAINT webhook_secret_key PRIMARY KEY (endpoint_id, secret)
) STRICT;

-- One event on its way to one endpoint: the outbox, written with the event.
CREATE TABLE delivery (
    id              BLOB   NOT NULL PRIMARY KEY,
    endpoint_id     BLOB   NOT NULL REFERENCES webhook_endpoint (id),
    tenant_id       BLOB   NOT NULL,
    event_id        BLOB   NOT NULL,
    wallet_id       BLOB,
    sequence        INTEGER,
    status          TEXT   NOT NULL
        CONSTRAINT delivery_status CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,
    -- Who is sending it now, and until when nobody else may.
    lease_token     BLOB,
    lease_until     INTEGER,
    created_at      INTEGER NOT NULL,
    finished_at     INTEGER
) STRICT;
CREATE INDEX delivery_due ON delivery (next_attempt_at, id) WHERE status = 'pending';
-- What one endpoint is due, however much waits at the others.
CREATE INDEX delivery_due_of_endpoint ON delivery (endpoint_id, next_attempt_at, id) WHERE status = 'pending';
CREATE INDEX delivery_of_endpoint ON delivery (endpoint_id, id);
CREATE INDEX delivery_in_order ON delivery (endpoint_id, wallet_id, sequence) WHERE status = 'pending';

CREATE TABLE delivery_attempt (
    delivery_id BLOB   NOT NULL REFERENCES delivery (id),
    attempt     INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    latency_ms  INTEGER NOT NULL,
    status_code INTEGER,
    error       TEXT,
    CONSTRAINT delivery_attempt_key PRIMARY KEY (delivery_id, attempt)
) STRICT;

-- The first answer to a POST, given again to whoever repeats it with the same key and body.
CREATE TABLE idempotency_key (
    tenant_id    BLOB    NOT NULL,
    key          TEXT    NOT NULL,
    request_hash BLOB    NOT NULL,
    status       INTEGER NOT NULL,
    body         TEXT    NOT NULL,
    created_at   INTEGER  NOT NULL,
    CONSTRAINT idempotency_key_key PRIMARY KEY (tenant_id, key)
) STRICT;
CREATE INDEX idempotency_key_age ON idempotency_key (created_at);
