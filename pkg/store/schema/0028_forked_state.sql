-- +goose Up

-- The room's state after an event of a room that has forks then, where it is not the state after the event itself: what the states
-- after all forward extremities resolve to.
CREATE TABLE forked_state (
    room_nid  bigint NOT NULL,
    event_nid bigint NOT NULL,
    snapshot  bigint NOT NULL,
    PRIMARY KEY (room_nid, event_nid)
);
