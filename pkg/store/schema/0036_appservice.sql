-- +goose Up

-- What application services are sent. Where each is in the log says the cursor of the consumer 'appservice/' and its id.
CREATE TABLE appservice (
    id    text   PRIMARY KEY,
    txn   bigint NOT NULL DEFAULT 0,              -- of its last transaction
    body  bytea,                                  -- of that; NULL once it has been taken
    seen  bigint NOT NULL                         -- ms; when it was last registered
);

-- Rooms that application services list for their networks.
CREATE TABLE appservice_room (
    service  text NOT NULL,
    network  text NOT NULL,
    room_id  text NOT NULL,
    shard    smallint NOT NULL,                   -- of the room
    PRIMARY KEY (service, network, room_id)
);
