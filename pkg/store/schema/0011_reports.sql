-- +goose Up

-- What users of this server have reported, for its moderators; in the shard of who reported it.
CREATE TABLE report (
    id         bigint   GENERATED ALWAYS AS IDENTITY,
    shard      smallint NOT NULL,
    reporter   text     NOT NULL,
    -- what is reported: an event of a room, a room, or a user; '' each for none. Of an event, the user is its sender.
    room_id    text     NOT NULL DEFAULT '',
    event_id   text     NOT NULL DEFAULT '',
    user_id    text     NOT NULL DEFAULT '',
    reason     text     NOT NULL DEFAULT '',
    at         bigint   NOT NULL,                 -- ms
    PRIMARY KEY (shard, id)
);
