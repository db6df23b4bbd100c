-- 5,000 wallets of 10 tenants on 2 chains with 20,000 transfers, and what belongs to them. Little of it is open,
-- as in a store that has worked for a while.
--
-- For both engines: u makes a UUID of a number, b bytes of a number and a length, and m an amount.

CREATE TEMPORARY TABLE count (n BIGINT);
INSERT INTO count WITH RECURSIVE up (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < 20000) SELECT n FROM up;

INSERT INTO tenant (no, id, name, feed_position, created_at) OVERRIDING SYSTEM VALUE
    SELECT n, u(n), 'tenant ' || n, 2000, 0 FROM count WHERE n <= 10;
INSERT INTO chain (no, name) OVERRIDING SYSTEM VALUE VALUES (1, 'a'), (2, 'b');
INSERT INTO chain_cursor (chain_no, family, caip2, head_number, head_hash, head_time, settled_number, settled_hash,
                          settled_time, updated_at)
    SELECT n, 'evm', 'eip155:' || n, 5000, b(5000, 32), 0, 4990, b(4990, 32), 0, 0 FROM count WHERE n <= 2;
INSERT INTO asset (no, chain_no, asset, caip19, decimals, verified, created_at, updated_at)
    SELECT (n % 2 + 1) << 32 | n / 2, n % 2 + 1, b(n, 20), 'a' || n, 18, TRUE, 0, 0 FROM count WHERE n <= 20;
INSERT INTO account (id, tenant_id, external_id, created_at, updated_at)
    SELECT u(n), u(n % 10 + 1), 'user ' || n, 0, 0 FROM count WHERE n <= 5000;
INSERT INTO account_locator (tenant_id, kind, value, account_id)
    SELECT u(n % 10 + 1), 'userId', 'user ' || n, u(n) FROM count WHERE n <= 5000;
INSERT INTO wallet (no, id, tenant_id, account_id, family, address, kind, client_reference_id, is_primary,
                    created_at, updated_at) OVERRIDING SYSTEM VALUE
    SELECT n, u(n), u(n % 10 + 1), u(n), 'evm', b(n, 20), 'eoa', 'reference ' || n, n % 4 = 0, 0, 0
    FROM count WHERE n <= 5000;
INSERT INTO wallet_past (wallet_no, until_position) SELECT n, 1 FROM count WHERE n <= 5000;
INSERT INTO wallet_sequence (wallet_no, sequence) SELECT n, 4 FROM count WHERE n <= 5000;
-- The last thousand have just been imported. One in a hundred is requested or closing, one in a hundred has a
-- history that nobody looks for yet, one in twenty takes part in a scan.
INSERT INTO watch (chain_no, address, wallet_no, tenant_no, status, from_block, opened_number, opened_hash,
                   history, scan_no, created_at, updated_at)
    SELECT n % 2 + 1, b(n, 20), n, n % 10 + 1,
           CASE WHEN n > 4000 OR n % 100 = 0 THEN 0 WHEN n % 100 = 50 THEN 2 ELSE 1 END, n, n, b(n, 32),
           CASE WHEN n % 100 = 1 OR n % 20 = 2 THEN 'wanted' ELSE 'complete' END,
           CASE WHEN n % 20 = 2 THEN n % 10 END, 0, 0
    FROM count WHERE n <= 5000;
INSERT INTO watch_count (tenant_no, chain_no, addresses)
    SELECT tenant_no, chain_no, COUNT(*) FROM watch WHERE status IN (0, 1) GROUP BY tenant_no, chain_no;
INSERT INTO history_scan (chain_no, tenant_no, method, next_number, next_hash, wallet_no)
    SELECT n % 2 + 1, n, 'blocks', n, b(n, 32), 0 FROM count WHERE n <= 10;
INSERT INTO block (chain_no, number, hash, parent_number, parent_hash, time)
    SELECT 1, n, b(n, 32), n - 1, b(n - 1, 32), n FROM count WHERE n <= 5000 AND n >= 4900;
-- The last hundred blocks are not settled, and one transfer in a hundred was orphaned.
INSERT INTO transfer (no, id, mark, wallet_no, tenant_no, chain_no, asset_no, status, direction, kind, counted,
                      connection, amount, tx, ordinal, block_number, block_hash, block_time, seen_at)
    SELECT (n % 2 + 1) << 44 | n, u(n), CASE WHEN n % 100 = 0 OR n > 19600 THEN n * 1000003 END, (n - 1) % 5000 + 1,
           n % 10 + 1, n % 2 + 1, (n % 2 + 1) << 32 | n % 10 + 1,
           CASE WHEN n > 19600 THEN 1 WHEN n % 100 = 0 THEN 2 ELSE 0 END, n % 2,
           CASE n % 50 WHEN 7 THEN 9 WHEN 8 THEN 10 ELSE 0 END, TRUE, 1, m(n), b(n, 32), b(0, 1), n / 4, b(n / 4, 32),
           n, n
    FROM count WHERE n <= 20000;
-- Four transfers a commit; the last thousand of them settled in commits of their own.
INSERT INTO entry (transfer_no, kind, amount, created_at, commit_no)
    SELECT no, CASE WHEN no % 20000 > 18600 AND status = 0 THEN 1 ELSE 3 END, amount, 0, block_number + 1
    FROM transfer;
INSERT INTO entry (transfer_no, kind, amount, created_at, commit_no)
    SELECT no, 2, amount, 0, block_number + 3 FROM transfer WHERE no % 20000 > 18600 AND status = 0;
INSERT INTO journal (chain_no, commit_no, kind, head_number, head_hash, settled_number, settled_hash, transfers,
                     entries, hash, created_at)
    SELECT n % 2 + 1, n / 2 + 1, 1, n, b(n, 32), n, b(n, 32), 2 * n, 4, b(n, 32), n FROM count WHERE n <= 10000;
INSERT INTO balance (wallet_no, asset_no, settled, incoming, outgoing, held, frozen, version, block_number, updated_at)
    SELECT n, (n % 2 + 1) << 32 | n % 10 + 1, m(n), m(0), m(0), m(0), m(0), 1, n, 0 FROM count WHERE n <= 5000;
INSERT INTO event (tenant_no, position, events, kind, wallet_no, sequence, time, transfer_no, status, settled,
                   incoming, outgoing, locked, head_number, asset_version, created_at)
    SELECT n % 10 + 1, n / 10, 1, n % 5 + 1, (n - 1) % 5000 + 1, n / 5000, n, (n % 2 + 1) << 44 | n, 0, m(n), m(0),
           m(0), m(0), n, 0, n
    FROM count WHERE n <= 20000;
INSERT INTO safe_deployment (id, tenant_id, chain_no, tx, found_by, status, wallet_id, block_number, look_at,
                             created_at, updated_at)
    SELECT u(n), u(n % 10 + 1), n % 2 + 1, b(n, 32), 'hash',
           CASE n % 100 WHEN 0 THEN 'pending' WHEN 1 THEN 'processing' ELSE 'completed' END, u(n), n, n, n, 0
    FROM count WHERE n <= 5000;
INSERT INTO safe_candidate (chain_no, block_number, place, block_hash, block_time, tx, address, factory, owners,
                            plain, look_at)
    SELECT n % 2 + 1, n, 0, b(n, 32), 0, b(n, 32), b(n, 20), b(n, 20), '[]', TRUE, n FROM count WHERE n <= 5000;
INSERT INTO safe_state (chain_no, address, version, singleton, trusted, owners, threshold, block_number, block_hash,
                        look_at)
    SELECT n % 2 + 1, b(n, 20), '1.4.1', b(n, 20), TRUE, '[]', 1, n, b(n, 32), n FROM count WHERE n <= 5000;
INSERT INTO ownership_challenge (id, tenant_id, chain, family, address, message, created_at, expires_at, verified_at)
    SELECT u(n), u(n % 10 + 1), 'a', 'evm', b(n, 20), 'message', n, n + 10,
           CASE WHEN n % 20 > 0 THEN n + 5 END
    FROM count WHERE n <= 5000;
INSERT INTO webhook_endpoint (id, tenant_id, url, events, created_at, updated_at)
    SELECT u(n), u(n % 10 + 1), 'https://' || n, '["*"]', 0, 0 FROM count WHERE n <= 500;
INSERT INTO webhook_secret (endpoint_id, secret, created_at, expires_at)
    SELECT u((n - 1) % 500 + 1), 'secret ' || n, 0, CASE WHEN n % 20 = 0 THEN n END FROM count WHERE n <= 2000;
INSERT INTO delivery (id, endpoint_id, tenant_id, event_position, wallet_no, status, next_attempt_at, created_at,
                      finished_at)
    SELECT u(n), u((n - 1) % 500 + 1), u(n % 10 + 1), n / 10, (n - 1) % 5000 + 1,
           CASE WHEN n % 100 = 0 THEN 'pending' ELSE 'delivered' END, n, n,
           CASE WHEN n % 100 > 0 THEN n END
    FROM count WHERE n <= 10000;
INSERT INTO delivery_attempt (delivery_id, attempt, started_at, latency_ms)
    SELECT u(n), 1, n, 1 FROM count WHERE n <= 10000;
INSERT INTO idempotency_key (tenant_id, key, request_hash, status, body, created_at)
    SELECT u(n % 10 + 1), 'key ' || n, b(n, 32), 200, '{}', n FROM count WHERE n <= 5000;
