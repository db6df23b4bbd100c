-- What the sender wrote beside a payment; null without one.
ALTER TABLE transfer ADD COLUMN memo TEXT;

-- What of the balance the asset's issuer has frozen, as last read from the chain.
ALTER TABLE balance ADD COLUMN frozen NUMERIC(78, 0) NOT NULL DEFAULT 0
    CONSTRAINT balance_frozen_not_negative CHECK (frozen >= 0);
