-- What the sender wrote beside a payment; null without one.
ALTER TABLE transfer ADD COLUMN memo TEXT;

-- What of the balance the asset's issuer has frozen, as last read from the chain.
ALTER TABLE balance ADD COLUMN frozen BLOB NOT NULL
    DEFAULT X'0000000000000000000000000000000000000000000000000000000000000000' CHECK (length(frozen) = 32);
