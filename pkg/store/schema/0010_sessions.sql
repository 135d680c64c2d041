-- +goose Up

-- A refresh token is known by its SHA-256 only, like an access token. parent is the refresh token that this one came for; it stays
-- good until this one, or the access token that came with it, is used, since the answer that brought them may have been lost.
CREATE TABLE refresh_token (
    shard       smallint NOT NULL,
    hash        bytea NOT NULL,
    user_id     text  NOT NULL,
    device_id   text  NOT NULL,
    access_hash bytea NOT NULL,                   -- of the access token that came with it
    parent      bytea,
    expires     bigint,                           -- ms; NULL: never
    created     bigint NOT NULL,
    PRIMARY KEY (shard, hash)
);
CREATE INDEX refresh_token_user ON refresh_token (shard, user_id, device_id);

-- A login token lets whoever has it log in once: what one device hands to another, or a single sign-on to a client.
CREATE TABLE login_token (
    shard       smallint NOT NULL,
    hash        bytea NOT NULL,
    user_id     text  NOT NULL,
    expires     bigint NOT NULL,                  -- ms
    PRIMARY KEY (shard, hash)
);
CREATE INDEX login_token_expires ON login_token (expires);
