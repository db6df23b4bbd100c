-- Whether the history since from_block is in the transfers: null where none was asked for.
ALTER TABLE watch ADD COLUMN history TEXT
    CONSTRAINT watch_history CHECK (history IN ('wanted', 'complete', 'incomplete'));
CREATE INDEX watch_history_wanted ON watch (chain, wallet_id) WHERE history = 'wanted';
