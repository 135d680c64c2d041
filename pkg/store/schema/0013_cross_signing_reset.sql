-- +goose Up

-- Until when a user's cross-signing keys may be replaced without further proof, because an outside authentication service has asked
-- for it; ms, 0: not at all.
ALTER TABLE account ADD COLUMN reset_until bigint NOT NULL DEFAULT 0;
