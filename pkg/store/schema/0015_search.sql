-- +goose Up

-- What is found by words. Written by durable consumers of the log alone, from the rows of rooms and accounts; see store/searchdb.

-- Events that have words: messages, names and topics of rooms. An event that is redacted loses its row.
CREATE TABLE search_event (
    event_nid  bigint PRIMARY KEY,
    room_nid   bigint   NOT NULL,
    ts         bigint   NOT NULL,                 -- origin_server_ts, ms
    -- besides the words: the room, the sender and the key, each as a label that no word can be
    words      tsvector NOT NULL
);
CREATE INDEX search_event_words ON search_event USING gin (words);
CREATE INDEX search_event_room ON search_event (room_nid);

-- Those who can be found. A user of this server has one row, with the profile (room_nid 0); a user of another has one for each
-- room that we share, with the name that is used there.
CREATE TABLE directory_person (
    shard         smallint NOT NULL,              -- the user's, or the room's
    room_nid      bigint   NOT NULL DEFAULT 0,
    user_id       text     NOT NULL,
    display_name  text     NOT NULL DEFAULT '',
    avatar_url    text     NOT NULL DEFAULT '',
    words         tsvector NOT NULL,
    PRIMARY KEY (shard, room_nid, user_id)
);
CREATE INDEX directory_person_words ON directory_person USING gin (words);
CREATE INDEX directory_person_id ON directory_person (lower(user_id) text_pattern_ops);

-- Rooms that anybody may join or read: whoever is in one can be found by everybody.
CREATE TABLE directory_open (
    room_nid  bigint PRIMARY KEY
);

-- Who of this server is in a room, and who of others: without looking at all of a large one.
CREATE INDEX member_ours ON member (room_nid) WHERE local AND membership = 4;
CREATE INDEX member_others ON member (room_nid, user_id) WHERE NOT local AND membership = 4;
