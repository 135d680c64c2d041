-- +goose Up

-- By time, for "jump to date": the event of a room that is closest to a moment.
CREATE INDEX event_room_ts ON event (room_nid, ts, ord) WHERE ord IS NOT NULL;
