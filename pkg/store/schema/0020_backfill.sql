-- +goose Up

-- Where a room's timeline lacks events of other servers: before the event at ord. What is found of them later gets the places below that one
-- and above floor, the latest first, and the gap moves on with them until nothing is missing.
CREATE TABLE event_gap (
    room_nid  bigint NOT NULL,
    ord       bigint NOT NULL,
    floor     bigint NOT NULL,
    -- nids of the events that name what is missing; 8 bytes each, big endian
    edge      bytea  NOT NULL,
    PRIMARY KEY (room_nid, ord)
);
