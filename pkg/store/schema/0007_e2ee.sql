-- +goose Up

-- Keys of devices and users, messages to devices, and key backups. All of it belongs to the shard of its user, and goes with the device.

-- When a user's device list (devices with keys, their names, and cross-signing keys) last changed.
CREATE TABLE device_list (
    shard    smallint NOT NULL,
    user_id  text     NOT NULL,
    pos      bigint   NOT NULL,
    PRIMARY KEY (shard, user_id)
) WITH (fillfactor = 80);
CREATE INDEX device_list_pos ON device_list (shard, pos);

CREATE TABLE device_key (
    shard      smallint NOT NULL,
    user_id    text  NOT NULL,
    device_id  text  NOT NULL,
    json       bytea NOT NULL,                    -- as uploaded, with the user's own signatures
    pos        bigint NOT NULL,
    PRIMARY KEY (shard, user_id, device_id)
);

-- Handed out once each, oldest first.
CREATE TABLE one_time_key (
    shard      smallint NOT NULL,
    user_id    text   NOT NULL,
    device_id  text   NOT NULL,
    algorithm  text   NOT NULL,
    key_id     text   NOT NULL,
    json       bytea  NOT NULL,
    pos        bigint NOT NULL,
    PRIMARY KEY (shard, user_id, device_id, algorithm, key_id)
);

-- Handed out again and again once the one-time keys of an algorithm have run out.
CREATE TABLE fallback_key (
    shard      smallint NOT NULL,
    user_id    text    NOT NULL,
    device_id  text    NOT NULL,
    algorithm  text    NOT NULL,
    key_id     text    NOT NULL,
    json       bytea   NOT NULL,
    used       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (shard, user_id, device_id, algorithm)
);

CREATE TABLE cross_signing_key (
    shard    smallint NOT NULL,
    user_id  text   NOT NULL,
    usage    text   NOT NULL,                     -- master, self_signing, user_signing
    json     bytea  NOT NULL,
    pos      bigint NOT NULL,
    PRIMARY KEY (shard, user_id, usage)
);

-- Signatures of a user under keys of other users, which only the signer is shown. By the signer's shard.
CREATE TABLE key_signature (
    shard      smallint NOT NULL,
    user_id    text NOT NULL,                     -- the signer
    target     text NOT NULL,                     -- whose key it is
    target_key text NOT NULL,                     -- the public key that is signed
    key_id     text NOT NULL,                     -- which key of the signer signed
    signature  text NOT NULL,
    PRIMARY KEY (shard, user_id, target, target_key, key_id)
);

-- Messages that a device has not acknowledged yet.
CREATE TABLE to_device (
    shard      smallint NOT NULL,
    user_id    text   NOT NULL,
    device_id  text   NOT NULL,
    pos        bigint NOT NULL,
    json       bytea  NOT NULL,                   -- {"content":…,"sender":…,"type":…}
    PRIMARY KEY (shard, user_id, device_id, pos)
);

-- A device that nobody is logged in with, kept for messages that arrive meanwhile. One for each user.
CREATE TABLE dehydrated_device (
    shard      smallint NOT NULL,
    user_id    text  NOT NULL,
    device_id  text  NOT NULL,
    data       bytea NOT NULL,
    PRIMARY KEY (shard, user_id)
);

CREATE TABLE backup_version (
    shard      smallint NOT NULL,
    user_id    text    NOT NULL,
    version    bigint  NOT NULL,
    algorithm  text    NOT NULL,
    auth_data  bytea   NOT NULL,
    etag       bigint  NOT NULL DEFAULT 0,
    count      bigint  NOT NULL DEFAULT 0,
    deleted    boolean NOT NULL DEFAULT false,    -- the number is never used again
    PRIMARY KEY (shard, user_id, version)
);

CREATE TABLE backup_key (
    shard          smallint NOT NULL,
    user_id        text    NOT NULL,
    version        bigint  NOT NULL,
    room_id        text    NOT NULL,
    session_id     text    NOT NULL,
    first_index    bigint  NOT NULL,
    forwarded      bigint  NOT NULL,
    verified       boolean NOT NULL,
    data           bytea   NOT NULL,              -- session_data
    PRIMARY KEY (shard, user_id, version, room_id, session_id)
);
ALTER TABLE backup_key ALTER COLUMN data SET STORAGE EXTERNAL;
