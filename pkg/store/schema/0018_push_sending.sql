-- +goose Up

-- What a pusher is owed: what its user is to be notified of after a place in the log. It has a row only while its gateway does not take
-- what it is sent. Written by the role push, under its epoch.
CREATE TABLE push_owed (
    shard    smallint NOT NULL,                   -- of the user
    user_id  text     NOT NULL,
    app_id   text     NOT NULL,
    pushkey  text     NOT NULL,
    since    bigint   NOT NULL,                   -- ms
    above    bigint[] NOT NULL,                   -- positions, by shard
    PRIMARY KEY (shard, user_id, app_id, pushkey)
);

-- Events that stand above messages, to list them without looking at the messages in between.
CREATE INDEX push_tally_loud ON push_tally (room_nid, thread, ord) WHERE flags <> 1;
