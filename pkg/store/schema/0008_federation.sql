-- +goose Up

-- ---------------------------------------------------------------- keys of other servers

-- What servers published of their signing keys, as it was verified when it came. Written by any worker: a row is a copy of what its
-- server says, and the later copy wins.
CREATE TABLE server_key (
    server       text   NOT NULL,
    key_id       text   NOT NULL,
    key          bytea  NOT NULL,
    valid_until  bigint NOT NULL,                 -- ms, as the server said, at most seven days from got; 0 for a key out of use
    expired      bigint NOT NULL,                 -- ms; 0 for a current key
    got          bigint NOT NULL,                 -- ms
    document     bytea  NOT NULL,                 -- the signed document that names the key, as a notary passes it on
    PRIMARY KEY (server, key_id)
);

-- ---------------------------------------------------------------- staging

-- Rows of these tables are made by whoever serves a request; those of a room are deleted by the shard's writer, with what it made of
-- them, all others by the holder of the shard's preparation.

-- Transactions that were taken, by the origin's shard.
CREATE TABLE fed_txn (
    shard   smallint NOT NULL,
    origin  text NOT NULL,
    txn_id  text NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shard, origin, txn_id)
);
CREATE INDEX fed_txn_at ON fed_txn USING brin (at);

-- Events that other servers sent, verified, waiting to be brought into their rooms, by the room's shard.
CREATE TABLE staged_pdu (
    shard     smallint NOT NULL,
    seq       bigint GENERATED ALWAYS AS IDENTITY,
    room_id   text  NOT NULL,
    event_id  text  NOT NULL,
    origin    text  NOT NULL,
    json      bytea NOT NULL,
    tries     integer NOT NULL DEFAULT 0,
    due       timestamptz NOT NULL DEFAULT now(),
    error     text NOT NULL DEFAULT '',
    PRIMARY KEY (shard, seq)
);
ALTER TABLE staged_pdu ALTER COLUMN json SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX staged_pdu_event ON staged_pdu (shard, room_id, event_id);

-- What must not be lost of the rest of a transaction (to-device messages, device lists, signing keys), by the origin's shard.
CREATE TABLE staged_edu (
    shard    smallint NOT NULL,
    seq      bigint GENERATED ALWAYS AS IDENTITY,
    origin   text  NOT NULL,
    type     text  NOT NULL,
    content  bytea NOT NULL,
    PRIMARY KEY (shard, seq)
);

-- The state of a room, or events that are missing in one, on their way from another server to the room's writer.
CREATE TABLE staged_set (
    set_id  bytea PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE staged_event (
    set_id    bytea NOT NULL,
    seq       integer NOT NULL,                   -- auth events before the events that name them
    state     boolean NOT NULL,                   -- part of the state, and not only of its auth chains
    event_id  text  NOT NULL,
    json      bytea NOT NULL,
    PRIMARY KEY (set_id, seq)
);
ALTER TABLE staged_event ALTER COLUMN json SET STORAGE EXTERNAL;

-- What another server told a user of this one of a room with an invitation, or on a knock, when the room's state is not known here.
CREATE TABLE stripped_state (
    room_nid  bigint NOT NULL,
    user_id   text   NOT NULL,
    events    bytea  NOT NULL,                    -- a JSON array
    PRIMARY KEY (room_nid, user_id)
);

-- ---------------------------------------------------------------- sending

-- Which servers are in which rooms, and the rooms of a server.
CREATE INDEX member_host ON member (substr(user_id, strpos(user_id, ':') + 1), room_nid) WHERE NOT local AND membership = 4;

-- Destinations that have not acknowledged everything they are owed: nothing beyond pos of a shard. Written by the sender, when it saves
-- its place in the log.
CREATE TABLE fed_behind (
    destination  text     NOT NULL,
    shard        smallint NOT NULL,
    pos          bigint   NOT NULL,
    PRIMARY KEY (destination, shard)
);

-- EDUs for a destination that must not be lost, by the shard of whoever wrote them; deleted when they were acknowledged.
CREATE TABLE fed_edu (
    shard        smallint NOT NULL,
    destination  text  NOT NULL,
    seq          bigint GENERATED ALWAYS AS IDENTITY,
    type         text  NOT NULL,
    content      bytea NOT NULL,
    PRIMARY KEY (shard, destination, seq)
);
CREATE INDEX fed_edu_destination ON fed_edu (destination, seq);
