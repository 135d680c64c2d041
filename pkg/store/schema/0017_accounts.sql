-- +goose Up

-- When a signature under somebody else's key was made: the signer's other devices are told of it.
ALTER TABLE key_signature ADD COLUMN pos bigint NOT NULL DEFAULT 0;
