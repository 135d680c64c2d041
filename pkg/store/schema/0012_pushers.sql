-- +goose Up

-- Where a user wants notifications sent.
CREATE TABLE pusher (
    shard               smallint NOT NULL,
    user_id             text NOT NULL,
    app_id              text NOT NULL,
    pushkey             text NOT NULL,
    kind                text NOT NULL,
    app_display_name    text NOT NULL,
    device_display_name text NOT NULL,
    profile_tag         text NOT NULL DEFAULT '',
    lang                text NOT NULL,
    data                bytea NOT NULL,           -- JSON
    device_id           text NOT NULL,            -- of the device that set it, with which it goes
    created             bigint NOT NULL,          -- ms
    PRIMARY KEY (shard, user_id, app_id, pushkey)
);
CREATE INDEX pusher_key ON pusher (app_id, pushkey);
