-- +goose Up

-- One-time keys that were handed out, until the device has uploaded others: by then it has had the answer to the upload that they came with,
-- and will not send them again.
CREATE TABLE spent_key (
    shard      smallint NOT NULL,
    user_id    text   NOT NULL,
    device_id  text   NOT NULL,
    algorithm  text   NOT NULL,
    key_id     text   NOT NULL,
    json       bytea  NOT NULL,
    PRIMARY KEY (shard, user_id, device_id, algorithm, key_id)
);
