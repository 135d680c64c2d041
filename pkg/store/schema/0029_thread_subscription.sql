-- +goose Up

-- The threads that users want to hear of (MSC4306), and those that they no longer do.
CREATE TABLE thread_subscription (
    shard      smallint NOT NULL,
    user_id    text     NOT NULL,
    room_id    text     NOT NULL,
    root       text     NOT NULL,                 -- event id
    subscribed boolean  NOT NULL,
    automatic  boolean  NOT NULL,                 -- the client did it by itself
    -- how far the room had got in its order when the user ended it: an event of before does not begin it again
    ended      bigint   NOT NULL,
    pos        bigint   NOT NULL,
    PRIMARY KEY (shard, user_id, room_id, root)
);
CREATE INDEX thread_subscription_pos ON thread_subscription (shard, user_id, pos);
